"""AReaL: a reward function for its workflows, ``RLVRWorkflow(reward_fn="grader.integrations.areal.reward_fn", ...)``.

The row's tests or task's name is the first that there is of its columns ``ground_truth``, ``answer``, ``input_output``,
``tests`` and ``task_id``, in any shape of ``grader.suites.labels``; its suite the column ``suite``. Options are the
environment's: ``GRADER_URL``, ``GRADER_API_KEY``, ``GRADER_SUITE``, ``GRADER_REWARD``,
``GRADER_INFRASTRUCTURE_ERROR_SCORE``; ``GRADER_TIMEOUT_S`` is AReaL's own time-out, 15 s if it is not given.

The traps of the contract, and what is done about them:

- AReaL calls it in processes of a pool, by reference, so it is a plain function without options of its own.
- AReaL gives up after 15 s, four times, and then returns 0, silently. So the function itself gives up before, and
  raises: an exception is tried again, and the last one ends the rollout, which AReaL leaves out.
- A dict could be returned, but workflows differ in what they accept: this is a float.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from grader.errors import InputError
from grader.extraction.after_prompt import has_special_tokens
from grader.integrations.asking import ask, score_of
from grader.integrations.options import RewardOptions
from grader.integrations.rows import make_row

TIMEOUT_VARIABLE = "GRADER_TIMEOUT_S"
AREAL_TIMEOUT_S = 15.0
_SHARE = 0.8
_COLUMNS = ("ground_truth", "answer", "input_output", "tests", "task_id")


def reward_fn(prompt: Any, completions: Any, prompt_ids: Any, completion_ids: Any, **data: Any) -> float:
    """Return the reward of a completion.

    Raises InputError for a row that cannot be used, and InfrastructureError: see the module.
    """
    name = next((name for name in _COLUMNS if data.get(name) is not None), None)
    if name is None:
        raise InputError(f"the row has none of the columns {', '.join(_COLUMNS)}")
    options = dataclasses.replace(RewardOptions.from_environment(), timeout_s=_timeout_s() * _SHARE)
    shown = prompt if isinstance(prompt, str) and not has_special_tokens(prompt) else None
    row = make_row(completions, data[name], name, prompt=shown, suite=data.get("suite"))
    return score_of(ask([row], options)[0], options)


def _timeout_s() -> float:
    given = os.environ.get(TIMEOUT_VARIABLE) or AREAL_TIMEOUT_S
    try:
        return float(given)
    except ValueError:
        raise InputError(f"{TIMEOUT_VARIABLE} is {given!r}; give seconds") from None
