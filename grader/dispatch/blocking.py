"""The dispatcher for callers without an event loop: it runs on one in a thread of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

from grader.dispatch.contract import Batch, VerdictFields
from grader.dispatch.driver import Driver
from grader.dispatch.state import DispatcherConfig
from grader.engines.pool import Pool
from grader.errors import GraderError
from grader.limits import Limits
from grader.suites.task import Suite
from grader.worker.program import Program

_Result = TypeVar("_Result")
_AHEAD = 4096  # programs taken from the caller before their turn, so that long ones can start early
_REFILL = 512
# There is one caller, who is held back by _AHEAD, and whom it does not concern what workers hold. So they hold more: a
# call of Ray's costs 2 ms on either side.
_ALONE = DispatcherConfig(batch_s=0.15, max_samples=1 << 40, max_bytes=1 << 60, tenant_share=1.0)


class BlockingEngine:
    """Grades programs of one suite on a pool's workers.

    A context manager: leaving it, however, ends every worker and destroys every cell. ``on_progress(stage, done,
    total)`` tells of work before the first verdict.

    Raises a GraderError where no cell can be made.
    """

    def __init__(
        self,
        pool: Pool,
        suite: Suite,
        *,
        limits: Limits,
        groups: tuple[str, ...] | None = None,
        fail_fast: bool = True,
        on_progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
    ) -> None:
        self.pool = pool
        self._driver = Driver(pool, _ALONE)
        self._batch = Batch(
            request_id="run", suite=suite, programs=(), groups=groups, limits=limits, fail_fast=fail_fast
        )
        self._on_progress = on_progress
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="grader-dispatcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._do(self._driver.start())
            self._do(self._prepare())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def workers(self) -> int:
        """How many workers grade at the same time."""
        return self._driver.workers

    @property
    def stamp(self) -> Mapping[str, Any]:
        """The backend and the layers in force, as stamped on every verdict."""
        self._do(self._driver.first_worker())
        return self._driver.stamp

    def grade(self, programs: Iterable[Program]) -> Iterator[VerdictFields]:
        """Yield the fields of a verdict for each program, in the order in which they are done.

        Programs are taken as they are needed, with a bounded look-ahead; the longest are started first.
        """
        results: queue.SimpleQueue[VerdictFields | GraderError] = queue.SimpleQueue()
        request = self._do(self._open(results.put))
        waiting, source, exhausted = 0, iter(programs), False
        try:
            while waiting or not exhausted:
                while not exhausted and waiting <= _AHEAD - _REFILL:
                    some = list(islice(source, _AHEAD - waiting))
                    exhausted = not some
                    waiting += len(some)
                    self._do(self._driver.add(request, some))
                if waiting:
                    result = results.get()
                    if isinstance(result, GraderError):
                        raise result
                    waiting -= 1
                    yield result
        finally:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._driver.finish, request)

    async def _open(self, on_result: Callable[[VerdictFields | GraderError], None]) -> Any:
        return self._driver.open(self._batch, on_result)

    async def _prepare(self) -> None:
        request = self._driver.open(self._batch, lambda _: None, self._on_progress)
        try:
            await self._driver.prepare(request, self._batch.suite.tasks.values())
        finally:
            self._driver.finish(request)

    def _do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # after a signal it would else be pending when the loop is closed, and asyncio say so
            raise

    def _close(self) -> None:
        try:
            self._do(self._driver.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
