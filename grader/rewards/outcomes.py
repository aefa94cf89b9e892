"""Rewards for what a program achieved: ``binary``, ``fraction``, ``tiered``, ``efficiency``, ``flags``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from grader.errors import InputError
from grader.rewards.model import Context, Number, Part, Scored, VerdictFields, Weight
from grader.rewards.tamper import Flag, tamper_flags
from grader.status import Status

Tier = Literal["extractable", "compiles", "runs", "base", "plus"]

_TIERS: tuple[Tier, ...] = ("extractable", "compiles", "runs", "base", "plus")
# A program that gave answers to the end, right or wrong ones.
_RAN = (Status.PASSED, Status.WRONG_ANSWER)


class Binary(Part):
    """``passed`` where all groups passed, else ``failed``."""

    name: Literal["binary"] = "binary"
    passed: Number = 1.0
    failed: Number = 0.0

    def score(self, verdict: VerdictFields, context: Context) -> Scored:
        """Look at ``passed`` alone."""
        return self.scored(self.passed if verdict["passed"] else self.failed)


class Fraction(Part):
    """The share of tests passed, over all groups or those named.

    With fewer than ``min_tests`` tests there is nothing between 0 and 1: a share of three tests is guessed too easily,
    and ``return True`` would earn a half of many tasks.
    """

    needs_all_tests: ClassVar[bool] = True

    name: Literal["fraction"] = "fraction"
    min_tests: Annotated[int, Field(strict=True, ge=1)] = 5
    groups: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @property
    def needs_groups(self) -> tuple[str, ...]:
        """The groups of which a task needs at least one."""
        return self.groups or ()

    def score(self, verdict: VerdictFields, context: Context) -> Scored:
        """Add up the groups' counts. Raises InputError where a group was not run, or the task has none of them."""
        if verdict["status"] == Status.NO_CODE:
            return self.scored(0.0)
        passed, total = 0, 0
        for name, group in verdict["groups"].items():
            if self.groups is not None and name not in self.groups:
                continue
            if group is None:
                total += _total_of(name, verdict, context)
            else:
                passed, total = passed + group["passed"], total + group["total"]
        if total == 0:
            raise InputError(f"the reward 'fraction' counts groups of which {verdict['task_id']} has none")
        if passed == total:
            return self.scored(1.0)
        return self.scored(passed / total if total >= self.min_tests else 0.0)


def _total_of(name: str, verdict: VerdictFields, context: Context) -> int:
    if name not in context.group_totals:
        raise InputError(
            f"the reward 'fraction' counts all tests, and group {name!r} of {verdict['task_id']} was not run; "
            "grade with fail_fast off, and with this group among those asked for"
        )
    return context.group_totals[name]


class Tiered(Part):
    """A reward that grows from stage to stage: the sum of the weights of the stages reached, each after the one before.

    ``extractable``: there is code in the completion. ``compiles``: and it is Python. ``runs``: and the original tests
    were answered, if wrongly. ``base``: and rightly. ``plus``: and all other groups passed too; where there is no other
    group, those who pass ``base`` have it.
    """

    name: Literal["tiered"] = "tiered"
    weights: dict[Tier, Weight] = Field(
        default={"extractable": 0.05, "compiles": 0.05, "runs": 0.1, "base": 0.4, "plus": 0.4}
    )

    @property
    def details(self) -> tuple[str, ...]:
        """The stages, 1.0 where reached."""
        return _TIERS

    def score(self, verdict: VerdictFields, context: Context) -> Scored:
        """Find the stages reached."""
        reached = _reached(verdict)
        value = sum(self.weights.get(tier, 0.0) for tier in _TIERS[:reached])
        return self.scored(value, {tier: float(number < reached) for number, tier in enumerate(_TIERS)})


def _reached(verdict: VerdictFields) -> int:
    """How many stages a verdict has reached."""
    status, groups = verdict["status"], verdict["groups"]
    if status == Status.NO_CODE:
        return 0
    if status == Status.COMPILE_ERROR:
        return 1
    first: dict[str, Any] | None = groups.get("base") or next(iter(groups.values()), None)
    if verdict["passed"]:
        return 5
    if first is None or first["status"] not in _RAN:
        return 2
    return 4 if first["status"] == Status.PASSED else 3


class Efficiency(Part):
    """For programs that pass: the reference's CPU time over the program's, within ``least`` and ``most``.

    Times below ``resolution_s`` (CPU seconds) count as that: what is shorter is start-up, and noise. A program that
    does not pass has 0. The only reward that rests on a measurement, and so not the same to the last digit every time.
    """

    needs_reference_time: ClassVar[bool] = True

    name: Literal["efficiency"] = "efficiency"
    least: Annotated[float, Field(strict=True, ge=0.0, le=1.0)] = 0.1
    most: Annotated[float, Field(strict=True, ge=1.0, le=10.0)] = 1.0
    resolution_s: Annotated[float, Field(strict=True, gt=0.0)] = 0.05

    def score(self, verdict: VerdictFields, context: Context) -> Scored:
        """Compare the times. Raises InputError where the reference's is not known."""
        if not verdict["passed"]:
            return self.scored(0.0)
        reference_s = context.reference_cpu_s
        if reference_s is None:
            raise InputError(
                f"the reward 'efficiency' needs the CPU time of a reference solution, and {verdict['task_id']} has "
                "none; give reference_cpu_s"
            )
        ratio = max(reference_s, self.resolution_s) / max(verdict["cpu_s"], self.resolution_s)
        return self.scored(min(max(ratio, self.least), self.most))


class Flags(Part):
    """What tampering costs: the lowest of ``values`` among the flags found, else ``otherwise``."""

    name: Literal["flags"] = "flags"
    values: Annotated[dict[Flag, Number], Field(min_length=1)] = Field(
        default={Flag.FORBIDDEN_SYSCALL: -1.0, Flag.FORGED_ANSWER: -1.0, Flag.EQUALITY_TRICK: -1.0}
    )
    otherwise: Number = 0.0

    def score(self, verdict: VerdictFields, context: Context) -> Scored:
        """Look for the flags of the program and of the verdict."""
        found = tamper_flags(context.source, verdict, whole_program=is_whole_program(context))
        return self.scored(
            min((self.values[flag] for flag in found if flag in self.values), default=self.otherwise)
        )


def is_whole_program(context: Context) -> bool:
    """Whether the program is run from top to bottom, where to print and to exit is its right."""
    return context.task is not None and not context.task.entry_point
