"""rLLM: a reward function for its environments, ``SingleTurnEnvironment(task=..., reward_fn=grader_reward_fn())``.

``task_info["ground_truth"]`` is tests or a task's name, in any shape of ``grader.suites.labels`` (rLLM's own lists of
tests among them).

The traps of the contract, and what is done about them:

- ``action`` is a text, or an ``Action`` that has it as ``.action``.
- ``RewardOutput`` is made with names, because its fields have changed between versions.
- A reward must be a number. Where a sample could not be judged an error is raised, which rLLM's engine retries and then
  counts as a failed episode; with ``infrastructure_error_score`` it has that score, and ``metadata`` says so.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from grader.errors import InputError
from grader.integrations.asking import ask, score_of
from grader.integrations.options import RewardOptions
from grader.integrations.rows import make_row


@dataclasses.dataclass(slots=True, kw_only=True)
class _RewardOutput:
    """What rLLM's class of this name has, for where rLLM is not installed."""

    reward: float
    metadata: dict[str, Any]
    is_correct: bool | None = None


def grader_reward_fn(**options: Any) -> Callable[[Mapping[str, Any], Any], Any]:
    """Make a reward function. ``options`` are those of ``RewardOptions``. Raises InputError for wrong ones."""
    chosen = RewardOptions.of(options)

    def reward_fn(task_info: Mapping[str, Any], action: Any) -> Any:
        if not isinstance(task_info, Mapping) or task_info.get("ground_truth") is None:
            raise InputError("task_info.ground_truth: missing; give tests, or a task's name")
        said = getattr(action, "action", action)
        row = make_row(
            said, task_info["ground_truth"], "task_info.ground_truth", suite=task_info.get("suite")
        )
        scored = ask([row], chosen)[0]
        values = {
            "reward": score_of(scored, chosen),
            "metadata": {
                "status": scored.status,
                "infrastructure_error": not scored.judged,
                "flags": list(scored.flags),
            },
            "is_correct": scored.passed,
        }
        output = _output_class()
        known = {field.name for field in dataclasses.fields(output)}
        return output(**{name: value for name, value in values.items() if name in known})

    return reward_fn


def _output_class() -> Any:
    try:
        return importlib.import_module("rllm.rewards.reward_types").RewardOutput
    except ImportError:
        return _RewardOutput
