"""What runs on a node of a Ray cluster: an actor that owns one worker process and passes on what it is told and says.

Nothing is decided here. The pool (``grader.engines.ray``) starts the worker, and starts it again when it is gone; each
start is an *incarnation* with a number of its own, and what is meant for an earlier one is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import platform
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grader import settings
from grader.engines.child import WorkerChild
from grader.engines.ray_node import NodeFolder, identity_of, locked
from grader.errors import GraderError, InfrastructureError
from grader.limits import Limits
from grader.sandbox import factory
from grader.sandbox.factory import CellSource
from grader.sandbox.options import CellOptions
from grader.version import __version__
from grader.worker.messages import Failed, Ready, Report, Setup

# One call costs about 2 ms of CPU, however much it carries: under load, verdicts travel together. A verdict that comes
# after a pause travels at once.
_COALESCE_S = 0.04
_SIGN_OF_LIFE_S = 1.0
_WATCH_S = 0.5
_ROOM_BYTES = 64 << 20
# Ray keeps a little for every item of a stream until the stream ends.
_ITEMS_IN_A_STREAM = 5000


@dataclass(frozen=True, slots=True)
class Order:
    """How to start a worker. ``incarnation`` is never used again for another start."""

    incarnation: int
    cells: CellOptions
    limits: Limits


@dataclass(frozen=True, slots=True)
class Started:
    """A worker is ready. ``node`` is its host's name; ``folder`` tells cache folders apart, whatever they are called
    where; ``pids`` are the actor's and the worker's process."""

    node: str
    stamp: Mapping[str, Any]
    key: str
    version: str
    folder: str
    pids: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Refused:
    """A worker cannot be started here; ``kind`` is the class of a GraderError."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a worker said since the last time; ``ended``, if not "", says why it says no more."""

    reports: Sequence[Report]
    ended: str = ""


class WorkerActor:
    """Owns one worker process. An async actor: its methods run on one event loop, several at a time."""

    def __init__(self) -> None:
        self._incarnation = 0
        self._child: WorkerChild | None = None
        self._folder: NodeFolder | None = None
        self._backend = ""
        self._reports: list[Report] = []
        self._ended = ""
        self._news = asyncio.Event()
        self._sending = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    async def start(self, order: Order) -> Started | Refused:
        """End the worker that there may be, start another, and wait until it has its cell."""
        async with self._starting:
            await self._end_child()
            self._incarnation = order.incarnation
            self._reports, self._ended = [], ""
            cache = settings.cache_dir()
            try:
                _check_room(cache)
                cells = await asyncio.to_thread(_prepare_once_per_node, cache, order)
            except GraderError as error:
                return Refused(type(error).__name__, str(error))
            except OSError as error:
                return Refused("InfrastructureError", f"the cache folder {cache} cannot be used: {error}")
            self._backend = cells.options.backend
            self._folder = NodeFolder(cache, cells.key)
            ready = asyncio.get_running_loop().create_future()
            self._child = self._started_child(order.incarnation, Setup(cache, cells, order.limits), ready)
            self._watching = self._watching or asyncio.create_task(self._watch())
            answer: Mapping[str, Any] | Refused = await ready
            if isinstance(answer, Refused):
                return answer
            pids = (os.getpid(), self._child.process.pid)
            return Started(platform.node(), answer, cells.key, __version__, identity_of(cache), pids)

    def _started_child(
        self, incarnation: int, setup: Setup, ready: asyncio.Future[Mapping[str, Any] | Refused]
    ) -> WorkerChild:
        def hear(reports: Sequence[Report]) -> None:
            if incarnation != self._incarnation:
                return
            if self._folder:
                self._folder.release(reports)
            for report in reports:
                if isinstance(report, Ready) and not ready.done():
                    ready.set_result(report.stamp)
                elif isinstance(report, Failed):
                    self._ended = f"{report.kind}: {report.text}"
                    if not ready.done():
                        ready.set_result(Refused(report.kind, report.text))
            self._reports += reports
            self._news.set()

        def end(why: str) -> None:
            if incarnation == self._incarnation:
                self._ended = self._ended or why
                if not ready.done():
                    ready.set_result(Refused("InfrastructureError", f"a worker ended at its start: {why}"))
                self._news.set()

        return WorkerChild(setup, hear, end)

    async def send(self, incarnation: int, jobs: bytes, files: Mapping[str, bytes], *, check: bool) -> None:
        """Give the worker pickled messages. ``files`` are those of the cache folder that the node may not have yet,
        by name. ``check`` whether all that is needed is here.

        Raises OSError where a file cannot be written or is not here.
        """
        async with self._sending:  # so that messages reach the worker in order
            if incarnation != self._incarnation or self._child is None or self._folder is None:
                return
            messages = pickle.loads(jobs)  # noqa: S301 - from our own pool
            await self._folder.receive(files)
            if check:
                self._folder.require(messages)
            if incarnation == self._incarnation:
                self._child.send(messages)

    async def reports(self, incarnation: int) -> AsyncIterator[bytes]:
        """Yield what the worker says, as pickled ``Spoken``; b"" is a sign of life of the actor alone."""
        spoke_at = -_COALESCE_S
        for _ in range(_ITEMS_IN_A_STREAM):
            try:
                async with asyncio.timeout(_SIGN_OF_LIFE_S):
                    await self._news.wait()
            except TimeoutError:
                yield b""
                continue
            await asyncio.sleep(max(spoke_at + _COALESCE_S - time.monotonic(), 0.0))
            if incarnation != self._incarnation:
                return
            self._news.clear()
            spoken = Spoken(self._reports, self._ended)
            self._reports = []
            spoke_at = time.monotonic()
            yield pickle.dumps(spoken)
            if spoken.ended:
                return

    async def fetch(self, names: Sequence[str]) -> list[bytes]:
        """Return the contents of files in the cache folder."""
        cache = settings.cache_dir()
        return [await asyncio.to_thread((cache / name).read_bytes) for name in names]

    async def end(self) -> None:
        """End the worker and destroy its cell; nothing of it is left when this returns."""
        async with self._starting:
            self._incarnation = -1
            if self._watching:
                self._watching.cancel()
                self._watching = None
            await self._end_child()

    async def _end_child(self) -> None:
        child, self._child = self._child, None
        self._news.clear()
        if child is None:
            return
        child.begin_end()
        await child.ended()
        with contextlib.suppress(GraderError):  # tried again at the next start
            await asyncio.to_thread(factory.reap_orphans, self._backend)

    async def _watch(self) -> None:
        """Have a worker killed that was stopped: asking whether it is silent does that."""
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._child is not None:
                _ = self._child.silent
            if self._folder is not None:
                self._folder.mark_held(time.monotonic())


def _check_room(cache: Path) -> None:
    """Refuse a node whose disk is full: a worker there would lose what it is given, and get it again."""
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if free < _ROOM_BYTES:
        raise InfrastructureError(
            f"the disk of the cache folder {cache} on {platform.node()} is full ({free >> 20} MiB are left, "
            f"{_ROOM_BYTES >> 20} are needed); make room, or set GRADER_CACHE_DIR there to another folder"
        )


def _prepare_once_per_node(cache: Path, order: Order) -> CellSource:
    with locked(cache / ".preparing"):
        return factory.prepare(order.cells, cache)
