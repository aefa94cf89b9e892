"""Rows: a completion, and what it is to be judged by. From a trainer's columns to requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from grader.client.bodies import encode_json
from grader.errors import InputError
from grader.integrations.options import RewardOptions
from grader.suites.labels import Label, plain, read_label

# The server takes more; but an answer that is lost has to be asked for again as a whole. Bytes are those of JSON.
MAX_ROWS = 8192
MAX_BYTES = 24 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One completion (a string, or messages), its label, and what the model was shown, where that is known."""

    completion: Any
    label: Label
    prompt: Any = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that one request can hold: ``numbers`` are their places in the batch, ``fields`` the request's."""

    numbers: list[int]
    fields: dict[str, Any]


def make_row(completion: Any, ground_truth: Any, place: str, *, prompt: Any = None, suite: Any = None) -> Row:
    """Make a row. ``place``: what the trainer calls the ground truth. ``suite``: that of this row, if it has its own.

    Raises InputError for a completion that is null or no text, and for a ground truth that cannot be read.
    """
    completion = plain(completion)
    if not isinstance(completion, str | list):
        raise InputError(
            f"{place}: its completion is {type(completion).__name__}; text or messages are needed"
        )
    label = read_label(ground_truth, place)
    if suite is not None and label.task_id is not None and label.suite is None:
        label = Label(task_id=label.task_id, suite=str(suite))
    return Row(completion, label, plain(prompt))


def check_lengths(**columns: Sized | None) -> int:
    """Return how many rows parallel lists have. Raises InputError where they do not have the same number."""
    lengths = {name: len(values) for name, values in columns.items() if values is not None}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise InputError(f"lists of different lengths: {said}; each sample needs an entry in each of them")
    return next(iter(lengths.values()), 0)


def pieces_of(rows: Sequence[Row], options: RewardOptions) -> Iterator[Piece]:
    """Put rows into requests: one for each suite and one for all tests, split where they would be too large.

    Raises InputError for a task without a suite.
    """
    kinds: dict[str | None, list[int]] = {}
    for number, row in enumerate(rows):
        suite = None
        if row.label.task_id is not None:
            suite = row.label.suite or options.suite
            if suite is None:
                raise InputError(
                    f"row {number}: {row.label.task_id[:80]!r} is the name of a task, and no suite is given; "
                    "give suite=, or tests as JSON text"
                )
        kinds.setdefault(suite, []).append(number)
    for suite, numbers in kinds.items():
        for some in _cut(rows, numbers):
            yield Piece(some, _fields(suite, [rows[number] for number in some], options))


def _cut(rows: Sequence[Row], numbers: Sequence[int]) -> Iterator[list[int]]:
    sizes: dict[int, int] = {}  # samples of a prompt share their tests
    some: list[int] = []
    total = 0
    for number in numbers:
        row = rows[number]
        size = _bytes_of(row.completion, number)
        if (tests := row.label.tests) is not None:
            if id(tests) not in sizes:
                sizes[id(tests)] = _bytes_of(tests, number)
            size += sizes[id(tests)] + _bytes_of(row.prompt, number)  # prompts are sent beside tests alone
        if some and (len(some) >= MAX_ROWS or total + size > MAX_BYTES):
            yield some
            some, total = [], 0
        some.append(number)
        total += size
    if some:
        yield some


def _bytes_of(value: Any, number: int) -> int:
    return len(encode_json(value, f"row {number}"))


def _fields(suite: str | None, rows: Sequence[Row], options: RewardOptions) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "completions": [row.completion for row in rows],
        "reward": options.reward,
        "groups": options.groups,
        "limits": options.limits,
        "include_verdicts": True,
    }
    if suite is not None:
        return fields | {"suite": suite, "task_ids": [row.label.task_id for row in rows]}
    prompts = [row.prompt for row in rows]
    given: Mapping[str, Any] = {"prompts": prompts} if any(prompt for prompt in prompts) else {}
    return {**fields, "tests": [row.label.tests for row in rows], **given}
