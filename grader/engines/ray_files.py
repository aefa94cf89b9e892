"""Expected answers in a cluster: made once, and brought to each cache folder once, however many workers share it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from grader.engines.ray_node import NodeFolder, identity_of, write_once
from grader.suites import inline
from grader.worker.bundle import BundleStore
from grader.worker.eviction import KEPT_S
from grader.worker.messages import Cancel, Grade, Job, Lost, Prepare, Report

_KEPT_NAMES = 20_000  # a folder; inline tests bring ever new ones
# A node does not remove what was used in the last KEPT_S; the rest is for the way there.
_TRUSTED_S = KEPT_S / 2


class ClusterFiles:
    """Which files of the cache folder which nodes have. ``cache`` is the folder here, where all of them are.

    Folders go by their identity, so that a folder that nodes share, with each other or with this machine, counts once.
    """

    def __init__(self, cache: Path, key: str) -> None:
        self._cache = cache
        self._own = identity_of(cache)
        self._folder = NodeFolder(cache, key)
        # When each was last used there; what nodes remove is in a folder of its own.
        self._at: defaultdict[str, OrderedDict[str, float]] = defaultdict(OrderedDict)
        self._removable = str(BundleStore(cache, inline.SUITE_SHA256, key).folder.relative_to(cache)) + "/"

    def names(self, job: Grade | Prepare) -> list[str]:
        """Return the names, in a cache folder, of what a job's task needs."""
        return self._folder.names(job)

    def missing(self, folder: str, names: Iterable[str], now: float | None = None) -> set[str]:
        """Return those of the names that a folder is not known to have; the others are used there now.

        ``now`` is of a clock that nobody sets, in seconds.
        """
        if folder == self._own:
            return set()
        now = time.monotonic() if now is None else now
        known, missing = self._at[folder], set()
        for name in names:
            used_at = known.get(name)
            if used_at is None or (name.startswith(self._removable) and now - used_at > _TRUSTED_S):
                missing.add(name)
            else:
                known[name] = now
                known.move_to_end(name)
        return missing

    def note(self, folder: str, names: Iterable[str], now: float | None = None) -> None:
        """Note that a folder has files now; ``now`` as in ``missing``."""
        if folder == self._own:
            return
        known = self._at[folder]
        known.update(dict.fromkeys(names, time.monotonic() if now is None else now))
        while len(known) > _KEPT_NAMES:
            known.popitem(last=False)

    def forget(self, folder: str) -> None:
        """Note that nothing is certain of what a folder has; it is not sent again what it has after all."""
        self._at.pop(folder, None)

    def is_here(self, folder: str) -> bool:
        """Whether a folder is this machine's own."""
        return folder == self._own

    def content(self, name: str) -> bytes:
        """Return a file's content. Raises OSError where it cannot be read."""
        return (self._cache / name).read_bytes()

    def enclosed(
        self, folder: str, messages: Sequence[Job | Cancel]
    ) -> tuple[list[Job | Cancel], dict[str, bytes], list[Report]]:
        """Return which of the messages can be sent to a folder's worker, the files that it needs for them, and that the
        other jobs are lost: their expected answers cannot be read here."""
        sent, files, lost = list[Job | Cancel](), dict[str, bytes](), list[Report]()
        for message in messages:
            try:
                if isinstance(message, Grade) and not self.is_here(folder):
                    names = self.missing(folder, self.names(message)) - files.keys()
                    files |= {name: self.content(name) for name in sorted(names)}
            except OSError as error:
                assert isinstance(message, Grade)
                lost.append(Lost(message.number, False, f"expected answers cannot be read: {error}"))
            else:
                sent.append(message)
        return sent, files, lost

    async def receive(self, names: Sequence[str], contents: Sequence[bytes]) -> None:
        """Write files that were made on a node into the folder here. Raises OSError where that is not possible."""
        for name, data in zip(names, contents, strict=True):
            await asyncio.to_thread(write_once, self._cache / name, data)
