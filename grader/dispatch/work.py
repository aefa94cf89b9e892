"""What an item of the dispatcher stands for: what its job is, and what is done with what became of it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from grader.dispatch import events
from grader.dispatch.contract import Batch, VerdictFields
from grader.dispatch.plans import Plan
from grader.errors import GraderError, InfrastructureError, OverloadedError, SuiteError
from grader.judge.stream import Raised
from grader.limits import Limits
from grader.status import Status
from grader.suites import inline
from grader.suites.task import Task
from grader.worker.execution import Executed, Execution
from grader.worker.functions import reference_limits
from grader.worker.grading import Policy, infrastructure_error, verdict_without_run
from grader.worker.messages import Execute, Grade, Job, Prepare
from grader.worker.parts import Assembly
from grader.worker.program import Program

# For the reference that came with a row: all rows of its request wait for it, and nobody has vouched for it.
_INLINE_REFERENCE = replace(
    reference_limits(60.0), memory_bytes=2 * Limits().memory_bytes, answer_bytes=Limits().answer_bytes
)


@dataclass(slots=True, eq=False)
class Request:
    """One batch in progress. Programs may be added while it runs."""

    batch: Batch
    policy: Policy
    deadline: float | None
    on_result: Callable[[VerdictFields | GraderError], None]
    on_progress: Callable[[str, int, int], None]
    closed: bool = False


class Work(ABC):
    """One job, from its being queued to its end."""

    @abstractmethod
    def job(self, number: int, attempts: int) -> Job:
        """Return what a worker is told; ``attempts`` counts this one."""

    @abstractmethod
    def end(self, outcome: events.Outcome, result: Any, stamp: Mapping[str, Any]) -> None:
        """Take what became of it; ``result`` is what the worker reported, if the outcome is Done."""

    @abstractmethod
    def fail(self, error: GraderError) -> None:
        """Take that no worker will ever come to it."""


@dataclass(slots=True, eq=False)
class Preparing(Work):
    """Making a task's expected answers; ``made`` is done when they are there."""

    task: Task
    suite_sha256: str
    made: asyncio.Future[None]

    def job(self, number: int, attempts: int) -> Prepare:
        """Return the job of making the task's bundle."""
        own = self.suite_sha256 == inline.SUITE_SHA256
        return Prepare(number, self.task, self.suite_sha256, _INLINE_REFERENCE if own else reference_limits())

    def end(self, outcome: events.Outcome, result: Any, stamp: Mapping[str, Any]) -> None:
        """Note that they are there, or raise in those that wait why they are not."""
        if self.made.done():
            return
        if isinstance(outcome, events.Done) and not result:
            self.made.set_result(None)
        elif isinstance(outcome, events.Done):
            self.made.set_exception(SuiteError(result))
        elif isinstance(outcome, events.Violation):
            self.made.set_exception(
                SuiteError(
                    f"the sandbox of the reference solution of {self.task.task_id} ended with it: {_why(outcome)}"
                )
            )
        else:
            self.made.set_exception(
                InfrastructureError(
                    f"the expected answers of {self.task.task_id} cannot be made: {_why(outcome)}"
                )
            )

    def fail(self, error: GraderError) -> None:
        """Raise it in those that wait."""
        if not self.made.done():
            self.made.set_exception(error)


@dataclass(slots=True, eq=False)
class Executing(Work):
    """Running a program without judging it; ``done`` gets what it did."""

    execution: Execution
    limits: Limits
    done: asyncio.Future[Executed]

    def job(self, number: int, attempts: int) -> Execute:
        """Return the job of running the program."""
        return Execute(number, self.execution, self.limits)

    def end(self, outcome: events.Outcome, result: Any, stamp: Mapping[str, Any]) -> None:
        """Hand over what the program did."""
        if self.done.done():
            return
        if isinstance(outcome, events.Done):
            self.done.set_result(result)
        elif isinstance(outcome, events.Violation):
            # It took its cell down each time: a finding on the program, and no failure of ours.
            self.done.set_result(Executed("stopped", 0, 0, b"", b"", 0.0, 0.0, 0))
        elif isinstance(outcome, events.Expired):
            self.done.set_exception(OverloadedError("the program was not started within its time-out"))
        elif isinstance(outcome, events.Cancelled):
            self.done.cancel()
        else:
            self.done.set_exception(InfrastructureError(f"the program could not be run: {_why(outcome)}"))

    def fail(self, error: GraderError) -> None:
        """Raise it in who waits."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(slots=True, eq=False)
class Sample:
    """A program that is being graded: whole, or in parts (then ``assembly`` is there) until it is ``judged``."""

    request: Request
    program: Program
    plan: Plan
    assembly: Assembly | None = None
    numbers: dict[int, int] = field(default_factory=dict)  # the job's number, by part
    judged: bool = False


@dataclass(slots=True, eq=False)
class Grading(Work):
    """Grading a sample, or a part of it.

    ``go_on`` is told, after a part, which parts to begin next and which jobs are not wanted any more.
    """

    sample: Sample
    part: int | None
    go_on: Callable[[Sample, Sequence[int], Sequence[int]], None]

    def job(self, number: int, attempts: int) -> Grade:
        """Return the job of grading it."""
        sample, request = self.sample, self.sample.request
        part = None
        if sample.assembly is not None and self.part is not None:
            part = sample.assembly.parts[self.part]
        return Grade(
            number,
            sample.program,
            sample.plan.light,
            request.batch.suite.sha256,
            request.policy,
            part,
            attempts,
        )

    def end(self, outcome: events.Outcome, result: Any, stamp: Mapping[str, Any]) -> None:
        """Hand over the verdict, once it is certain."""
        sample = self.sample
        if isinstance(outcome, events.Cancelled) or sample.request.closed or sample.judged:
            return  # judged: a part that had ended before it could be cancelled
        fields = result if isinstance(outcome, events.Done) else self._unjudged(outcome, stamp)
        if sample.assembly is None:
            sample.request.on_result(fields)
            return
        assert self.part is not None
        del sample.numbers[self.part]
        following = sample.assembly.add(self.part, fields)
        unwanted = sample.assembly.unwanted
        self.go_on(sample, following, [number for part, number in sample.numbers.items() if part in unwanted])
        verdict = sample.assembly.verdict()
        if verdict is not None:
            sample.judged = True
            sample.request.on_result(verdict)

    def fail(self, error: GraderError) -> None:
        """Nothing: the request itself is told."""

    def _unjudged(self, outcome: events.Outcome, stamp: Mapping[str, Any]) -> VerdictFields:
        program, task, policy = self.sample.program, self.sample.plan.light, self.sample.request.policy
        if isinstance(outcome, events.Violation):
            raised = Raised("BrokeItsCell", f"its sandbox ended with it {outcome.attempts} times", 0)
            status = Status.SECURITY_VIOLATION
            return verdict_without_run(program, task, policy, stamp, outcome.attempts, status, raised)
        attempts = outcome.attempts if isinstance(outcome, events.GaveUp) else 0
        kind = "InfrastructureError" if isinstance(outcome, events.GaveUp) else "DeadlineExceeded"
        return infrastructure_error(program, task, policy, stamp, attempts, _why(outcome), kind)


def _why(outcome: events.Outcome) -> str:
    if isinstance(outcome, events.GaveUp | events.Violation):
        return f"{outcome.why} ({outcome.attempts} attempts)"
    return "it was not started within the time-out" if isinstance(outcome, events.Expired) else "cancelled"
