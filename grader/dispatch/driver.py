"""The dispatcher at work: batches go in, jobs go to a pool's workers, verdicts come out.

All decisions are the state machine's (``grader.dispatch.state``); here is what it knows nothing of: the event loop, the
pool, what a job is made of, and what a verdict looks like.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from grader.dispatch import events
from grader.dispatch.contract import Batch, PoolState, VerdictFields, Verdicts
from grader.dispatch.plans import Plans, task_key
from grader.dispatch.reports import Reports
from grader.dispatch.state import Dispatcher, DispatcherConfig
from grader.dispatch.work import Executing, Grading, Preparing, Request, Sample, Work
from grader.engines.pool import (
    Pool,
    PoolEvent,
    PoolFailed,
    WorkerReady,
    WorkerSaid,
)
from grader.errors import GraderError, OverloadedError, SuiteError
from grader.limits import Limits
from grader.suites import inline
from grader.suites.task import Suite, Task
from grader.worker.execution import Executed, Execution
from grader.worker.grading import BROKEN_TESTS, Policy, infrastructure_error
from grader.worker.messages import Cancel, Job
from grader.worker.program import Program

_PREPARE_S = 0.5  # CPU seconds that a reference is thought to need, as long as nothing is known of it


class Driver:
    """Grades batches of many requests over one pool of workers; see ``contract.Grading``.

    ``on_event`` is told all that the pool says, before it is acted on.
    """

    def __init__(
        self,
        pool: Pool,
        config: DispatcherConfig | None = None,
        on_event: Callable[[PoolEvent], None] = lambda _event: None,
    ) -> None:
        self._pool = pool
        self._on_event = on_event
        self._machine = Dispatcher(config or DispatcherConfig())
        self._numbers = itertools.count(1)
        self._requests = itertools.count(1)
        self._work: dict[int, Work] = {}
        self._reports = Reports(self._work)
        self._unsent: dict[str, list[Job | Cancel]] = {}  # by worker
        self._open: dict[str, Request] = {}
        self._failure: GraderError | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._wake_at: float | None = None
        self._plans: Plans | None = None
        self._begun = asyncio.Event()  # a worker has been ready, or none will ever be
        self.stamp: Mapping[str, Any] = {}

    @property
    def workers(self) -> int:
        """How many workers grade at the same time."""
        return self._pool.workers

    @property
    def failure(self) -> GraderError | None:
        """Why no worker will ever work again, if that is so."""
        return self._failure

    async def start(self) -> None:
        """Start the workers. Raises a GraderError where no cell can be made."""
        self._loop = asyncio.get_running_loop()
        await self._pool.start(self._hear)

    async def first_worker(self, timeout_s: float | None = None) -> Plans:
        """Wait for the first worker, on which everything else rests.

        Raises OverloadedError if none is ready in time, and a GraderError where none ever will be.
        """
        if not self._begun.is_set():
            try:
                # Not wait_for, which before Python 3.12 can take a cancellation for its own.
                async with asyncio.timeout(timeout_s):
                    await self._begun.wait()
            except TimeoutError:
                raise OverloadedError("no worker is ready yet; try again when /readyz says so", 5.0) from None
        if self._failure:
            raise self._failure
        assert self._plans
        return self._plans

    async def close(self) -> None:
        """End every worker and destroy every cell."""
        if self._alarm:
            self._alarm.cancel()
        await self._pool.close()

    def state(self) -> PoolState:
        """Return how things are now."""
        workers = dict(self._pool.state())
        # A worker that has been heard to be ready has its cell; one that has a sample, has it at work.
        busy = min(self._machine.busy, workers.get("ready", 0))
        workers["ready"] = workers.get("ready", 0) - busy
        workers["busy"] = busy
        return PoolState(
            workers=workers,
            cells={state: count for state, count in workers.items() if state != "refused"},
            queued=self._machine.queued(),
            running=self._machine.running,
            retries=dict(self._machine.retries),
            failure=str(self._failure) if self._failure else self._pool.trouble(),
        )

    def reference_cpu_s(self, suite: Suite, task_id: str, groups: tuple[str, ...] | None) -> float | None:
        """Return the CPU seconds that the reference of a task that has been graded needs for these groups.

        None where that is not known: its reference was not run, or its tests are not function tests.
        """
        if self._plans is None:
            return None
        policy = Policy(Limits(), groups, fail_fast=False)
        return self._plans.of(suite, (suite.tasks[task_id],), policy)[task_id].cost_s

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
        tasks = {one.task_id: suite.tasks[one.task_id] for one in programs}
        broken = await self.prepare(request, tasks.values())
        sound = (task for name, task in tasks.items() if name not in broken)
        planned = plans.of(suite, sound, request.policy)
        items = []
        for program in programs:
            if program.task_id in broken:
                continue
            plan = planned[program.task_id]
            sample = Sample(request, program, plan, plan.assembly())
            if sample.assembly is None:
                items.append(self._sample_item(sample, None, plan.cost_s))
            else:
                items += self._part_items(sample, sample.assembly.first_wave)
        self._submit(items)
        for program in programs:
            if program.task_id in broken:
                request.on_result(
                    self._without_tests(request, program, tasks[program.task_id], broken[program.task_id])
                )

    def _without_tests(
        self, request: Request, program: Program, task: Task, error: GraderError
    ) -> VerdictFields:
        kind = BROKEN_TESTS if isinstance(error, SuiteError) else type(error).__name__
        return infrastructure_error(program, task, request.policy, self.stamp, 0, str(error), kind)

    async def execute(
        self, execution: Execution, limits: Limits, *, tenant: str, weight: float = 1.0, timeout_s: float
    ) -> Executed:
        """Run a program and say what it did, without judging it.

        ``timeout_s`` is the wall-clock time after which a program that has not been started is no longer wanted.
        Raises OverloadedError where there is no room, or no worker came to it in time.
        """
        await self.first_worker(timeout_s)
        done: asyncio.Future[Executed] = self._loop.create_future()
        number = next(self._numbers)
        self._work[number] = Executing(execution, limits, done)
        item = events.Item(
            number=number,
            request_id=f"execute:{number}",
            tenant=tenant,
            weight=weight,
            # Programs that differ only in what they read go to one worker, and cost alike.
            task_key=f"execute:{hash(execution.source):x}",
            size_bytes=len(execution.source) + len(execution.stdin),
            deadline=time.monotonic() + timeout_s,
        )
        self._submit([item])
        try:
            return await done
        finally:
            self._handle(events.CancelItems((number,)))

    def _submit(self, items: Sequence[events.Item]) -> None:
        try:
            self._handle(events.Submit(tuple(items)))
        except GraderError:
            for item in items:
                del self._work[item.number]
            raise

    async def grade(self, batch: Batch) -> AsyncIterator[Verdicts]:
        """Yield one verdict a program, in the order in which they are done; see ``contract.Grading``."""
        done: Verdicts = []
        failed: list[GraderError] = []
        news = asyncio.Event()

        def take(result: VerdictFields | GraderError) -> None:
            if isinstance(result, GraderError):
                failed.append(result)
            else:
                done.append(result)
            news.set()

        request = self.open(batch, take)
        try:
            await self.add(request, batch.programs)
            missing = len(batch.programs)
            while missing:
                while not (done or failed):
                    news.clear()
                    await news.wait()
                if not done:
                    raise failed[0]
                missing -= len(done)
                verdicts, done = done, []
                yield verdicts
        finally:
            self.finish(request)

    def finish(self, request: Request) -> None:
        """End a request: what is left of it is not wanted."""
        request.closed = True
        del self._open[request.batch.request_id]
        self._handle(events.Cancel(request.batch.request_id))
        if self._plans:
            self._plans.tidy(self._loop, (other.batch.suite for other in self._open.values()))

    async def prepare(self, request: Request, tasks: Iterable[Task]) -> dict[str, GraderError]:
        """Have the expected answers made that are missing.

        Returns, by task, why they cannot be made of a request's own tests, which concerns its other rows as little as
        other requests. Raises SuiteError where a reference of any other suite fails.
        """
        plans = await self.first_worker(request.batch.timeout_s)
        waiting: dict[str, asyncio.Future[None]] = {}
        items = []
        for task, making in plans.missing(request.batch.suite, tasks):
            future = making or plans.begin(request.batch.suite, task, self._loop)
            if making is None:
                number = next(self._numbers)
                self._work[number] = Preparing(task, request.batch.suite.sha256, future)
                key = task_key(request.batch.suite, f"prepare/{task.task_id}")
                item = self._item(number, request, key, _PREPARE_S)
                # Others may wait for it too: it does not end with this request.
                items.append(replace(item, request_id=f"prepare:{number}", deadline=None))
            waiting[task.task_id] = future
        if items:
            self._handle(events.Submit(tuple(items), unbounded=True))
        broken: dict[str, GraderError] = {}
        for done, (task_id, future) in enumerate(waiting.items()):
            request.on_progress("expected answers", done, len(waiting))
            try:
                await asyncio.shield(future)
            except GraderError as error:
                if self._failure or request.batch.suite.sha256 != inline.SUITE_SHA256:
                    raise
                broken[task_id] = error
        if waiting:
            request.on_progress("expected answers", len(waiting), len(waiting))
        return broken

    def _sample_item(self, sample: Sample, part: int | None, cost_s: float | None) -> events.Item:
        number = next(self._numbers)
        self._work[number] = Grading(sample, part, self._go_on)
        if part is not None:
            sample.numbers[part] = number
        size = len(sample.program.source)
        return self._item(number, sample.request, sample.plan.key, cost_s, size)

    def _part_items(self, sample: Sample, parts: Sequence[int]) -> list[events.Item]:
        return [self._sample_item(sample, part, sample.plan.part_costs_s[part]) for part in parts]

    def _item(
        self, number: int, request: Request, task_key: str, cost_s: float | None, size: int = 0
    ) -> events.Item:
        batch = request.batch
        return events.Item(
            number=number,
            request_id=batch.request_id,
            tenant=batch.tenant,
            weight=batch.weight,
            priority=batch.priority,
            task_key=task_key,
            size_bytes=size,
            cost_s=cost_s,
            deadline=request.deadline,
        )

    # -- what the pool says

    def _hear(self, event: PoolEvent) -> None:
        self._on_event(event)
        if isinstance(event, WorkerSaid):
            self._take_all(event)
        elif isinstance(event, WorkerReady):
            self.stamp = event.stamp
            self._plans = self._plans or Plans(self._pool.cache, event.key)
            self._begun.set()
            self._handle(events.WorkerReady(event.worker, event.node))
        elif isinstance(event, PoolFailed):
            self._fail(event)
        else:
            self._handle(event)

    def _take_all(self, said: WorkerSaid) -> None:
        """Take reports; what they lead to goes to the workers when all are taken, in one message each."""
        try:
            told = [self._reports.event(said.worker, report) for report in said.reports]
            self._act_on(*(event for event in told if event is not None))
        finally:
            self._reports.forget()
            self._settle()

    def _fail(self, event: PoolFailed) -> None:
        self._failure = event.error
        self._begun.set()
        for request in self._open.values():
            request.on_result(event.error)
        for work in self._work.values():
            work.fail(event.error)

    # -- what the state machine wants

    def _handle(self, event: events.Event) -> None:
        self._act_on(event)
        self._settle()

    def _act_on(self, *happened: events.Event) -> None:
        """Do what follows from events; messages to workers and the alarm wait for ``_settle``."""
        for instruction in self._machine.handle_all(happened, time.monotonic()):
            if isinstance(instruction, events.Send):
                jobs = [self._job(item.number) for item in instruction.items]
                self._unsent.setdefault(instruction.worker, []).extend(jobs)
            elif isinstance(instruction, events.Abandon):
                self._unsent.setdefault(instruction.worker, []).append(Cancel(tuple(instruction.numbers)))
            else:
                work = self._work.pop(instruction.number)
                work.end(instruction.outcome, self._reports.result(instruction.number), self.stamp)

    def _settle(self) -> None:
        unsent, self._unsent = self._unsent, {}
        for worker, messages in unsent.items():
            self._pool.send(worker, messages)
        self._pool.demand(len(self._work))
        now = time.monotonic()
        wake_at = self._machine.next_wake(now)
        if wake_at == self._wake_at:
            return
        if self._alarm:
            self._alarm.cancel()
        self._wake_at = wake_at
        self._alarm = None if wake_at is None else self._loop.call_later(wake_at - now, self._ring)

    def _ring(self) -> None:
        self._alarm = self._wake_at = None
        self._handle(events.Tick())

    def _job(self, number: int) -> Job:
        return self._work[number].job(number, self._machine.attempts(number))

    def _go_on(self, sample: Sample, following: Sequence[int], unwanted: Sequence[int]) -> None:
        """Begin parts of a sample and drop others, when the state machine is done with the event at hand."""
        if following or unwanted:
            self._loop.call_soon(self._change_parts, sample, following, unwanted)

    def _change_parts(self, sample: Sample, following: Sequence[int], unwanted: Sequence[int]) -> None:
        if following and not sample.request.closed:
            self._handle(events.Submit(tuple(self._part_items(sample, following)), unbounded=True))
        if unwanted:
            self._handle(events.CancelItems(tuple(unwanted)))
