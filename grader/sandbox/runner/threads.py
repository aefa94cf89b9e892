"""What the kernel tells of processes and threads: proc_pid_stat(5), and schedstat of Documentation/scheduler.

``proc`` is a descriptor of a /proc that samples cannot see, or negative where there is none: then nothing is known.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_PF_EXITING = 0x4  # flags, field 9; linux/sched.h
_FLAGS, _PROCESSOR = 6, 36  # fields 9 and 39, counted from the state, field 3


def is_stopped(pid: int, proc: int) -> bool:
    """Whether a signal has stopped a process."""
    return _stat(pid, proc)[:1] == b"T"


def is_exiting(pid: int, proc: int) -> bool:
    """Whether a process is at its end: all of its threads. The first one can end alone and leave the others behind."""
    return all(int(stat.split()[_FLAGS]) & _PF_EXITING for stat in _thread_stats(pid, proc))


def states(pid: int, proc: int) -> bytes:
    """The states of a process's threads, a letter each: R runs or waits for a processor, D waits inside the kernel (for
    a disk, a lock), S sleeps."""
    return b"".join(stat[:1] for stat in _thread_stats(pid, proc))


def processor_of(pids: list[int], proc: int) -> int | None:
    """Return the processor of a thread of these processes that runs or waits for one; None where there is none."""
    for pid in pids:
        for stat in _thread_stats(pid, proc):
            if stat[:1] == b"R":
                return int(stat.split()[_PROCESSOR])
    return None


def delay_ns(pid: int, proc: int) -> int:
    """Nanoseconds that a process's first thread has been ready and waited for a processor since it was made."""
    return _delay_ns(str(pid), proc)


def longest_delay_ns(pid: int, proc: int) -> int:
    """The same of that thread of a process that has waited longest."""
    with _tasks(pid, proc) as (folder, threads):
        return max((_delay_ns(thread, folder) for thread in threads), default=0)


@contextlib.contextmanager
def _tasks(pid: int, proc: int) -> Iterator[tuple[int, list[str]]]:
    """The folder of a process's threads, and their names; none where it cannot be seen."""
    try:
        folder = os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc)
    except OSError:
        yield -1, []
        return
    try:
        yield folder, os.listdir(folder)  # noqa: PTH208 - a descriptor
    finally:
        os.close(folder)


def _thread_stats(pid: int, proc: int) -> Iterator[bytes]:
    with _tasks(pid, proc) as (folder, threads):
        yield from (stat for thread in threads if (stat := _stat(thread, folder)))


def _stat(number: int | str, folder: int) -> bytes:
    """A process's or thread's fields from its state on; empty where it cannot be seen."""
    return _read(f"{number}/stat", folder).rpartition(b") ")[2]


def _delay_ns(thread: str, folder: int) -> int:
    fields = _read(f"{thread}/schedstat", folder).split()
    return int(fields[1]) if len(fields) > 1 else 0


def _read(path: str, folder: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY, dir_fd=folder)
    except OSError:
        return b""
    try:
        return os.read(handle, 1000)
    except ProcessLookupError:
        return b""
    finally:
        os.close(handle)
