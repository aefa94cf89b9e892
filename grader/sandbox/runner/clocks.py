"""Since when a run's limits count, and what of the time since then the run has spent idle."""

from __future__ import annotations

import os

from . import threads


class Span:
    """A step (the load of the program, or one test) or a group of tests: where the clocks stood when it began.

    Idle time is wall-clock time less the time in which a thread ran, or was ready and waited for a processor: a busy
    machine makes a program slower, not idle. Time that the supervisor took for itself is excused.
    """

    __slots__ = ("cpu", "delay", "wall", "work")

    def __init__(self) -> None:
        self.cpu = self.wall = self.delay = self.work = 0.0

    def begin(self, cpu: float, wall: float, delay: float, work: float) -> None:
        """Begin, where the clocks stand now."""
        self.cpu, self.wall, self.delay, self.work = cpu, wall, delay, work

    def idle(self, cpu: float, wall: float, delay: float) -> float:
        """Return the idle seconds since it began, given where the clocks stand now."""
        return (wall - self.wall) - (cpu - self.cpu) - (delay - self.delay)


class RunDelay:
    """For how long a run was ready and waited for a processor (proc's schedstat): of each of its processes, the thread
    that waited longest. Their sum would let a crowd of threads sleep on the credit of a busy machine.

    A program that prints waits while the supervisor waits for a processor, too.
    """

    def __init__(self, proc: int) -> None:
        self._proc = proc
        self._total = self._seen = 0
        self._own_before: int | None = None

    def begin(self) -> None:
        """Count what the supervisor waits from here on; most runs end before that is worth a look."""
        if self._own_before is None:
            self._own_before = threads.delay_ns(os.getpid(), self._proc)

    def seconds(self, pids: list[int]) -> float:
        """Return the seconds until now."""
        seen = sum(threads.longest_delay_ns(pid, self._proc) for pid in pids)
        if self._own_before is not None:
            seen += threads.delay_ns(os.getpid(), self._proc) - self._own_before
        self._total += max(
            0, seen - self._seen
        )  # less than before: a thread has ended, and what it had waited is gone
        self._seen = seen
        return self._total / 1e9
