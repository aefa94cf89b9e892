"""The local engine: worker processes on this machine, one cell each."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grader
from grader import settings
from grader.errors import InfrastructureError, InputError, SandboxError, SuiteError
from grader.limits import Limits
from grader.sandbox import factory
from grader.suites.task import FunctionTests, Suite, Task
from grader.worker.bundle import BundleStore
from grader.worker.grading import Policy, infrastructure_error
from grader.worker.link import Link
from grader.worker.messages import Failed, Grade, Graded, Prepare, Prepared, Ready, Setup
from grader.worker.program import Program

_AHEAD = 4096  # programs taken from the caller before their turn, so that long ones can start early
_PER_WORKER = 3  # jobs at a worker: one runs, one is ready to in its cell, one more covers the way there
_MAX_ATTEMPTS = 3
_WORKER_STARTS = 3  # in a row without a verdict, before we give up
_START_WORKER = "from grader.worker.process import main; main()"
_ERRORS = {kind.__name__: kind for kind in (SandboxError, SuiteError, InfrastructureError, InputError)}


@dataclass(slots=True)
class _WorkerProcess:
    process: subprocess.Popen[bytes]
    link: Link
    ready: bool = False
    jobs: dict[int, Grade | Prepare] = field(default_factory=dict)


class _LookAhead:
    """Programs taken from the caller before their turn, so that the longest can be started first."""

    def __init__(
        self, programs: Iterable[Program], make_job: Callable[[Program], tuple[float, Grade]]
    ) -> None:
        self._source: Iterator[Program] | None = iter(programs)
        self._make_job = make_job
        self._waiting: list[tuple[float, int, Grade]] = []

    @property
    def exhausted(self) -> bool:
        """Whether the caller has no more."""
        return self._source is None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def fill(self) -> None:
        """Take as many as there is room for."""
        while self._source is not None and len(self._waiting) < _AHEAD:
            program = next(self._source, None)
            if program is None:
                self._source = None
                return
            cost, job = self._make_job(program)
            heappush(self._waiting, (-cost, job.number, job))

    def pop(self) -> Grade:
        """Return the job that may take longest."""
        return heappop(self._waiting)[2]


class LocalEngine:
    """Grades on this machine's processors.

    A context manager: leaving it, however, ends every worker and destroys every cell. ``workers`` None means one a
    processor. ``on_progress(stage, done, total)`` tells of work before the first verdict.

    Raises SandboxError where a required isolation mechanism is missing and not in ``allow_missing``.
    """

    def __init__(
        self,
        suite: Suite,
        *,
        limits: Limits,
        groups: tuple[str, ...] | None = None,
        fail_fast: bool = True,
        workers: int | None = None,
        sandbox: str = "auto",
        runtime: str | None = None,
        allow_missing: tuple[str, ...] = (),
        on_progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._backend = factory.checked_backend(sandbox, runtime)
        self._runtime = runtime
        self._suite = suite
        self._limits = limits
        self._policy = Policy(limits, groups, fail_fast)
        self.workers = workers or len(os.sched_getaffinity(0))
        self._allow_missing = allow_missing
        self._report = on_progress or (lambda _stage, _done, _total: None)
        self._pool: list[_WorkerProcess] = []
        self._numbers = 0
        self._light: dict[str, tuple[float, Task]] = {}
        self._starts_without_verdict = 0
        self._stamp: dict[str, Any] = {}
        self._prepared: deque[Prepared] = deque()
        self._graded: deque[Graded] = deque()
        self._again: deque[Grade | Prepare] = deque()

    def __enter__(self) -> Self:
        cache = settings.cache_dir()
        cells = factory.prepare(
            self._backend,
            cache,
            runtime=self._runtime,
            allow_missing=self._allow_missing,
            on_progress=lambda: self._report("sandbox packages", 0, 1),
        )
        self._store = BundleStore(cache, self._suite, cells.key)
        self._setup = Setup(
            suite=replace(self._suite, tasks={}),
            cache=cache,
            cells=cells,
            limits=self._limits,
            policy=self._policy,
        )
        try:
            self._pool = [self._start_worker() for _ in range(self.workers)]
            self._prepare()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def stamp(self) -> Mapping[str, Any]:
        """The backend and the layers in force, as stamped on every verdict."""
        while not self._stamp:
            self._exchange()
        return self._stamp

    def grade(self, programs: Iterable[Program]) -> Iterator[dict[str, Any]]:
        """Yield the fields of a verdict for each program, in the order in which they are done.

        Programs are taken as they are needed, with a bounded look-ahead; the longest are started first.
        """
        ahead = _LookAhead(programs, self._job)
        while True:
            ahead.fill()
            self._hand_out(ahead)
            while self._graded:
                yield self._graded.popleft().verdict
            if not any(worker.jobs for worker in self._pool) and not self._again:
                if ahead.exhausted and not ahead:
                    return
                continue
            self._exchange()

    def _job(self, program: Program) -> tuple[float, Grade]:
        """The job of grading a program, and the CPU seconds that it may take."""
        task = self._suite.tasks[program.task_id]
        if task.task_id not in self._light:
            self._light[task.task_id] = self._cost(task), _without_inputs(task)
        cost, light = self._light[task.task_id]
        self._numbers += 1
        return cost, Grade(self._numbers, program, light, 1)

    def _hand_out(self, ahead: _LookAhead | None = None) -> None:
        """Give the workers with the fewest jobs what is to be done again, then what is ahead."""
        while self._again or ahead:
            worker = min(self._pool, key=lambda worker: len(worker.jobs))
            if len(worker.jobs) >= _PER_WORKER:
                return
            if self._again:
                self._send(worker, self._again.popleft())
            elif ahead:
                self._send(worker, ahead.pop())

    def _send(self, worker: _WorkerProcess, job: Grade | Prepare) -> None:
        worker.jobs[job.number] = job
        with contextlib.suppress(BrokenPipeError):  # dead; its last words are still to be read
            worker.link.send(job)

    def _cost(self, task: Task) -> float:
        """CPU seconds that the reference needs, for the order of work."""
        if not self._store.has(task) or not any(
            isinstance(group.tests, FunctionTests) for group in task.groups
        ):
            return 0.0
        bundle = self._store.open(task)
        try:
            return sum(bundle.times)
        finally:
            bundle.close()

    def _prepare(self) -> None:
        """Make the expected answers that are missing, on all workers; the largest inputs first."""
        missing = [task for task in self._suite.tasks.values() if not self._store.has(task)]
        total = len(missing)
        for task in missing:
            self._numbers += 1
            self._again.append(Prepare(self._numbers, task, 1))
        done = 0
        while done < total:
            self._report("expected answers", done, total)
            self._hand_out()
            self._exchange()
            while self._prepared:
                prepared = self._prepared.popleft()
                if prepared.error:
                    raise SuiteError(prepared.error)
                done += 1
        if total:
            self._report("expected answers", total, total)

    def _exchange(self) -> None:
        """Wait for messages from workers and take them."""
        by_reader = {worker.link.reader: worker for worker in self._pool}
        readable = [reader for reader, worker in by_reader.items() if worker.link.ready]
        if not readable:
            readable, _, _ = select.select(list(by_reader), [], [])
        for reader in readable:
            worker = by_reader[reader]
            for message in worker.link.receive():
                self._take(worker, message)
            if worker.link.closed:
                self._replace(worker)

    def _take(self, worker: _WorkerProcess, message: object) -> None:
        if isinstance(message, Graded):
            self._starts_without_verdict = 0
            if worker.jobs.pop(message.number, None) is not None:
                self._graded.append(message)
        elif isinstance(message, Prepared):
            if worker.jobs.pop(message.number, None) is not None:
                self._prepared.append(message)
        elif isinstance(message, Ready):
            worker.ready = True
            self._stamp = message.stamp
        elif isinstance(message, Failed):
            raise _ERRORS.get(message.kind, InfrastructureError)(message.text)

    def _start_worker(self) -> _WorkerProcess:
        environment = dict(os.environ)
        package = str(Path(grader.__file__).parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [package, environment.get("PYTHONPATH", "")])
        )
        # Fixed, or glibc raises them after one huge answer, and the worker keeps its memory for ever.
        environment.update(MALLOC_MMAP_THRESHOLD_="1048576", MALLOC_TRIM_THRESHOLD_="1048576")
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START_WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            bufsize=0,
            start_new_session=True,  # a terminal's Ctrl-C is for the engine, which then ends its workers
        )
        assert process.stdin
        assert process.stdout
        worker = _WorkerProcess(process, Link(process.stdout.fileno(), process.stdin.fileno()))
        with contextlib.suppress(BrokenPipeError):  # dead at once: its closed link will say so
            worker.link.send(self._setup)
        return worker

    def _replace(self, worker: _WorkerProcess) -> None:
        """Put a new worker in a dead one's place; what the dead one held is graded again, three times at most."""
        if worker not in self._pool:
            return
        self._pool.remove(worker)
        _end(worker)
        _remove_cells_of_the_dead(self._backend)
        self._starts_without_verdict += 1
        if self._starts_without_verdict > _WORKER_STARTS:
            status = worker.process.returncode
            raise InfrastructureError(f"workers end as soon as they start (the last with status {status})")
        for position, job in enumerate(worker.jobs.values()):
            if worker.ready and position == 0:
                self._put_back(job, worker.process.returncode)
            else:
                self._again.append(job)  # the worker had not come to it: that was no attempt
        self._pool.append(self._start_worker())

    def _put_back(self, job: Grade | Prepare, status: int) -> None:
        why = f"{job.attempts} workers ended while they held it; the last with status {status}"
        if job.attempts < _MAX_ATTEMPTS:
            self._again.append(replace(job, attempts=job.attempts + 1))
        elif isinstance(job, Prepare):
            raise InfrastructureError(f"the expected answers of {job.task.task_id} cannot be made: {why}")
        else:
            fields = infrastructure_error(job.program, job.task, self._policy, self._stamp, job.attempts, why)
            self._graded.append(Graded(job.number, fields))

    def _close(self) -> None:
        for worker in self._pool:
            worker.process.kill() if not worker.ready else None
        for worker in self._pool:
            _end(worker)
        self._pool = []
        _remove_cells_of_the_dead(self._backend)


def _end(worker: _WorkerProcess) -> None:
    """Close a worker's link, which ends it; kill it if that takes too long."""
    process = worker.process
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _remove_cells_of_the_dead(backend: str) -> None:
    """Remove cells whose worker was killed; their last processes may need a moment to be gone."""
    for _ in range(50):
        if factory.reap_orphans(backend) == 0:
            return
        time.sleep(0.02)


def _without_inputs(task: Task) -> Task:
    """The task without the inputs and answers that its bundle has: it travels with every job."""
    groups = tuple(
        replace(group, tests=FunctionTests(tuple)) if isinstance(group.tests, FunctionTests) else group
        for group in task.groups
    )
    return replace(task, groups=groups)
