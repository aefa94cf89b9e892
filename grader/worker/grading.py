"""Grade one program: choose how by the kind of its task's tests, and make the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from grader.judge.stream import Raised
from grader.judge.verdict import GroupOutcome
from grader.limits import Limits
from grader.status import Status
from grader.suites.task import AssertionTests, FunctionTests, StdioTests, Task, TestGroup
from grader.worker.assertions import AssertionGrading
from grader.worker.bundle import BundleStore
from grader.worker.functions import FunctionGrading
from grader.worker.parts import Part
from grader.worker.program import Program
from grader.worker.requests import Conversation, Usage
from grader.worker.stdio import StdioGrading

VerdictFields = dict[str, Any]
BROKEN_TESTS = "BrokenTests"
"""The type of the error of a sample that could not be judged because its tests are at fault, and nothing of ours."""


@dataclass(frozen=True)
class Policy:
    """What is the same for every sample of a request."""

    limits: Limits
    groups: tuple[str, ...] | None
    fail_fast: bool

    def chosen(self, task: Task) -> list[TestGroup]:
        """The groups of the task that are asked for, in the task's order."""
        return [group for group in task.groups if self.groups is None or group.name in self.groups]


def grade(
    program: Program,
    task: Task,
    store: BundleStore,
    policy: Policy,
    stamp: Mapping[str, Any],
    attempts: int,
    part: Part | None = None,
) -> Conversation[VerdictFields]:
    """Grade a program by the chosen groups of its task, or by one ``part``; returns the fields of a verdict."""
    usage = Usage()
    chosen = [group for group in policy.chosen(task) if part is None or group.name == part.group]
    outcomes: dict[str, GroupOutcome | None] = dict.fromkeys(group.name for group in chosen)
    if not program.source:
        return verdict(program, stamp, outcomes, usage, Status.NO_CODE, attempts)
    for kind, segment in groupby(chosen, key=lambda group: type(group.tests)):
        groups = list(segment)
        judged = yield from _grade_segment(kind, program, task, groups, store, policy, usage, part)
        outcomes.update(zip((group.name for group in groups), judged, strict=True))
        if policy.fail_fast and any(
            outcome is None or outcome.first_failed is not None for outcome in judged
        ):
            break
    failed = [outcome for outcome in outcomes.values() if outcome and outcome.status is not Status.PASSED]
    complete = all(outcome is not None for outcome in outcomes.values())
    assert failed or complete
    status = failed[0].status if failed else Status.PASSED
    return verdict(program, stamp, outcomes, usage, status, attempts, failed[0].error if failed else None)


def _grade_segment(
    kind: type,
    program: Program,
    task: Task,
    groups: Sequence[TestGroup],
    store: BundleStore,
    policy: Policy,
    usage: Usage,
    part: Part | None,
) -> Conversation[list[GroupOutcome | None]]:
    if kind is FunctionTests:
        bundle = store.open(task)
        names = [group.name for group in groups]
        return (
            yield from FunctionGrading(
                task, bundle, program.source, names, policy.limits, policy.fail_fast, usage, part
            ).run()
        )
    if kind is StdioTests:
        answers = store.open_stdio(task)
        return (
            yield from StdioGrading(
                program.source, groups, answers, policy.limits, policy.fail_fast, usage
            ).run()
        )
    assert kind is AssertionTests
    times = store.open_assertion_times(task)
    return (
        yield from AssertionGrading(
            task, groups, program.source, times, policy.limits, policy.fail_fast, usage
        ).run()
    )


def verdict(
    program: Program,
    stamp: Mapping[str, Any],
    outcomes: Mapping[str, GroupOutcome | None],
    usage: Usage,
    status: Status,
    attempts: int,
    error: Raised | None = None,
) -> VerdictFields:
    """Return the fields of ``schema.Verdict``.

    A status is there as a plain string: what writes an enum's members takes longer than for all else of a verdict.
    """
    passed = status is Status.PASSED
    reward = None if status is Status.INFRASTRUCTURE_ERROR else float(passed)
    return {
        "task_id": program.task_id,
        "sample_id": program.sample_id,
        "status": status.value,
        "passed": passed,
        "groups": {name: outcome and _group_fields(outcome) for name, outcome in outcomes.items()},
        "reward": reward,
        "cpu_s": round(usage.cpu_s, 6),
        "wall_s": round(usage.wall_s, 6),
        "peak_memory_bytes": usage.peak_memory_bytes,
        "error": error and {"type": error.type, "message": error.message, "line": error.line or None},
        "stdout_tail": usage.stdout_tail,
        "sandbox": stamp,
        "cached": False,
        "attempts": attempts,
        "extraction": program.how,
    }


def _group_fields(outcome: GroupOutcome) -> dict[str, Any]:
    return {
        "status": outcome.status.value,
        "passed": outcome.passed,
        "total": outcome.total,
        "first_failed": outcome.first_failed,
    }


def verdict_without_run(
    program: Program,
    task: Task,
    policy: Policy,
    stamp: Mapping[str, Any],
    attempts: int,
    status: Status,
    raised: Raised,
) -> VerdictFields:
    """The verdict on a sample of which no run has come to its end."""
    outcomes = dict.fromkeys(group.name for group in policy.chosen(task))
    return verdict(program, stamp, outcomes, Usage(), status, attempts, raised)


def infrastructure_error(
    program: Program,
    task: Task,
    policy: Policy,
    stamp: Mapping[str, Any],
    attempts: int,
    why: str,
    kind: str = "InfrastructureError",
) -> VerdictFields:
    """The verdict on a sample that we could not judge: never the program's fault, and no reward."""
    raised = Raised(kind, why[:300], 0)
    status = Status.INFRASTRUCTURE_ERROR
    return verdict_without_run(program, task, policy, stamp, attempts, status, raised)


def broken_tests(verdict: Mapping[str, Any]) -> str | None:
    """Return why a sample's tests cannot be used, if that is why it was not judged."""
    error = verdict["error"]
    unjudged = verdict["status"] == Status.INFRASTRUCTURE_ERROR
    return str(error["message"]) if unjudged and error and error["type"] == BROKEN_TESTS else None
