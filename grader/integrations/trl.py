"""A reward function for TRL's trainers (``GRPOTrainer`` and its kin), of version 1.10 and later.

::

    from grader.integrations.trl import code_reward

    trainer = GRPOTrainer(model, reward_funcs=code_reward(suite="humaneval+"), train_dataset=dataset, ...)

The data set needs a column that says by what each row is judged: ``task_id``, or tests of its own. Facts about TRL
that this rests on, from its ``trainer/grpo_trainer.py``: a reward function is called once a step on every rank,
with all other columns as lists; it is awaited on an event loop of the trainer's own if
``inspect.iscoroutinefunction`` is true for it; a reward None becomes NaN, which counts neither in a group's mean nor in
the loss.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import CodeType
from typing import Any

from grader.client.config import make_config
from grader.errors import InfrastructureError, InputError
from grader.integrations.asking import Scored, ask_async
from grader.integrations.options import RewardOptions
from grader.integrations.rows import Row, check_lengths, make_row
from grader.rewards import parse

_log = logging.getLogger("grader.integrations")

LogMetric = Callable[[str, float], None]
LogExtra = Callable[[str, list[Any]], None]


class CodeReward:
    """Rewards completions by the tests that a column of the data set names. Made by :func:`code_reward`.

    TRL sends reward functions to other processes in its asynchronous trainer, and a closure cannot be pickled; and it
    takes an object for a coroutine function only if ``inspect`` does. That goes by the attributes of functions,
    which is why this has them.
    """

    __defaults__: None = None
    __kwdefaults__: Mapping[str, Any] | None = None
    __code__: CodeType

    def __init__(self, name: str, column: str, options: RewardOptions) -> None:
        self.__name__ = self.__qualname__ = name
        self.column = column
        self.options = options

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Any] | None = None,
        *,
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Return a reward for each completion, in their order.

        It is None for a row whose column is null, as TRL has it for rows that a function is not meant for; and for a
        row that could not be judged, which is an affair of the grader and says nothing about the program.
        Raises InputError for what cannot be graded whatever the model writes: a missing column, an unknown task.
        """
        began = time.monotonic()
        numbers, rows = self._rows(prompts, completions, columns)
        try:
            scored = await ask_async(rows, self.options)
        except InfrastructureError as error:
            _log.warning("%s: no reward for %d completions: %s", self.__name__, len(rows), error)
            scored = [Scored()] * len(rows)
        if log_metric is not None and rows:
            for metric, value in _metrics(scored, time.monotonic() - began).items():
                log_metric(f"{self.__name__}/{metric}", value)
        of_row = dict(zip(numbers, scored, strict=True))
        if log_extra is not None:
            statuses = [
                of_row[number].status if number in of_row else None for number in range(len(completions))
            ]
            log_extra(f"{self.__name__}/status", statuses)
        return [of_row[number].reward if number in of_row else None for number in range(len(completions))]

    def _rows(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
    ) -> tuple[list[int], list[Row]]:
        """What is to be graded, and the place of each in the step."""
        given = columns.get(self.column)
        if given is None:
            names = sorted(name for name, values in columns.items() if isinstance(values, list))
            raise InputError(
                f"{self.__name__}: the data set has no column {self.column!r}, but {', '.join(names) or 'none'};"
                " name the one that has task ids or tests: code_reward(column=...)"
            )
        check_lengths(completions=completions, prompts=prompts, **{self.column: given})
        made: dict[Any, Row] = {}  # the completions of a group have one label, which may be long
        numbers, rows = [], []
        for number, (prompt, completion, label) in enumerate(zip(prompts, completions, given, strict=True)):
            if label is None:
                continue
            key = label if isinstance(label, str) else id(label)
            known = made.get(key)
            if known is None:
                known = made[key] = make_row("", label, f"{self.column}[{number}]")
            numbers.append(number)
            rows.append(Row(_said(completion), known.label, prompt))
        return numbers, rows


# What ``inspect`` looks at is the code's flags alone.
CodeReward.__code__ = CodeReward.__call__.__code__


def code_reward(
    *,
    suite: str | None = None,
    column: str = "task_id",
    reward: Any = None,
    groups: Sequence[str] | None = None,
    limits: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    url: str | None = None,
    api_key: str | None = None,
    name: str = "code_reward",
) -> CodeReward:
    """Make a reward function for TRL that has completions graded by a grader service, in one request a step.

    ``column``: the column of the data set that says by what a row is judged: the id of a task in ``suite``, or tests
    as in ``docs/inline-tests.md`` (an object, or its JSON text). A row where it is null gets the reward None.
    ``reward``: a reward's name or object, ``binary`` by default; ``groups`` and ``limits``: as in
    ``POST /v1/rewards``. ``timeout_s``: wall-clock seconds after which what has not been judged is given up, and has
    the reward None. ``url`` and ``api_key``: by default ``GRADER_URL`` and ``GRADER_API_KEY``. ``name``: what
    TRL's logs call it; two reward functions of one trainer need two names.

    Where the trainer gives ``log_metric`` (TRL 1.0 and later), these are logged of each step: ``<name>/pass_rate`` (of
    the completions that were judged), ``<name>/infrastructure_error_rate``, ``<name>/flagged_rate`` (of programs
    that tried what no honest one does) and ``<name>/latency_s`` (wall-clock seconds); where it gives ``log_extra``, the
    table of completions has a column ``<name>/status``.

    Raises InputError for a reward that does not exist, and where no server is named.
    """
    if not name or not column:
        raise InputError("name and column must not be empty")
    parse(reward)
    make_config(url, api_key, None)
    options = RewardOptions(
        url=url,
        api_key=api_key,
        suite=suite,
        reward=reward,
        groups=None if groups is None else list(groups),
        limits=limits,
        timeout_s=timeout_s,
    )
    return CodeReward(name, column, options)


def _said(completion: Any) -> Any:
    """What the model said at last: of messages, the text of the assistant's last one.

    Where that is nothing, e.g. because the model called a tool instead, the completion is empty: it has no code.
    """
    if not isinstance(completion, list):
        return completion
    for message in reversed(completion):
        if isinstance(message, Mapping) and message.get("role") == "assistant":
            content = message.get("content")
            return "" if content is None else [{"role": "assistant", "content": content}]
    return ""


def _metrics(scored: Sequence[Scored], latency_s: float) -> dict[str, float]:
    """What of a step is logged. Where nothing was judged there is no pass rate."""
    judged = [one for one in scored if one.judged]
    metrics = {
        "infrastructure_error_rate": 1 - len(judged) / len(scored),
        "latency_s": latency_s,
    }
    if judged:
        metrics["pass_rate"] = sum(bool(one.passed) for one in judged) / len(judged)
        metrics["flagged_rate"] = sum(bool(one.flags) for one in judged) / len(judged)
    return metrics
