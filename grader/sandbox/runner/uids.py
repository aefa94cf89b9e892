"""One user id for each process of a run, where the host forbids user namespaces: the weaker way to part samples.

The runner is then user 0 of its container with three capabilities and no other: SETUID and SETGID to become a sample's
user, KILL to end a sample, which is somebody else's process. It has none that reaches files: what a user has left is
removed by a process of that user. A user id is used again when nothing of it is left, and that is looked up, not
assumed; a cell in which something is left fails, and is destroyed.
"""

# ruff: noqa: PTH208 - pathlib costs 10 ms at each start

from __future__ import annotations

import os
from collections import deque

from . import kernel, scratch
from .wire import SCRATCH

_ENGINE_QUEUES = "/dev/mqueue"
_SYSTEM_V = ("shm", "sem", "msg")
_OWNER_COLUMNS = ("uid", "cuid")


class Users:
    """The user ids of a cell. ``first`` is the lowest; no other cell of the machine may use them at the same time,
    since the kernel counts processes by user."""

    def __init__(self, first: int, count: int) -> None:
        self._free = deque(range(first, first + count))
        self._lent: list[int] = []

    def lend(self, count: int) -> list[int]:
        """Return the user ids for the processes of a run."""
        self._lent = [self._free.popleft() for _ in range(count)]
        return self._lent

    def take_back(self) -> None:
        """Remove what the users of the last run have left. Raises OSError if anything stays."""
        for user in self._lent:
            _remove_files_of(user)
        for user in self._lent:
            left = traces_of(user)
            if left:
                raise OSError(f"user {user} is not gone: {', '.join(left[:3])}")
        if os.listdir(SCRATCH):
            raise OSError(f"{SCRATCH} is not empty")
        self._free.extend(self._lent)
        self._lent = []


def become(user: int) -> None:
    """Turn this process, which has the capabilities for it, into the user's; that ends them."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _remove_files_of(user: int) -> None:
    if not os.listdir(SCRATCH):
        return
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            become(user)
            kernel.drop_capabilities()
            scratch.remove_own(SCRATCH)
            status = 0
        finally:
            os._exit(status)
    os.waitpid(pid, 0)  # whether it was done is looked up


def traces_of(user: int) -> list[str]:
    """Say what there is of a user: processes, files, System V objects, message queues."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and user in _users_of(entry):
            found.append(f"process {entry}")
    for folder in (SCRATCH, _ENGINE_QUEUES):
        if os.path.isdir(folder):  # noqa: PTH112
            names = os.listdir(folder)
            found += [f"{folder}/{name}" for name in names if _owner(f"{folder}/{name}") == user]
    for kind in _SYSTEM_V:
        found += [f"{kind} {row}" for row in _rows_of(user, f"/proc/sysvipc/{kind}")]
    return found


def _owner(path: str) -> int:
    try:
        return os.lstat(path).st_uid
    except FileNotFoundError:
        return -1


def _users_of(pid: str) -> list[int]:
    """The real, effective, saved and file system user of a process; its folder belongs to root whoever it is."""
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
            (line,) = [line for line in file if line.startswith("Uid:")]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for word in line.split()[1:]]


def _rows_of(user: int, table: str) -> list[str]:
    try:
        with open(table) as file:  # noqa: PTH123
            names, *rows = (line.split() for line in file)
    except FileNotFoundError:
        return []
    columns = [names.index(name) for name in _OWNER_COLUMNS]
    return [row[1] for row in rows if any(row[column] == str(user) for column in columns)]
