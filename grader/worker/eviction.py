"""A bound on the disk that expected answers of inline tests take: the longest unused files go first.

Suites are few; inline tests come with every step of a training run, and their expected answers would fill the disk. To
remove a file is safe while others have it open or mapped: it lives until they let go of it. What must not be removed is
a file that somebody is about to open: those are named by the caller, and what was used lately is never removed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path

MAX_BYTES = 4 << 30
KEPT_S = 600.0
"""Wall-clock seconds in which a file that was used is not removed, whatever the bound says."""

_DOWN_TO = 0.9  # so that not every new file makes the folder to be looked through again
_HALF_MADE = ".making-"


def mark_used(files: Iterable[Path]) -> None:
    """Note that files are used now: by their time of modification, since times of access are often switched off."""
    for file in files:
        with contextlib.suppress(OSError):  # gone, or another user's: then it is not ours to remove either
            os.utime(file)


def evict(
    folder: Path,
    *,
    max_bytes: int = MAX_BYTES,
    kept: Collection[Path] = (),
    kept_s: float = KEPT_S,
    now: float | None = None,
) -> int:
    """Remove the longest unused files of a folder where they are more than ``max_bytes`` together.

    ``kept`` names files that somebody is about to open; ``now`` is in seconds since the epoch. Several processes may do
    this at the same time. Blocks while the folder is read. Returns the bytes removed; never raises for a file that
    cannot be removed.
    """
    now = time.time() if now is None else now
    found = _files(folder)
    total = sum(size for _, size, _ in found)
    if total <= max_bytes:
        return 0
    keep = {str(file) for file in kept}
    removed = 0
    for used_at, size, path in sorted(found):
        if total - removed <= _DOWN_TO * max_bytes or used_at > now - kept_s:
            break
        if path not in keep and _is_unused_since(path, used_at):
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108 - tens of thousands of them
                removed += size
    return removed


def _files(folder: Path) -> list[tuple[float, int, str]]:
    """Time of last use, size and path of each whole file."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if not entry.name.startswith(_HALF_MADE) and entry.is_file(follow_symlinks=False):
                    about = entry.stat(follow_symlinks=False)
                    found.append((about.st_mtime, about.st_size, entry.path))
    return found


def _is_unused_since(path: str, used_at: float) -> bool:
    """Whether nobody has used it since the folder was read."""
    try:
        return os.stat(path).st_mtime == used_at  # noqa: PTH116
    except OSError:
        return False
