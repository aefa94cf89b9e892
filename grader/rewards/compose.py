"""Rewards made of rewards: weighted sums and products."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from grader.rewards.model import Context, Number, Part, Scored, VerdictFields

MAX_PARTS = 16
Parts = Annotated[tuple[SerializeAsAny[Part], ...], Field(min_length=1, max_length=MAX_PARTS)]


class Composition(Part):
    """Several rewards as one. Its components are theirs; with a ``label`` its own value is one more."""

    parts: Parts

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts' components."""
        own = (self.label,) if self.label else ()
        return own + tuple(name for part in self.parts for name in part.names)

    def score(self, verdict: VerdictFields, context: Context) -> Scored:
        """Score each part, and combine their values."""
        scored = [part.score(verdict, context) for part in self.parts]
        value = self.combined([part.value for part in scored])
        components = {name: one for part in scored for name, one in part.components.items()}
        return Scored(value, components | ({self.label: value} if self.label else {}))

    def combined(self, values: list[float]) -> float:
        """Make one value of the parts'."""
        raise NotImplementedError


class Sum(Composition):
    """The sum of the parts, each times its weight."""

    name: Literal["sum"] = "sum"
    weights: Annotated[tuple[Number, ...], Field(max_length=MAX_PARTS)]

    def combined(self, values: list[float]) -> float:
        """Add up."""
        try:
            return math.fsum(weight * value for weight, value in zip(self.weights, values, strict=True))
        except (OverflowError, ValueError):  # beyond what a float can be, which Reward says of its sample
            return math.nan


class Product(Composition):
    """The product of the parts."""

    name: Literal["product"] = "product"

    def combined(self, values: list[float]) -> float:
        """Multiply."""
        return math.prod(values)
