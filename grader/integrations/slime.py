"""slime: a custom reward function, ``--custom-rm-path grader.integrations.slime.custom_rm``.

Options are attributes of ``args.grader`` (a mapping, from ``--custom-config-path``), or the environment's:
``GRADER_URL``, ``GRADER_API_KEY``, ``GRADER_SUITE``, ``GRADER_REWARD``, ``GRADER_INFRASTRUCTURE_ERROR_SCORE``. The
label is tests or a task's name, in any shape of ``grader.suites.labels``. The same without this package:
``--rm-type remote_rm --rm-url http://127.0.0.1:8000/slime/reward``, see ``docs/trainers.md``.

The traps of the contract, and what is done about them:

- One sample a call, thousands of them at once: calls are gathered, and share requests. With ``--group-rm`` the function
  gets a list of samples and returns a list.
- A reward must be a number. Where a sample could not be judged, an error is raised, which ends the rollout; with
  ``infrastructure_error_score`` it has that score, and slime's ``remove_sample`` keeps it out of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grader.integrations.asking import Scored, ask_async, ask_one, score_of
from grader.integrations.options import RewardOptions
from grader.integrations.rows import Row, make_row


async def custom_rm(args: Any, sample: Any, **_: Any) -> Any:
    """Return the reward of a sample, or a list of rewards for a list of samples.

    Raises InputError for labels and responses that cannot be used, and InfrastructureError: see the module.
    """
    options = _options(args)
    if isinstance(sample, list | tuple):
        rows = [_row(one, f"samples[{number}].label") for number, one in enumerate(sample)]
        found = await ask_async(rows, options)
        return [_score(one, scored, options) for one, scored in zip(sample, found, strict=True)]
    return _score(sample, await ask_one(_row(sample, "sample.label"), options), options)


def _score(sample: Any, scored: Scored, options: RewardOptions) -> float:
    score = score_of(scored, options)
    if not scored.judged:
        sample.remove_sample = True
    return score


def _row(sample: Any, place: str) -> Row:
    prompt = sample.prompt if isinstance(sample.prompt, str | list) else None
    return make_row(sample.response, sample.label, place, prompt=prompt)


def _options(args: Any) -> RewardOptions:
    given = getattr(args, "grader", None) or {}
    if not isinstance(given, Mapping):
        given = vars(given)
    return RewardOptions.of(given, RewardOptions.from_environment())
