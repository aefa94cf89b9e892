"""Expected answers in a cluster: made once, and brought to each cache folder once, however many workers share it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grader.engines.ray_actor import identity_of, write_once
from grader.worker.bundle import BundleStore
from grader.worker.messages import Grade, Prepare

if TYPE_CHECKING:
    from ray import ObjectRef

_KEPT_BYTES = 256 << 20  # in Ray's object store, for nodes that have not got them yet
_KEPT_STORES = 64


class NodeFiles:
    """Which files of the cache folder which nodes have. ``cache`` is the folder here, where all of them are.

    Folders go by their identity, so that a folder that nodes share, with each other or with this machine, counts once.
    """

    def __init__(self, cache: Path, key: str) -> None:
        self._cache, self._key = cache, key
        self._own = identity_of(cache)
        self._at: defaultdict[str, set[str]] = defaultdict(set)
        self._stores: OrderedDict[str, BundleStore] = OrderedDict()
        self._references: OrderedDict[str, tuple[ObjectRef[bytes], int]] = OrderedDict()

    def names(self, job: Grade | Prepare) -> list[str]:
        """Return the names, in a cache folder, of what a job's task needs."""
        store = self._stores.pop(job.suite_sha256, None)
        store = store or BundleStore(self._cache, job.suite_sha256, self._key)
        self._stores[job.suite_sha256] = store
        if len(self._stores) > _KEPT_STORES:
            self._stores.popitem(last=False)
        return [str(path.relative_to(self._cache)) for path in store.files(job.task)]

    def missing(self, folder: str, names: Iterable[str]) -> set[str]:
        """Return those of the names that a folder is not known to have."""
        return set() if folder == self._own else set(names) - self._at[folder]

    def note(self, folder: str, names: Iterable[str]) -> None:
        """Note that a folder has files now."""
        if folder != self._own:
            self._at[folder].update(names)

    def is_here(self, folder: str) -> bool:
        """Whether a folder is this machine's own."""
        return folder == self._own

    def reference(self, name: str) -> ObjectRef[bytes]:
        """Return a reference to a file's content for other nodes; the least used ones are dropped. Reads the file.

        Raises OSError where it cannot be read.
        """
        import ray

        found = self._references.pop(name, None)
        if found is None:
            data = (self._cache / name).read_bytes()
            found = ray.put(data), len(data)
        self._references[name] = found
        while len(self._references) > 1 and sum(size for _, size in self._references.values()) > _KEPT_BYTES:
            self._references.popitem(last=False)
        return found[0]

    async def receive(self, names: Sequence[str], contents: Sequence[bytes]) -> None:
        """Write files that were made on a node into the folder here. Raises OSError where that is not possible."""
        for name, data in zip(names, contents, strict=True):
            await asyncio.to_thread(write_once, self._cache / name, data)
