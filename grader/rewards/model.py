"""What a reward is: a pure function of a verdict and of what was known of its sample."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from grader.errors import InputError
from grader.extraction.syntax import parse_source
from grader.status import Status
from grader.suites.task import Task

VerdictFields = Mapping[str, Any]
"""The fields of ``schema.Verdict``."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a reward may look at beside the verdict.

    ``source`` is the program that was run, ``completion`` what the model said. ``reference_cpu_s`` is the CPU time
    that the task's reference solution needs for the groups that were run. ``group_totals`` has the number of tests of
    groups that a verdict does not count because they were not run.
    """

    task: Task | None = None
    source: str = ""
    completion: str = ""
    reference_cpu_s: float | None = None
    group_totals: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def tree(self) -> ast.Module | None:
        """The program's syntax tree; None where it cannot be parsed."""
        return parse_source(self.source).tree


@dataclass(frozen=True, slots=True)
class RewardResult:
    """A reward and the vector that it was made of.

    ``value`` is None, and so is each component, where the sample could not be judged. The keys of ``components`` are
    the same for every verdict: they are ``Reward.names``.
    """

    value: float | None
    components: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Scored:
    """What one part gives for a verdict: its value, and the components of that by their names in ``Part.names``."""

    value: float
    components: dict[str, float]


Number = Annotated[float, Field(strict=True)]
Weight = Annotated[float, Field(strict=True, ge=0.0)]


class Part(BaseModel):
    """One reward function with its parameters. Subclasses are named in ``grader.rewards.spec``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    needs_all_tests: ClassVar[bool] = False
    """Whether every test must have been run, so that samples may not end at their first failing test."""
    needs_reference_time: ClassVar[bool] = False
    """Whether ``Context.reference_cpu_s`` must be given."""

    name: str
    label: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w-]+$")] | None = None
    """What its component is called, where that is not ``name``: two of one name in a sum need it."""

    @property
    def needs_groups(self) -> tuple[str, ...]:
        """Test groups of which at least one must be run; () where it does not matter which are."""
        return ()

    @property
    def title(self) -> str:
        """The name of its component."""
        return self.label or self.name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its components, which do not depend on the verdict."""
        return (self.title, *(f"{self.title}.{detail}" for detail in self.details))

    @property
    def details(self) -> tuple[str, ...]:
        """Names of what it reports beside its value."""
        return ()

    def score(self, verdict: VerdictFields, context: Context) -> Scored:
        """Return its value for a verdict that is no infrastructure error."""
        raise NotImplementedError

    def scored(self, value: float, details: Mapping[str, float] | None = None) -> Scored:
        """Put a value and details together under their names."""
        inside = {f"{self.title}.{detail}": part for detail, part in (details or {}).items()}
        return Scored(value, {self.title: value, **inside})


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward function, as made by ``grader.rewards.parse``. Call it with a verdict and a context."""

    part: Part
    needs_all_tests: bool
    needs_reference_time: bool
    needs_groups: tuple[tuple[str, ...], ...] = ()
    """Sets of test groups, of each of which at least one must be run."""

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of every result's ``components``."""
        return self.part.names

    def __call__(self, verdict: VerdictFields, context: Context) -> RewardResult:
        """Return the reward; its value is None for an infrastructure error, whatever the function is.

        Raises:
            InputError: the verdict or the context lacks what the function needs; the text says how to get it.

        """
        if verdict["status"] == Status.INFRASTRUCTURE_ERROR:
            return RewardResult(None, dict.fromkeys(self.names))
        scored = self.part.score(verdict, context)
        if not all(map(math.isfinite, (scored.value, *scored.components.values()))):
            raise InputError(f"the reward of {verdict['task_id']} is no finite number; lower the weights")
        return RewardResult(scored.value, {name: scored.components[name] for name in self.names})
