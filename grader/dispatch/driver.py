"""The dispatcher at work: batches go in, jobs go to a pool's workers, verdicts come out.

All decisions are the state machine's (``grader.dispatch.state``); here is what it knows nothing of: the event loop, the
pool, what a job is made of, and what a verdict looks like.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from grader.dispatch import events
from grader.dispatch.contract import Batch, PoolState, VerdictFields
from grader.dispatch.plans import Plans
from grader.dispatch.state import Dispatcher, DispatcherConfig
from grader.engines.pool import (
    Pool,
    PoolEvent,
    PoolFailed,
    WorkerHeard,
    WorkerLost,
    WorkerReady,
    WorkerSaid,
    WorkerSilent,
)
from grader.errors import GraderError, OverloadedError, SuiteError
from grader.judge.stream import Raised
from grader.status import Status
from grader.suites.task import Task
from grader.worker.grading import Policy, infrastructure_error, verdict_without_run
from grader.worker.messages import Cancel, Grade, Graded, Lost, Prepare, Prepared
from grader.worker.parts import Assembly
from grader.worker.program import Program


@dataclass(slots=True, eq=False)
class Request:
    """One batch in progress. Programs may be added while it runs."""

    batch: Batch
    policy: Policy
    deadline: float | None
    on_result: Callable[[VerdictFields | GraderError], None]
    on_progress: Callable[[str, int, int], None]
    closed: bool = False


@dataclass(slots=True, eq=False)
class _Sample:
    """A program that is being graded: whole, or in parts (then ``assembly`` is there)."""

    request: Request
    program: Program
    task: Task
    assembly: Assembly | None = None
    numbers: dict[int, int] = field(default_factory=dict)  # the job's number, by part


@dataclass(frozen=True, slots=True)
class _Work:
    """What an item stands for: grading a sample (or a part of it), or preparing a task."""

    sample: _Sample | None
    part: int | None = None
    prepare: Prepare | None = None
    prepared: asyncio.Future[None] | None = None


class Driver:
    """Grades batches of many requests over one pool of workers; see ``contract.Grading``."""

    def __init__(self, pool: Pool, config: DispatcherConfig | None = None) -> None:
        self._pool = pool
        self._machine = Dispatcher(config or DispatcherConfig())
        self._numbers = itertools.count(1)
        self._requests = itertools.count(1)
        self._work: dict[int, _Work] = {}
        self._verdicts: dict[int, VerdictFields] = {}
        self._open: dict[str, Request] = {}
        self._failure: GraderError | None = None
        self._wake: asyncio.TimerHandle | None = None
        self._plans: Plans | None = None
        self._begun = asyncio.Event()  # a worker has been ready, or none will ever be
        self.stamp: Mapping[str, Any] = {}

    @property
    def workers(self) -> int:
        """How many workers grade at the same time."""
        return self._pool.workers

    async def start(self) -> None:
        """Start the workers. Raises a GraderError where no cell can be made."""
        self._loop = asyncio.get_running_loop()
        await self._pool.start(self._hear)

    async def first_worker(self, timeout_s: float | None = None) -> Plans:
        """Wait for the first worker, on which everything else rests.

        Raises OverloadedError if none is ready in time, and a GraderError where none ever will be.
        """
        try:
            await asyncio.wait_for(self._begun.wait(), timeout_s)
        except TimeoutError:
            raise OverloadedError("no worker is ready yet; try again when /readyz says so", 5.0) from None
        if self._failure:
            raise self._failure
        assert self._plans
        return self._plans

    async def close(self) -> None:
        """End every worker and destroy every cell."""
        if self._wake:
            self._wake.cancel()
        await self._pool.close()

    def state(self) -> PoolState:
        """Return how things are now."""
        workers = self._pool.state()
        return PoolState(
            workers=workers,
            cells={"ready": workers.get("ready", 0)},
            queued=self._machine.queued(),
            running=self._machine.running,
            retries=dict(self._machine.retries),
            failure=str(self._failure) if self._failure else None,
        )

    # -- requests

    def open(
        self,
        batch: Batch,
        on_result: Callable[[VerdictFields | GraderError], None],
        on_progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
    ) -> Request:
        """Begin a request; its programs come with ``add``, and each of them has one result.

        ``on_result`` is called on the event loop, with a verdict's fields or, once, with the error because of which no
        more verdicts come. ``on_progress(stage, done, total)`` tells of work before the first verdict.
        """
        deadline = None if batch.timeout_s is None else time.monotonic() + batch.timeout_s
        batch = replace(batch, request_id=f"{next(self._requests)}:{batch.request_id}")
        request = Request(batch, Policy(batch.limits, batch.groups, batch.fail_fast), deadline,
                          on_result, on_progress)  # fmt: skip
        self._open[batch.request_id] = request
        return request

    async def add(self, request: Request, programs: Sequence[Program]) -> None:
        """Queue programs of a request. Raises OverloadedError, SuiteError or InfrastructureError; then none is."""
        plans = await self.first_worker(request.batch.timeout_s)
        suite = request.batch.suite
        await self.prepare(request, [suite.tasks[name] for name in {one.task_id for one in programs}])
        items = []
        for program in programs:
            plan = plans.of(suite, suite.tasks[program.task_id], request.policy)
            sample = _Sample(request, program, plan.light, plan.assembly())
            if sample.assembly is None:
                items.append(self._item(sample, None, plan.cost_s))
            else:
                items += [self._item(sample, part, plan.cost_s) for part in sample.assembly.first_wave]
        try:
            self._handle(events.Submit(tuple(items)))
        except GraderError:
            for item in items:
                del self._work[item.number]
            raise

    async def grade(self, batch: Batch) -> AsyncIterator[VerdictFields]:
        """Yield one verdict a program, in the order in which they are done; see ``contract.Grading``."""
        results: asyncio.Queue[VerdictFields | GraderError] = asyncio.Queue()
        request = self.open(batch, results.put_nowait)
        try:
            await self.add(request, batch.programs)
            for _ in batch.programs:
                result = await results.get()
                if isinstance(result, GraderError):
                    raise result
                yield result
        finally:
            self.finish(request)

    def finish(self, request: Request) -> None:
        """End a request: what is left of it is not wanted."""
        request.closed = True
        del self._open[request.batch.request_id]
        self._handle(events.Cancel(request.batch.request_id))

    async def prepare(self, request: Request, tasks: Iterable[Task]) -> None:
        """Have the expected answers made that are missing. Raises SuiteError where a reference fails."""
        plans = await self.first_worker(request.batch.timeout_s)
        waiting = []
        items = []
        for task, making in plans.missing(request.batch.suite, tasks):
            future = making or plans.begin(request.batch.suite, task, self._loop)
            if making is None:
                work = Prepare(next(self._numbers), task, request.batch.suite.sha256)
                self._work[work.number] = _Work(None, prepare=work, prepared=future)
                item = self._raw_item(work.number, request, task.task_id, None)
                # Others may wait for it too: it does not end with this request.
                items.append(replace(item, request_id=f"prepare:{work.number}", deadline=None))
            waiting.append(future)
        if items:
            self._handle(events.Submit(tuple(items), unbounded=True))
        for done, future in enumerate(waiting):
            request.on_progress("expected answers", done, len(waiting))
            await asyncio.shield(future)
        if waiting:
            request.on_progress("expected answers", len(waiting), len(waiting))

    def _item(self, sample: _Sample, part: int | None, cost_s: float | None) -> events.Item:
        number = next(self._numbers)
        self._work[number] = _Work(sample, part)
        if part is not None:
            sample.numbers[part] = number
        program = sample.program
        return self._raw_item(number, sample.request, program.task_id, cost_s, len(program.source))

    def _raw_item(
        self, number: int, request: Request, task_id: str, cost_s: float | None, size: int = 0
    ) -> events.Item:
        batch = request.batch
        return events.Item(
            number=number,
            request_id=batch.request_id,
            tenant=batch.tenant,
            weight=batch.weight,
            priority=batch.priority,
            task_key=f"{batch.suite.sha256[:16]}/{task_id}",
            size_bytes=size,
            cost_s=cost_s,
            deadline=request.deadline,
            payload=self._work[number],
        )

    # -- what the pool says

    def _hear(self, event: PoolEvent) -> None:
        if isinstance(event, WorkerSaid):
            for report in event.reports:
                self._take(event.worker, report)
        elif isinstance(event, WorkerReady):
            self.stamp = event.stamp
            self._plans = self._plans or Plans(self._pool.cache, event.key)
            self._begun.set()
            self._handle(events.WorkerReady(event.worker, event.node))
        elif isinstance(event, WorkerLost):
            self._handle(events.WorkerLost(event.worker, event.why))
        elif isinstance(event, WorkerSilent):
            self._handle(events.WorkerSilent(event.worker))
        elif isinstance(event, WorkerHeard):
            self._handle(events.WorkerHeard(event.worker))
        else:
            self._fail(event)

    def _take(self, worker: str, report: object) -> None:
        if isinstance(report, Graded):
            self._finished(worker, report.number, report.verdict)
        elif isinstance(report, Prepared):
            self._finished(worker, report.number, {"cpu_s": 0.0, "error": report.error})
        elif isinstance(report, Lost):
            self._handle(events.Lost(worker, report.number, report.blamed, report.why))

    def _finished(self, worker: str, number: int, fields: VerdictFields) -> None:
        if number in self._work:
            self._verdicts[number] = fields
            self._handle(events.Finished(worker, number, fields["cpu_s"]))
            self._verdicts.pop(number, None)

    def _fail(self, event: PoolFailed) -> None:
        self._failure = event.error
        self._begun.set()
        for request in self._open.values():
            request.on_result(event.error)
        for work in self._work.values():
            if work.prepared and not work.prepared.done():
                work.prepared.set_exception(event.error)

    # -- what the state machine wants

    def _handle(self, event: events.Event) -> None:
        now = time.monotonic()
        for instruction in self._machine.handle(event, now):
            if isinstance(instruction, events.Send):
                self._pool.send(instruction.worker, [self._job(item) for item in instruction.items])
            elif isinstance(instruction, events.Abandon):
                self._pool.send(instruction.worker, [Cancel(tuple(instruction.numbers))])
            else:
                self._deliver(instruction.number, instruction.outcome)
        self._set_alarm(now)

    def _set_alarm(self, now: float) -> None:
        self._pool.demand(len(self._work))
        wake = self._machine.next_wake(now)
        if self._wake:
            self._wake.cancel()
        self._wake = None
        if wake is not None:
            self._wake = self._loop.call_later(max(wake - now, 0.0), self._handle, events.Tick())

    def _job(self, item: events.Item) -> Prepare | Grade:
        work: _Work = item.payload  # type: ignore[assignment]
        if work.prepare:
            return work.prepare
        sample = work.sample
        assert sample
        part = sample.assembly.parts[work.part] if sample.assembly and work.part is not None else None
        return Grade(
            item.number,
            sample.program,
            sample.task,
            sample.request.batch.suite.sha256,
            sample.request.policy,
            part,
            self._machine.attempts(item.number),
        )

    def _deliver(self, number: int, outcome: events.Outcome) -> None:
        work = self._work.pop(number)
        if work.prepared:
            self._deliver_prepared(number, work.prepared, outcome)
            return
        sample = work.sample
        assert sample
        if isinstance(outcome, events.Cancelled) or sample.request.closed:
            return
        fields = self._fields(number, sample, outcome)
        if sample.assembly is None:
            self._answer(sample, fields)
        else:
            assert work.part is not None
            self._assemble(sample, sample.assembly, work.part, fields)

    def _deliver_prepared(self, number: int, future: asyncio.Future[None], outcome: events.Outcome) -> None:
        if future.done():
            return
        if isinstance(outcome, events.Done):
            error = self._verdicts[number]["error"]
            if error:
                future.set_exception(SuiteError(error))
            else:
                future.set_result(None)
        elif isinstance(outcome, events.GaveUp | events.Violation):
            future.set_exception(SuiteError(f"expected answers cannot be made: {outcome.why}"))
        else:
            future.cancel()

    def _fields(self, number: int, sample: _Sample, outcome: events.Outcome) -> VerdictFields:
        if isinstance(outcome, events.Done):
            return self._verdicts[number]
        policy = sample.request.policy
        if isinstance(outcome, events.Violation):
            raised = Raised("BrokeItsCell", f"its sandbox ended with it {outcome.attempts} times", 0)
            return verdict_without_run(
                sample.program, sample.task, policy, self.stamp, outcome.attempts,
                Status.SECURITY_VIOLATION, raised,
            )  # fmt: skip
        if isinstance(outcome, events.GaveUp):
            why, attempts, kind = outcome.why, outcome.attempts, "InfrastructureError"
        else:
            why, attempts, kind = "it was not started within the time-out", 0, "DeadlineExceeded"
        return infrastructure_error(sample.program, sample.task, policy, self.stamp, attempts, why, kind)

    def _assemble(self, sample: _Sample, assembly: Assembly, part: int, fields: VerdictFields) -> None:
        del sample.numbers[part]
        following = assembly.add(part, fields)
        if following:
            assert self._plans
            plan = self._plans.of(sample.request.batch.suite, sample.task, sample.request.policy)
            items = [self._item(sample, index, plan.part_cost_s(index)) for index in following]
            self._loop.call_soon(self._handle, events.Submit(tuple(items), unbounded=True))
        unwanted = [number for index, number in sample.numbers.items() if index in assembly.unwanted]
        if unwanted:
            self._loop.call_soon(self._handle, events.CancelItems(tuple(unwanted)))
        verdict = assembly.verdict()
        if verdict is not None:
            self._answer(sample, verdict)

    def _answer(self, sample: _Sample, fields: VerdictFields) -> None:
        sample.request.on_result(fields)
