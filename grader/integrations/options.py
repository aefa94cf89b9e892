"""What every adapter can be told: where the grader is, and how it is to reward."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from grader.errors import InputError
from grader.suites.labels import plain

SUITE_VARIABLE = "GRADER_SUITE"
REWARD_VARIABLE = "GRADER_REWARD"
SCORE_VARIABLE = "GRADER_INFRASTRUCTURE_ERROR_SCORE"


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardOptions:
    """How an adapter asks for rewards.

    ``url`` and ``api_key``: as of ``grader.client.GraderClient``; by default ``GRADER_URL`` and ``GRADER_API_KEY``.
    ``suite``: the suite whose tasks ground truths name, where they do not name one themselves. ``reward``, ``groups``
    and ``limits``: as in ``POST /v1/rewards``. ``timeout_s``: wall-clock seconds after which what has not been
    judged is given up as an infrastructure error, retries included. ``components``: names of the reward's components
    that are reported beside it, where the trainer has a place for them.

    ``infrastructure_error_score``: the score of a sample that could not be judged. None, the default, stands for what
    the adapter says it does then, which is never a score of 0.

    Raises InputError for a value that cannot be used.
    """

    url: str | None = None
    api_key: str | None = None
    suite: str | None = None
    reward: Any = None
    groups: Any = None
    limits: Any = None
    timeout_s: float | None = None
    infrastructure_error_score: float | None = None
    components: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("timeout_s", "infrastructure_error_score"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise InputError(f"{name} is {value!r}; give a number")
        if self.timeout_s is not None and not 0 < self.timeout_s < math.inf:
            raise InputError(f"timeout_s is {self.timeout_s!r}; give seconds above 0")
        for name in ("url", "api_key", "suite"):
            if not isinstance(getattr(self, name), str | None):
                raise InputError(f"{name} is {getattr(self, name)!r}; give a text")

    @classmethod
    def of(cls, given: Mapping[str, Any], base: RewardOptions | None = None) -> Self:
        """Make options from a mapping, e.g. keyword arguments; what it does not name is taken from ``base``.

        Raises InputError for a name that there is not: a misspelt option must not be ignored.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(map(str, given.keys() - set(names)))
        if unknown:
            raise InputError(f"there is no option {unknown[0]!r}; there are {', '.join(names)}")
        values = {name: plain(value) for name, value in given.items()}
        if "components" in values:
            values["components"] = tuple(values["components"] or ())
        return replace(base, **values) if base is not None else cls(**values)  # type: ignore[return-value]

    @classmethod
    def from_environment(cls) -> Self:
        """Take ``suite``, ``reward`` (a name, or JSON) and ``infrastructure_error_score`` from the environment.

        The variables are ``GRADER_SUITE``, ``GRADER_REWARD`` and ``GRADER_INFRASTRUCTURE_ERROR_SCORE``.
        """
        reward: Any = os.environ.get(REWARD_VARIABLE) or None
        if reward is not None and reward.lstrip()[:1] in ("{", "["):
            try:
                reward = json.loads(reward)
            except ValueError as error:
                raise InputError(f"{REWARD_VARIABLE} begins like JSON, and is not: {error}") from None
        score = os.environ.get(SCORE_VARIABLE) or None
        try:
            number = None if score is None else float(score)
        except ValueError:
            raise InputError(f"{SCORE_VARIABLE} is {score!r}; give a number") from None
        return cls(
            suite=os.environ.get(SUITE_VARIABLE) or None, reward=reward, infrastructure_error_score=number
        )

    @property
    def key(self) -> str:
        """A text that is the same for equal options."""
        return json.dumps([getattr(self, field.name) for field in fields(self)], default=str, sort_keys=True)
