"""OpenRLHF: a reward-function file.

::

    GRADER_URL=http://127.0.0.1:8000 GRADER_SUITE=humaneval+ python -m openrlhf.cli.train_ppo_ray \\
        --reward.remote_url "$(python -c 'import grader.integrations.openrlhf as file; print(file.__file__)')" ...

Labels are tests or names of tasks, in any shape of ``grader.suites.labels``. The options are those of the environment:
``GRADER_URL``, ``GRADER_API_KEY``, ``GRADER_SUITE``, ``GRADER_REWARD``, ``GRADER_INFRASTRUCTURE_ERROR_SCORE``. The same
without this package: the endpoint ``POST /openrlhf/reward``, see ``docs/trainers.md``.

The traps of the contract, and what is done about them:

- ``queries`` are prompt and response in one text, with special tokens: both are taken off. A query that does not begin
  with its prompt is refused, because code in the prompt could be taken for the model's.
- The file is loaded by its path, without options, and ``reward_func`` is called with one sample at a time, in threads.
- A reward must be a number. For a sample that could not be judged an exception is raised: OpenRLHF logs it and leaves
  the sample without a reward, which its trainer does not accept, so the training ends rather than learns from a 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grader.errors import InputError
from grader.extraction.after_prompt import completion_after, has_special_tokens
from grader.integrations.asking import ask, log_once, scores_of
from grader.integrations.options import RewardOptions
from grader.integrations.rows import Row, check_lengths, make_row


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any
) -> dict[str, Any]:
    """Return ``rewards`` and ``scores``, a float a query, and ``extra_logs``, a list of floats for each name.

    Raises InputError for queries and labels that cannot be used, and InfrastructureError: see the module.
    """
    check_lengths(queries=queries, prompts=prompts, labels=labels)
    options = RewardOptions.from_environment()
    try:
        rows = [
            _row(query, prompt, label, number)
            for number, (query, prompt, label) in enumerate(zip(queries, prompts, labels, strict=True))
        ]
        scored = ask(rows, options)
    except InputError as error:
        log_once(
            f"openrlhf {type(error).__name__}", f"samples were refused: {error}"
        )  # OpenRLHF logs it as info
        raise
    rewards = scores_of(scored, options)
    logs = {
        "passed": [float(bool(one.passed)) for one in scored],
        "infrastructure_error": [float(not one.judged) for one in scored],
        "flagged": [float(bool(one.flags)) for one in scored],
    }
    return {"rewards": rewards, "scores": rewards, "extra_logs": logs}


def _row(query: Any, prompt: Any, label: Any, number: int) -> Row:
    if not isinstance(query, str) or not isinstance(prompt, str):
        raise InputError(f"queries[{number}]: query and prompt are texts")
    completion = completion_after(query, prompt)
    if completion is None:
        raise InputError(f"queries[{number}]: does not begin with prompts[{number}]")
    shown = None if has_special_tokens(prompt) else prompt
    return make_row(completion, label, f"labels[{number}]", prompt=shown)
