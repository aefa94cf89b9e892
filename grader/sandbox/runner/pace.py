"""How much work a second of CPU time was worth, so that a limit in seconds is the same limit at every moment.

A processor that shares its core with another thread, or its host with another guest, does the same work in up to twice
the CPU time for seconds at a time, and none of the clocks of a process shows it. What shows it is to do some work:
whoever watches a long run goes to the processor on which it computes, now and then, and times a short loop there.
(``loadtest/bench_pace.py`` shows how much of it is left. On another processor than the run's, the loop shows nothing.)
"""

from __future__ import annotations

import os
import time

EVERY_S = 0.05  # of a run's CPU time; the loop takes half a hundredth of it
# Of a limit, whichever is less: shorter runs are not near it, and there are many.
_FROM_S, _FROM_SHARE = 0.2, 0.25
MOST = 1.9  # how many times its nominal CPU time a program may have, whatever is measured
_WARM_UP_ROUNDS, _ROUNDS = 400, 4000
_FIRST_LOOPS = 3


class Pace:
    """Times loops, and remembers the fastest."""

    def __init__(self) -> None:
        self._processors = os.sched_getaffinity(0)
        self._best_s = min(_loop_seconds() for _ in range(_FIRST_LOOPS))

    def slowness_of(self, processor: int) -> float | None:
        """How many times as long as the fastest loop one takes on a processor now; None where we may not go there."""
        try:
            os.sched_setaffinity(0, {processor})
        except OSError:
            return None
        try:
            loop_s = _loop_seconds()
        finally:
            self._go_back()
        self._best_s = min(self._best_s, loop_s)
        return loop_s / self._best_s

    def _go_back(self) -> None:
        try:
            os.sched_setaffinity(0, self._processors)
        except OSError:  # the control group has other processors since: all that it has now
            os.sched_setaffinity(0, range(os.cpu_count() or 1))


class WorkClock:
    """The CPU seconds of a run, as many as they had been on the processor at its fastest."""

    def __init__(self, limit_s: float) -> None:
        self._work_s = self._noted_at = 0.0
        self._slowness = 1.0
        self._from_s = min(_FROM_S, _FROM_SHARE * limit_s)

    def is_due(self, cpu: float) -> bool:
        """Whether a loop should be timed, at these CPU seconds of the run."""
        return cpu - self._noted_at > (EVERY_S if self._noted_at else self._from_s)

    def note(self, cpu: float, slowness: float) -> None:
        """Take how slow the processor was in the time before these CPU seconds of the run."""
        self._work_s += max(0.0, cpu - self._noted_at) / slowness
        self._noted_at = max(cpu, self._noted_at)
        self._slowness = slowness

    def seconds(self, cpu: float) -> float:
        """Return the work until these CPU seconds of the run."""
        return self._work_s + max(0.0, cpu - self._noted_at) / self._slowness

    @property
    def slowness(self) -> float:
        """How slow the processor was on average, from the beginning to when a loop was last timed."""
        return self._noted_at / self._work_s if self._work_s else 1.0


def is_over(limit_s: float, used_s: float, work_s: float) -> bool:
    """Whether a limit is exceeded by so many CPU seconds, and by the work done in them."""
    return used_s > limit_s and (work_s > limit_s or used_s > MOST * limit_s)


def _loop_seconds() -> float:
    _work(_WARM_UP_ROUNDS)
    began = time.thread_time()
    _work(_ROUNDS)
    return max(time.thread_time() - began, 1e-9)


def _work(rounds: int) -> int:
    total = 0
    for number in range(rounds):
        total = total + number * 3 & 1023
    return total
