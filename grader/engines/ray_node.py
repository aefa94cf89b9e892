"""The cache folder of a node of a cluster: shared by its workers, filled from elsewhere, and kept within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from grader.suites import inline
from grader.worker.bundle import BundleStore
from grader.worker.eviction import KEPT_S, MAX_BYTES, evict, mark_used
from grader.worker.messages import Cancel, Grade, Graded, Job, Lost, Prepare, Prepared, Report

_KEPT_STORES = 64
# New files, and their bytes, before the folder is looked through again. Each worker of a node counts its own.
_TIDIED_AFTER = 256
_TIDIED_AFTER_BYTES = 64 << 20
_MARKED_EVERY_S = KEPT_S / 10


class NodeFolder:
    """A node's cache folder, as an actor sees it; ``key`` names what programs find in the node's cells.

    Expected answers of inline tests are removed where they take more than ``max_bytes``, the longest unused first. The
    node's other actors do so too, and know nothing of this one's jobs: what a job here needs is marked as used, again
    and again, until the job is done.
    """

    def __init__(self, cache: Path, key: str, max_bytes: int = MAX_BYTES) -> None:
        self._cache, self._key, self._max_bytes = cache, key, max_bytes
        self._stores: OrderedDict[str, BundleStore] = OrderedDict()
        self._held: dict[int, list[Path]] = {}  # files of inline tests, by the job that needs or makes them
        self._marked_at = -KEPT_S
        self._untidied = self._untidied_bytes = 0

    async def receive(self, files: Mapping[str, bytes]) -> None:
        """Write the files that are missing, by their names. Raises OSError where that is not possible."""
        for name, data in files.items():
            if not (self._cache / name).is_file():
                await asyncio.to_thread(write_once, self._cache / name, data)
                self._count(len(data))
        await self._tidy()

    def require(self, messages: Sequence[Job | Cancel]) -> None:
        """Check that the expected answers of all tasks to be graded are here, and see that they stay until ``release``.

        Raises FileNotFoundError.
        """
        for message in messages:
            if isinstance(message, Cancel):
                for number in message.numbers:
                    self._held.pop(number, None)
            elif isinstance(message, Grade | Prepare):
                files = self._store(message.suite_sha256).files(message.task)
                if isinstance(message, Grade):
                    for file in files:
                        file.stat()
                if message.suite_sha256 == inline.SUITE_SHA256:
                    mark_used(files)
                    self._held[message.number] = files

    def release(self, reports: Sequence[Report]) -> None:
        """Take that jobs are done."""
        for report in reports:
            if isinstance(report, Graded | Lost | Prepared):
                files = self._held.pop(report.number, [])
                if isinstance(report, Prepared) and not report.error:
                    for file in files:
                        with contextlib.suppress(OSError):
                            self._count(file.stat().st_size)

    def mark_held(self, now: float) -> None:
        """Mark what the jobs here need as used, if it is time; ``now`` is of a clock that nobody sets, in seconds."""
        if now - self._marked_at >= _MARKED_EVERY_S:
            self._marked_at = now
            for files in self._held.values():
                mark_used(files)

    def _count(self, size: int) -> None:
        self._untidied += 1
        self._untidied_bytes += size

    async def _tidy(self) -> None:
        if self._untidied < _TIDIED_AFTER and self._untidied_bytes < _TIDIED_AFTER_BYTES:
            return
        self._untidied = self._untidied_bytes = 0
        folder = self._store(inline.SUITE_SHA256).folder
        kept = [file for files in self._held.values() for file in files]
        await asyncio.to_thread(evict, folder, max_bytes=self._max_bytes, kept=kept)

    def names(self, job: Grade | Prepare) -> list[str]:
        """Return the names, in any cache folder, of what a job's task needs."""
        return [str(path.relative_to(self._cache)) for path in self._store(job.suite_sha256).files(job.task)]

    def _store(self, suite_sha256: str) -> BundleStore:
        store = self._stores.pop(suite_sha256, None)
        store = store or BundleStore(self._cache, suite_sha256, self._key)
        self._stores[suite_sha256] = store
        if len(self._stores) > _KEPT_STORES:
            self._stores.popitem(last=False)
        return store


def identity_of(folder: Path) -> str:
    """Name a folder so that it has the same name wherever on the same machine it is looked at, in any container."""
    folder.mkdir(parents=True, exist_ok=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    found = folder.stat()
    return f"{boot}:{found.st_dev}:{found.st_ino}"


def write_once(path: Path, data: bytes) -> None:
    """Write a file that is either there as a whole or not at all; of several writers on a node, one does it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent.parent / ".receiving"):
        if path.is_file():
            return
        handle, name = tempfile.mkstemp(prefix=".making-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock, which goes with the process that holds it."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
