"""Empty the scratch folder between two runs, in a cell whose samples cannot have one each."""

from __future__ import annotations

import os
import stat

MOST_ENTRIES = 4096  # as many as a sample's own file system has room for, where it has one


class TooMuchError(Exception):
    """There is more in the folder than is worth removing: to make a new cell is quicker."""


def empty(folder: str) -> None:
    """Remove everything below a folder, however deep and whatever its modes, and make it private again.

    Raises OSError if something stays, TooMuchError where that would take long; what is left then is anywhere.

    A sample can nest folders deeper than a path can be long, or than a recursion can go. So what is in a sub-folder
    is moved up, next to it, until there is nothing but files and empty folders.
    """
    os.chmod(folder, 0o700)  # noqa: PTH101 - as the engine made it; a sample may change it
    remove_own(folder)


def remove_own(folder: str) -> None:
    """Remove everything below a folder in which everything is this user's. Raises as ``empty`` does."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        moved = removed = 0
        fresh = os.urandom(8).hex()  # drawn when the sample is gone: it has no file of that name
        names = _names(handle)
        while names:
            name = names.pop()
            removed += 1
            if removed > MOST_ENTRIES:
                raise TooMuchError(f"a sample left more than {MOST_ENTRIES} files and folders")
            if not _is_folder(handle, name):
                os.unlink(name, dir_fd=handle)
                continue
            for inner in _names_below(handle, name):
                moved += 1
                target = f"{fresh}-{moved}"
                if _is_folder(handle, f"{name}/{inner}"):  # who moves one must be allowed to write to it
                    os.chmod(f"{name}/{inner}", 0o700, dir_fd=handle)
                os.rename(f"{name}/{inner}", target, src_dir_fd=handle, dst_dir_fd=handle)
                names.append(target)
            os.rmdir(name, dir_fd=handle)
        left = _names(handle)
    finally:
        os.close(handle)
    if left:
        raise OSError(f"{folder} is not empty: {left[:3]}")


def _is_folder(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _names_below(parent: int, name: str) -> list[str]:
    os.chmod(name, 0o700, dir_fd=parent)
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        return _names(handle)
    finally:
        os.close(handle)


def _names(handle: int) -> list[str]:
    return os.listdir(handle)
