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
from grader.worker.eviction import evict, mark_used
from grader.worker.messages import Cancel, Grade, Job, Prepare

_KEPT_STORES = 64
_TIDIED_AFTER = 256  # new files, before the folder is looked through again


class NodeFolder:
    """A node's cache folder, as an actor sees it; ``key`` names what programs find in the node's cells."""

    def __init__(self, cache: Path, key: str) -> None:
        self._cache, self._key = cache, key
        self._stores: OrderedDict[str, BundleStore] = OrderedDict()
        self._untidied = 0

    async def receive(self, files: Mapping[str, bytes]) -> None:
        """Write the files that are missing, by their names. Raises OSError where that is not possible."""
        for name, data in files.items():
            if not (self._cache / name).is_file():
                await asyncio.to_thread(write_once, self._cache / name, data)
                self._untidied += 1
        if self._untidied >= _TIDIED_AFTER:
            self._untidied = 0
            await asyncio.to_thread(evict, self._store(inline.SUITE_SHA256).folder)

    def require(self, messages: Sequence[Job | Cancel]) -> None:
        """Check that the expected answers of all tasks to be graded are here. Raises FileNotFoundError."""
        for message in messages:
            if isinstance(message, Grade):
                files = self._store(message.suite_sha256).files(message.task)
                for file in files:
                    file.stat()
                if message.suite_sha256 == inline.SUITE_SHA256:
                    mark_used(files)

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
