"""Confidence intervals by bootstrap over tasks, in pure Python and still fast.

Tasks are what is drawn: a suite is a sample of the problems one could have asked, so the interval says how
much the mean would move with other problems of the same kind (Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993, chapter 13: the percentile interval).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

RESAMPLES = 1000
SEED = 20210707  # any fixed number does: the same verdicts must give the same interval
_COUNTED_TASKS = 256  # what a byte can number
_COUNTED_KINDS = 12
_FRACTION_BITS = 32  # 2e-10 of a pass@k, far below what 1000 resamples can resolve


def bootstrap_ci95(columns: Sequence[Sequence[float]]) -> list[tuple[float, float] | None]:
    """Return the 95% interval (low, high) of each column's mean.

    ``columns`` are lists of equal length with values from 0 to 1, one value a task; the same tasks are drawn
    for all of them. An interval from fewer than two tasks would say nothing, and is None.
    """
    if not columns:
        return []
    tasks = len(columns[0])
    if tasks < 2:
        return [None] * len(columns)
    rows = list(zip(*columns, strict=True))
    if len(set(rows)) == 1:  # whatever is drawn
        return [(value, value) for value in rows[0]]
    distinct = dict.fromkeys(map(tuple, columns))  # often they say the same of every task
    # All columns travel in one integer a task, in fields wide enough for the sum over all tasks. One draw and
    # one addition then serve every column: for six columns that is six times less work.
    width = _FRACTION_BITS + tasks.bit_length()
    packed = [
        sum(round(value * (1 << _FRACTION_BITS)) << (index * width) for index, value in enumerate(row))
        for row in zip(*distinct, strict=True)
    ]
    totals = _totals(packed)
    scale = tasks * (1 << _FRACTION_BITS)
    mask = (1 << width) - 1
    intervals = {
        column: _percentiles([(total >> (index * width)) & mask for total in totals], scale)
        for index, column in enumerate(distinct)
    }
    return [intervals[tuple(column)] for column in columns]


def _totals(values: Sequence[int]) -> list[int]:
    """The sum of each resample; by counting, where few tasks differ: then no resample is summed up value by value."""
    tasks, kinds = len(values), list(dict.fromkeys(values))
    if tasks > _COUNTED_TASKS:
        draw = random.Random(SEED).choices  # noqa: S311 - statistics, not secrets
        return [sum(draw(values, k=tasks)) for _ in range(RESAMPLES)]
    begins = range(0, RESAMPLES * tasks, tasks)
    if len(kinds) > _COUNTED_KINDS:
        every = _draws(tasks)
        return [sum(map(values.__getitem__, every[begin : begin + tasks])) for begin in begins]
    kind_of_task = bytes(kinds.index(value) for value in values).ljust(256)
    weights = [(value, bytes((kind,))) for kind, value in enumerate(kinds) if value]
    drawn = _draws(tasks).translate(kind_of_task)
    if len(weights) == 1:
        value, kind = weights[0]
        return [value * drawn.count(kind, begin, begin + tasks) for begin in begins]
    return [
        sum(value * drawn.count(kind, begin, begin + tasks) for value, kind in weights) for begin in begins
    ]


@lru_cache(maxsize=32)
def _draws(tasks: int) -> bytes:
    """Which tasks each resample draws, one byte a task. Random bytes are numbered modulo the tasks; those above the
    last whole multiple are thrown away, so that every task is as likely as the others."""
    fair = 256 - 256 % tasks
    number = bytes(byte % tasks for byte in range(256))
    unfair = bytes(range(fair, 256))
    source = random.Random(SEED)  # noqa: S311 - statistics, not secrets
    drawn = b""
    while len(drawn) < RESAMPLES * tasks:
        drawn += source.randbytes(RESAMPLES * tasks).translate(number, unfair)
    return drawn[: RESAMPLES * tasks]


def _percentiles(totals: list[int], scale: int) -> tuple[float, float]:
    totals.sort()
    tail = round(0.025 * len(totals))
    return totals[tail] / scale, totals[-1 - tail] / scale
