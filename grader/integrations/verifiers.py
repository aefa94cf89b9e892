"""verifiers and prime-rl: functions for a Rubric (verifiers before 0.2), and a task with a reward for ``verifiers.v1``.

::

    rubric = vf.Rubric(funcs=[grader_reward(suite="humaneval+")])                    # one sample a call
    rubric = vf.Rubric(funcs=[grader_group_reward(suite="humaneval+")])              # one request a group

    class CodeTask(grader_task(suite="humaneval+"), vf.Task[CodeData, vf.State]):     # v1: adds the reward "grader"
        ...

``answer`` is tests or a task's name, in any shape of ``grader.suites.labels``; where it is empty, ``info["tests"]`` or
``info["task_id"]`` counts. In v1 it is the field ``answer``, ``tests`` or ``task_id`` of the task's data.

The traps of the contract, and what is done about them:

- A Rubric turns every exception of a function into a score of 0.0. The contract's own word is ``state["error"]``: it is
  set to ``InfraError``, by which verifiers runs the rollout again and prime-rl leaves it out, and the score is NaN, or
  ``infrastructure_error_score``. Rows that cannot be used are told in the same way, as ``Error``.
- In v1 an exception marks the rollout as failed, so it is raised.
- A Rubric finds out by the names of a function's arguments what to pass, and by plural names that it is for a group.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from grader.errors import GraderError, InfrastructureError, InputError
from grader.integrations.asking import Scored, ask_async, ask_one, log_once, score_of
from grader.integrations.options import RewardOptions
from grader.integrations.rows import Row, check_lengths, make_row


def grader_reward(**options: Any) -> Callable[..., Awaitable[float]]:
    """Make a function of a Rubric. ``options`` are those of ``RewardOptions``. Raises InputError for wrong ones."""
    chosen = RewardOptions.of(options)

    async def grader(completion: Any, answer: Any, state: Any, info: Any) -> float:
        try:
            row = _row(completion, answer, info, "answer")
            return score_of(await ask_one(row, chosen), chosen)
        except GraderError as error:
            return _failed(error, [state], chosen)

    return grader


def grader_group_reward(**options: Any) -> Callable[..., Awaitable[list[float]]]:
    """Make a function of a Rubric that scores a group in one request. Takes what ``grader_reward`` takes."""
    chosen = RewardOptions.of(options)

    async def grader(completions: Any, answers: Any, states: Any, infos: Any) -> list[float]:
        try:
            check_lengths(completions=completions, answers=answers, infos=infos, states=states)
            rows = [
                _row(completion, answer, info, f"answers[{number}]")
                for number, (completion, answer, info) in enumerate(
                    zip(completions, answers, infos, strict=True)
                )
            ]
            found = await ask_async(rows, chosen)
        except GraderError as error:
            return [_failed(error, states, chosen)] * len(completions)
        return [_score(scored, state, chosen) for scored, state in zip(found, states, strict=True)]

    return grader


def grader_task(**options: Any) -> type:
    """Make a base class for tasks of ``verifiers.v1`` with the reward ``grader``, to be put before ``vf.Task``.

    ``options`` are those of ``RewardOptions``. Raises InputError for wrong ones, ImportError without verifiers.
    """
    chosen = RewardOptions.of(options)
    reward: Callable[..., Any] = importlib.import_module("verifiers.v1.utils.decorators").reward

    class GraderTask:
        """Scores what the model said last."""

        @reward(weight=1.0)  # type: ignore[untyped-decorator]
        async def grader(self, task: Any, trace: Any) -> dict[str, float]:
            scored = await ask_one(_row_of_trace(task, trace), chosen)
            values = {"grader": score_of(scored, chosen)}
            trace.info["grader"] = {"status": scored.status, "flags": list(scored.flags)}
            return values

    return GraderTask


def _row(completion: Any, answer: Any, info: Any, place: str) -> Row:
    info = info if isinstance(info, Mapping) else {}
    truth = answer if answer is not None and answer != "" else info.get("tests", info.get("task_id"))
    return make_row(_messages(completion), truth, place, suite=info.get("suite"))


def _row_of_trace(task: Any, trace: Any) -> Row:
    names = ("answer", "tests", "task_id")
    truth = next((getattr(task, name) for name in names if getattr(task, name, None)), None)
    if truth is None:
        raise InputError(f"the task's data has none of the fields {', '.join(names)}")
    said = trace.root_reply
    if said is None:
        messages = trace.assistant_messages
        said = _text(messages[-1].content) if messages else ""
    return make_row(said, truth, "task", suite=getattr(task, "suite", None))


def _messages(completion: Any) -> Any:
    """The completion in JSON's types: verifiers has messages as dicts, and as pydantic models from 0.1.10 on."""
    if isinstance(completion, str) or not isinstance(completion, Sequence):
        return completion
    return [
        {"role": message.get("role"), "content": message.get("content") or ""}
        if hasattr(message, "get")
        else {
            "role": getattr(message, "role", None),
            "content": _text(getattr(message, "content", "")),
        }
        for message in completion
    ]


def _text(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    return "".join(getattr(part, "text", "") for part in content)


def _score(scored: Scored, state: Any, options: RewardOptions) -> float:
    try:
        return score_of(scored, options)
    except InfrastructureError as error:
        return _failed(error, [state], options)


def _failed(error: GraderError, states: Sequence[Any], options: RewardOptions) -> float:
    """Note in the states that their rollouts have no score, in verifiers' own words."""
    log_once(f"verifiers {type(error).__name__}", f"rollouts have no score: {error}")
    kind = "InfraError" if isinstance(error, InfrastructureError) else "Error"
    try:
        made = getattr(importlib.import_module("verifiers.errors"), kind)(str(error))
    except (ImportError, AttributeError):
        made = error
    for state in states:
        state["error"] = made
    return math.nan
