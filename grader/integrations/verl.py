"""verl: reward functions for its naive, batch and prime managers, and a manager for its reward loop.

::

    custom_reward_function:           # reward.custom_reward_function in newer versions
      path: pkg://grader.integrations.verl
      name: compute_score_async       # or one of the others, below
      reward_kwargs: {url: "http://127.0.0.1:8000", suite: humaneval+, reward: binary}

===========================  ======================================================================
``compute_score_async``      reward loop, managers ``naive`` and ``limited``; concurrent samples share requests
``compute_score``            legacy ``naive``, and ``remote`` (whose actors take synchronous functions alone)
``compute_score_batch``      ``batch``: the whole batch in one request
``compute_score_prime``      ``prime``: a float, never a dict
``GraderRewardManager``      the reward loop, without a reward function (``reward_manager.source: importlib``)
===========================  ======================================================================

``ground_truth`` is verl's JSON with ``inputs``, ``outputs``, ``fn_name`` or ``assert_case``, any other shape of
``grader.suites.labels``, or the name of a task; its suite is ``extra_info["suite"]`` if there is one, else ``suite``.
The keyword arguments are the options of ``RewardOptions``.

The traps of the contract, and what is done about them:

- The reward loop takes the names of extra values from the first sample of a batch: the keys returned are always
  ``score``, ``acc``, ``infrastructure_error``, ``flagged``, and one for each of ``components``.
- ``prime`` calls by position, and a dict makes it score the whole batch 0.
- verl has no word for "could not be judged". By default an error is raised, which ends the training instead of
  poisoning it, as long as verl lets it through: ``limited`` and ``prime`` score every exception 0, silently. So with
  ``limited`` give ``infrastructure_error_score``, and ``compute_score_prime`` never raises: it returns NaN, which shows
  in the first loss, unless ``infrastructure_error_score`` says otherwise. With that option the sample has that score,
  ``infrastructure_error`` is 1 and ``acc`` is NaN (a group with a NaN is left out by DAPO's filter on ``acc``).
- An ``assert_case`` passes in verl's own scoring for any program that exits with 0. Here assertions run in another
  process.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grader.errors import GraderError, InputError
from grader.integrations.asking import Scored, ask, ask_one, log_once, score_of
from grader.integrations.options import RewardOptions
from grader.integrations.rows import Row, check_lengths, make_row

if TYPE_CHECKING:
    GraderRewardManager: Any

# What verl passes besides, where it has a reward model: not for us.
_NOT_OURS = frozenset({"reward_router_address", "reward_model_tokenizer"})


def compute_score(
    data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any = None, **reward_kwargs: Any
) -> dict[str, float]:
    """Score one sample, in one request.

    Raises InputError for a ground truth that cannot be used, and InfrastructureError: see the module.
    """
    options = _options(reward_kwargs)
    return _values(ask([_row(solution_str, ground_truth, extra_info, "ground_truth")], options)[0], options)


async def compute_score_async(
    data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any = None, **reward_kwargs: Any
) -> dict[str, float]:
    """Score one sample, in one request with others that are scored at the same time. Errors are ``compute_score``'s."""
    options = _options(reward_kwargs)
    row = _row(solution_str, ground_truth, extra_info, "ground_truth")
    return _values(await ask_one(row, options), options)


def compute_score_batch(
    data_sources: Sequence[Any],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Any] | None = None,
    **reward_kwargs: Any,
) -> list[dict[str, float]]:
    """Score a batch, in one request; returns one dict a sample, in their order. Errors are ``compute_score``'s."""
    options = _options(reward_kwargs)
    check_lengths(
        data_sources=data_sources,
        solution_strs=solution_strs,
        ground_truths=ground_truths,
        extra_infos=extra_infos,
    )
    infos = [None] * len(solution_strs) if extra_infos is None else extra_infos
    rows = [
        _row(text, truth, info, f"ground_truths[{number}]")
        for number, (text, truth, info) in enumerate(zip(solution_strs, ground_truths, infos, strict=True))
    ]
    return [_values(scored, options) for scored in ask(rows, options)]


def compute_score_prime(
    task: Any, completion: str, reference: Any, extra_info: Any = None, **reward_kwargs: Any
) -> float:
    """Score one sample as a float. Where ``compute_score`` raises, this logs and returns NaN, or the score given."""
    unknown = math.nan
    try:
        options = _options(reward_kwargs)
        if options.infrastructure_error_score is not None:
            unknown = float(options.infrastructure_error_score)
        scored = ask([_row(completion, reference, extra_info, "reference")], options)[0]
        return score_of(scored, options)
    except InputError as error:
        log_once(f"prime {type(error).__name__}", f"a sample has no score: {error}")
        return math.nan
    except GraderError as error:
        log_once(f"prime {type(error).__name__}", f"a sample has no score: {error}")
        return unknown


def _options(reward_kwargs: dict[str, Any]) -> RewardOptions:
    return RewardOptions.of({name: v for name, v in reward_kwargs.items() if name not in _NOT_OURS})


def _row(solution: Any, ground_truth: Any, extra_info: Any, place: str) -> Row:
    suite = extra_info.get("suite") if hasattr(extra_info, "get") else None
    return make_row(solution, ground_truth, place, suite=suite)


def _values(scored: Scored, options: RewardOptions) -> dict[str, float]:
    values = {
        "score": score_of(scored, options),
        "acc": math.nan if scored.passed is None else float(scored.passed),
        "infrastructure_error": float(not scored.judged),
        "flagged": float(bool(scored.flags)),
    }
    for name in options.components:
        if scored.judged and name not in scored.components:
            raise InputError(
                f"the reward has no component {name!r}; it has {', '.join(scored.components) or 'none'}"
            )
        value = scored.components.get(name)
        values[name] = math.nan if value is None else float(value)
    return values


def __getattr__(name: str) -> Any:
    if name == "GraderRewardManager":
        return _manager_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _manager_class() -> type:
    """Make the manager's class, whose base class is verl's. Raises ImportError where verl is not installed."""
    from verl.experimental.reward_loop.reward_manager.naive import (  # type: ignore[import-not-found]
        NaiveRewardManager,
    )

    class GraderRewardManager(NaiveRewardManager):  # type: ignore[misc]
        """A manager of verl's reward loop; its options are ``reward.reward_kwargs``.

        Concurrent samples of a worker are graded in one request. The reward function that verl passes is not used.
        """

        def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **more: Any) -> None:
            given = dict(config.reward.get("reward_kwargs") or {})
            _options(given)  # what is wrong with them is said now, and not at the first step
            super().__init__(config, tokenizer, functools.partial(compute_score_async, **given), **more)

    return GraderRewardManager
