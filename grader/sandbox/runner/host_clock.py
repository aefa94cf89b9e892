"""CPU time where the kernel inside counts time in which a thread only waits for a processor (gVisor).

gVisor's clocks run while a task is runnable, since it cannot see when the host lets another process run instead. The
worker can: it tells the supervisor, every few hundredths of a second, how much CPU time the whole container has used by
the host's count. Where that is less than what the processes here believe to have used, their clocks are slowed down.
"""

from __future__ import annotations

_SHORTEST_S = (
    0.02  # of CPU time between two ticks, for a ratio worth having: gVisor counts in steps of 0.01 s
)


class HostClock:
    """Turns the CPU time that a run's clocks show into what it can have been."""

    def __init__(self) -> None:
        self._ratio = 1.0  # outlives a run: how busy the machine is does not change with it
        self.begin()

    def begin(self) -> None:
        """Start a run, whose clocks show 0."""
        self._host: float | None = None
        self._shown = self._corrected = self._shown_at_tick = 0.0

    def tick(self, host: float, shown: float) -> None:
        """Take the container's CPU seconds by the host's count, and what the run's clocks show now."""
        self.corrected(shown)
        passed = shown - self._shown_at_tick
        if self._host is not None and passed < _SHORTEST_S:
            return
        if self._host is not None:
            self._ratio = min(1.0, max(0.0, host - self._host) / passed)
        self._host, self._shown_at_tick = host, shown

    def corrected(self, shown: float) -> float:
        """Return the run's CPU seconds, given what its clocks show."""
        self._corrected += max(0.0, shown - self._shown) * self._ratio
        self._shown = max(self._shown, shown)
        return self._corrected

    @property
    def waited(self) -> float:
        """Seconds for which the run's threads were ready and waited for a processor."""
        return self._shown - self._corrected
