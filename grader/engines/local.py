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
from grader.errors import GraderError, InfrastructureError
from grader.limits import Limits
from grader.sandbox import factory
from grader.sandbox.factory import CellSource
from grader.sandbox.options import CellOptions
from grader.worker.messages import Cancel, Failed, Graded, Job, Ready, Report, Setup

_WORKER_STARTS = 3  # in a row without a verdict, before we give up
_WATCH_S = 0.5
_USUAL_CELLS = CellOptions()


class LocalPool:
    """Workers on this machine's processors, replaced when they die. ``workers`` None means one a processor.

    ``on_progress(stage, done, total)`` tells of work before the workers start.
    """

    name = "local"

    def __init__(
        self,
        *,
        limits: Limits,
        workers: int | None = None,
        cells: CellOptions = _USUAL_CELLS,
        on_progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
    ) -> None:
        self._options = cells
        self._limits = limits
        self._on_progress = on_progress
        self.workers = workers or len(os.sched_getaffinity(0))
        self._node = platform.node()
        self._children: dict[str, WorkerChild] = {}
        self._silent: set[str] = set()
        self._names = map("worker-{}".format, itertools.count(1))
        self._starts_without_verdict = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, listener: Listener) -> None:
        """Make what cells are made from, and start the workers."""
        self._listener = listener
        self.cache = settings.cache_dir()
        self.cells: CellSource = await asyncio.to_thread(self._prepare)
        self._setup = Setup(self.cache, self.cells, self._limits)
        for _ in range(self.workers):
            self._start_worker()
        self._in_background(self._watch())

    def _prepare(self) -> CellSource:
        progress = partial(self._on_progress, "sandbox packages", 0, 1)
        return factory.prepare(self._options, self.cache, on_progress=progress)

    async def close(self) -> None:
        """End the workers, all at the same time, and remove what a killed one has left."""
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

    def processes(self) -> Mapping[str, int]:
        """Return each worker's process id."""
        return {name: child.process.pid for name, child in self._children.items()}

    def _start_worker(self) -> None:
        name = next(self._names)
        self._children[name] = WorkerChild(
            self._setup, partial(self._heard, name), partial(self._ended, name)
        )

    def _heard(self, name: str, reports: Sequence[Report]) -> None:
        if name in self._silent:
            self._silent.discard(name)
            self._listener(WorkerHeard(name))
        for report in reports:
            if isinstance(report, Ready):
                self._listener(WorkerReady(name, self._node, report.stamp, self.cells.key))
            elif isinstance(report, Graded):
                self._starts_without_verdict = 0
            elif isinstance(report, Failed):
                self._listener(PoolFailed(error_of(report.kind, report.text)))
        self._listener(WorkerSaid(name, reports))

    def _ended(self, name: str, why: str) -> None:
        """Put a new worker in a dead one's place."""
        if self._children.pop(name, None) is None:
            return
        self._silent.discard(name)
        self._listener(WorkerLost(name, why))
        self._starts_without_verdict += 1
        if self._starts_without_verdict > _WORKER_STARTS:
            error = InfrastructureError(f"workers end as soon as they start (of the last: {why})")
            self._listener(PoolFailed(error))
            return
        self._in_background(asyncio.to_thread(_remove_cells_of_the_dead, self._options.backend))
        self._start_worker()

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
