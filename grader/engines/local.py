"""The local engine: worker processes on this machine, one cell each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial

from grader import settings
from grader.engines.child import WorkerChild
from grader.engines.pool import (
    Listener,
    PoolFailed,
    WorkerHeard,
    WorkerLost,
    WorkerReady,
    WorkerSaid,
    WorkerSilent,
    error_of,
)
from grader.errors import GraderError
from grader.limits import Limits
from grader.sandbox import factory
from grader.sandbox.factory import CellSource
from grader.sandbox.options import CellOptions
from grader.worker.messages import Cancel, Failed, Graded, Job, Prepared, Ran, Ready, Report, Setup

_WORKER_STARTS = 3  # that fail in a row in one place, while no other worker works
_WORKER_DEATHS = 20  # in a row without a result: more than programs take with them that end their workers
_PATIENCE_S = (
    0.0,
    0.5,
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
    30.0,
)  # before a start, after so many failures above the bounds
_WATCH_S = 0.5
_USUAL_CELLS = CellOptions()


class LocalPool:
    """Workers on this machine's processors, replaced when they die. ``workers`` None means one a processor.

    Where starts keep failing, the pool fails; with ``patient``, only if no worker has ever been ready: what has worked
    may work again, and is tried ever more slowly. ``on_progress(stage, done, total)`` tells of work before the workers
    start, ``on_warning`` of workers that cannot be started.
    """

    name = "local"

    def __init__(
        self,
        *,
        limits: Limits,
        workers: int | None = None,
        cells: CellOptions = _USUAL_CELLS,
        patient: bool = False,
        on_progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
        on_warning: Callable[[str], None] = lambda _message: None,
    ) -> None:
        self._options = cells
        self._limits = limits
        self._patient = patient
        self._on_progress = on_progress
        self._on_warning = on_warning
        self.workers = workers or len(os.sched_getaffinity(0))
        self._node = platform.node()
        self._children: dict[str, WorkerChild] = {}
        self._silent: set[str] = set()
        self._names = map("worker-{}".format, itertools.count(1))
        self._failed_starts: dict[str, int] = {}  # in a row in the place of a worker, before it
        self._last_words: dict[str, Failed] = {}
        self._deaths = 0  # in a row without a result
        self._worked = False  # a worker has been ready
        self._over = False  # no worker is started any more
        self._trouble: str | None = None
        self._warned = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, listener: Listener) -> None:
        """Make what cells are made from, and start the workers."""
        self._listener = listener
        self.cache = settings.cache_dir()
        self.cells: CellSource = await asyncio.to_thread(self._prepare)
        self._setup = Setup(self.cache, self.cells, self._limits)
        for _ in range(self.workers):
            self._in_background(self._start_worker(0, 0.0))
        self._in_background(self._watch())

    def _prepare(self) -> CellSource:
        progress = partial(self._on_progress, "sandbox packages", 0, 1)
        return factory.prepare(self._options, self.cache, on_progress=progress)

    async def close(self) -> None:
        """End the workers, all at the same time, and remove what a killed one has left."""
        self._over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        children, self._children = list(self._children.values()), {}
        for child in children:
            child.begin_end()
        for child in children:
            await child.ended()
        if children:
            await asyncio.to_thread(_remove_cells_of_the_dead, self._options.backend)

    def send(self, worker: str, messages: Sequence[Job | Cancel]) -> None:
        """Give a worker jobs."""
        child = self._children.get(worker)
        if child is not None:
            child.send(messages)

    def demand(self, jobs: int) -> None:
        """There are as many workers as processors, whatever there is to do."""

    def state(self) -> Mapping[str, int]:
        """Return how many workers are in which state."""
        return Counter(
            "lost" if name in self._silent else "ready" if child.ready else "starting"
            for name, child in self._children.items()
        )

    def trouble(self) -> str | None:
        """Return why no worker works, if that is so; it may pass."""
        return self._trouble

    def processes(self) -> Mapping[str, int]:
        """Return each worker's process id."""
        return {name: child.process.pid for name, child in self._children.items()}

    async def _start_worker(self, failed_starts: int, wait_s: float) -> None:
        """Start a worker, after so many failures in a row in its place."""
        if wait_s:
            await asyncio.sleep(wait_s)
        name = next(self._names)
        try:
            child = WorkerChild(self._setup, partial(self._heard, name), partial(self._ended, name))
        except OSError as error:  # no process, no memory, no descriptor: that passes
            self._replace(Failed("InfrastructureError", f"no process: {error}"), failed_starts + 1)
            return
        self._children[name] = child
        self._failed_starts[name] = failed_starts

    def _heard(self, name: str, reports: Sequence[Report]) -> None:
        if name in self._silent:
            self._silent.discard(name)
            self._listener(WorkerHeard(name))
        for report in reports:
            if isinstance(report, Ready):
                self._worked, self._trouble, self._warned = True, None, ""
                self._listener(WorkerReady(name, self._node, report.stamp, self.cells.key))
            elif isinstance(report, Graded | Ran | Prepared):
                self._deaths = 0
            elif isinstance(report, Failed):
                self._last_words[name] = report
                if not self._worked:  # what is missing for the first is missing for all
                    self._fail(report.kind, report.text)
        self._listener(WorkerSaid(name, reports))

    def _ended(self, name: str, why: str) -> None:
        """Put a new worker in a dead one's place."""
        child = self._children.pop(name, None)
        if child is None:
            return
        self._silent.discard(name)
        said = self._last_words.pop(name, None)
        self._listener(WorkerLost(name, said.text if said else why))
        failed_starts = self._failed_starts.pop(name)
        self._deaths += 1
        self._in_background(asyncio.to_thread(_remove_cells_of_the_dead, self._options.backend))
        self._replace(said or Failed("", why), 0 if child.ready else failed_starts + 1)

    def _replace(self, cause: Failed, failed_starts: int) -> None:
        """Start another worker, in time; where that keeps failing, the pool has failed or is in trouble."""
        if self._over:
            return
        text = cause.text if cause.kind else f"workers end as soon as they start (of the last: {cause.text})"
        excess = max(failed_starts - _WORKER_STARTS, self._deaths - _WORKER_DEATHS, 0)
        if excess and not any(child.ready for child in self._children.values()):
            self._trouble = text
            if not (self._patient and self._worked):
                self._fail(cause.kind, text)
                return
        if failed_starts and text != self._warned:
            self._warned = text
            self._on_warning(f"a worker cannot be started: {text}")
        wait_s = _PATIENCE_S[min(excess, len(_PATIENCE_S) - 1)]
        self._in_background(self._start_worker(failed_starts, wait_s))

    def _fail(self, kind: str, text: str) -> None:
        self._over = True
        self._listener(PoolFailed(error_of(kind, text)))

    async def _watch(self) -> None:
        """Tell of workers that are silent."""
        while True:
            await asyncio.sleep(_WATCH_S)
            for name, child in list(self._children.items()):
                if child.silent and name not in self._silent:
                    self._silent.add(name)
                    self._listener(WorkerSilent(name))

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _remove_cells_of_the_dead(backend: str) -> None:
    """Remove cells whose worker was killed; their last processes may need a moment to be gone."""
    with contextlib.suppress(GraderError):  # it is tried again at the end, and at the next start
        for _ in range(50):
            if factory.reap_orphans(backend) == 0:
                return
            time.sleep(0.02)
