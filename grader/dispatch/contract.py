"""What the front door asks of whatever grades behind it, and what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from grader.limits import Limits
from grader.suites.task import Suite
from grader.worker.execution import Executed, Execution
from grader.worker.program import Program

VerdictFields = dict[str, Any]
Verdicts = list[VerdictFields]
Priority = Literal["interactive", "background"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Programs to be graded, and how: what one request asks for.

    ``suite`` has the tasks that the programs name. ``tenant`` is whose work it is: tenants share the workers by
    ``weight``. Jobs are ``background``, what a client waits for is ``interactive``. ``timeout_s`` is the wall-clock
    time after which a program that has not been started is no longer wanted.
    """

    request_id: str
    suite: Suite
    programs: Sequence[Program]
    groups: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    fail_fast: bool = True
    tenant: str = "anonymous"
    weight: float = 1.0
    priority: Priority = "interactive"
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """How the workers and the queue are. ``workers`` and ``cells`` count by state: "starting", "ready", "busy" (a
    program is at work), "lost" (silent), and of workers "refused" (they could not be started); ``queued`` counts
    waiting programs by (tenant, priority). ``failure`` is why no worker works, also where that may pass."""

    workers: Mapping[str, int] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)
    queued: Mapping[tuple[str, Priority], int] = field(default_factory=dict)
    running: int = 0
    retries: Mapping[str, int] = field(default_factory=dict)
    failure: str | None = None


class Grading(Protocol):
    """What grades batches of many requests at the same time."""

    @property
    def stamp(self) -> Mapping[str, Any]:
        """What isolates the programs: ``backend`` and ``layers``; empty until the first worker is ready."""

    async def start(self) -> None:
        """Start the workers; returns at once. Raises a GraderError where they cannot work here at all."""

    async def close(self) -> None:
        """End every worker and destroy every cell."""

    def grade(self, batch: Batch) -> AsyncIterator[Verdicts]:
        """Yield one verdict (fields of ``schema.Verdict``) a program, in the order in which they are done; those that
        are done at the same time together, since each step costs as much as what is done with a verdict.

        A program that was not started within ``timeout_s`` has an ``infrastructure_error`` of the type
        ``DeadlineExceeded``. Closing the iterator early cancels what is left.

        Where the expected answers of a request's own tests cannot be made, or their setup fails, their programs have
        an ``infrastructure_error`` of the type ``BrokenTests``, whose message says why.

        Raises, at the first step, OverloadedError where the queue has no room for the batch, SuiteError where the
        expected answers of a suite's task cannot be made, and InfrastructureError where no worker can work.
        """

    async def execute(
        self, execution: Execution, limits: Limits, *, tenant: str, weight: float = 1.0, timeout_s: float
    ) -> Executed:
        """Run a program and say what it did, without judging it.

        ``timeout_s`` is the wall-clock time after which a program that has not been started is no longer wanted.
        Cancelling this cancels the run. Raises OverloadedError where there is no room or no worker came to it in time,
        and InfrastructureError where no worker could run it.
        """

    def state(self) -> PoolState:
        """Return how things are now; cheap, and never waits."""
