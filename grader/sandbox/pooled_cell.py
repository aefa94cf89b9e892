"""A cell that is another one from time to time: behind it are the cells of a warm pool.

To its owner it looks like one. A cell that has grown old or has served its samples is replaced, and in one-shot mode
after every run; when one is lost, its owner's next cell is a spare that is ready.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from grader.errors import CellLostError
from grader.sandbox.cell import Answers, Cell, Done, Event, RunLimits
from grader.sandbox.pool import Spare, WarmPool

_WAKE_S = 0.01  # while a run waits for a fresh cell


@dataclass(slots=True)
class _Request:
    number: int
    payloads: tuple[bytes, ...]
    limits: RunLimits
    options: dict[str, Any]


class PooledCell(Cell):
    """One worker's cell, which is another one from time to time; see ``Renewal``. Closing it leaves the pool."""

    def __init__(self, pool: WarmPool) -> None:
        self._pool = pool
        self._numbers = 0
        self._waiting: deque[_Request] = deque()
        self._running: dict[int, int] = {}  # the inner cell's number of a run, and ours
        self._cancelled: list[Event] = []
        self._memory: int | None = None
        self._inner: Cell | None = None
        try:
            self._adopt(pool.take())
        except BaseException:
            pool.leave()
            raise

    def _adopt(self, spare: Spare) -> None:
        """Go on with a fresh cell, and let the pool destroy the one before."""
        if self._inner is not None:
            self._pool.retire(self._inner)
        self._inner, self._made_at, self._started = spare.cell, spare.made_at, 0
        if self._memory is not None:
            self._inner.set_memory_limit(self._memory)
        self._describe()

    def _describe(self) -> None:
        inner = self._current
        self.backend, self.layers, self.hello = inner.backend, inner.layers, inner.hello
        self.wake_s, self.exact_clocks = inner.wake_s, inner.exact_clocks
        self.address_space, self.first_process = inner.address_space, inner.first_process

    @property
    def _current(self) -> Cell:
        if self._inner is None:
            raise CellLostError("this cell has been closed")
        return self._inner

    def start_run(
        self,
        payloads: tuple[bytes, ...],
        limits: RunLimits,
        *,
        group_sizes: tuple[int, ...],
        zygote: str = "plain",
        whole_program: bool = False,
    ) -> int:
        """Queue a run; returns its number. It waits here where the next cell is to have it."""
        self._numbers += 1
        options = {"group_sizes": group_sizes, "zygote": zygote, "whole_program": whole_program}
        self._waiting.append(_Request(self._numbers, payloads, limits, options))
        self._start_waiting()
        return self._numbers

    def _start_waiting(self) -> None:
        while self._waiting and self._has_room():
            request = self._waiting.popleft()
            self._started += 1
            inner = self._current.start_run(request.payloads, request.limits, **request.options)
            self._running[inner] = request.number
        self.wake_s = _WAKE_S if self._waiting and not self._running else self._current.wake_s

    def _has_room(self) -> bool:
        """Whether the cell at hand, or a fresh one in its place, may begin another run now."""
        renewal = self._pool.renewal
        if self._started < renewal.runs and time.monotonic() - self._made_at <= renewal.max_age_s:
            return True
        spare = None if self._running else self._pool.take_ready()
        if spare is None:
            return False  # the owner, who has more to look after, comes again
        self._adopt(spare)
        return True

    def kill_run(self, run: int) -> None:
        """End a run before its time; its ``Done`` still comes."""
        for request in self._waiting:
            if request.number == run:
                self._waiting.remove(request)
                self._cancelled.append(
                    Done(run, "cancelled", 0, 0, 0, 0.0, 0.0, 0, b"", b"", memory_kill=False)
                )
                return
        for inner, number in self._running.items():
            if number == run:
                self._current.kill_run(inner)

    def receive(self, timeout_s: float | None) -> list[Event]:
        """Wait for events; [] when the time is over. Raises CellLostError when the cell at hand is gone."""
        events, self._cancelled = self._cancelled, []
        if self.wake_s is not None:
            timeout_s = self.wake_s if timeout_s is None else min(timeout_s, self.wake_s)
        for event in self._current.receive(0 if events else timeout_s):
            number = self._running.get(event.run)
            if number is None:
                raise CellLostError(
                    f"the {self.backend} cell spoke of run {event.run}, which does not exist", blamed=True
                )
            events.append(event if number == event.run else replace(event, run=number))
            if not isinstance(event, Answers):
                del self._running[event.run]
        self._start_waiting()
        return events

    @property
    def reader(self) -> int:
        """The descriptor to wait on for what the cell at hand says; another one after each exchange."""
        return self._current.reader

    @property
    def writers(self) -> list[int]:
        """The descriptor to wait on while something is still to be written; [] otherwise."""
        return self._current.writers

    def check_alive(self) -> None:
        """Have the supervisor of the cell at hand say that it is there."""
        self._current.check_alive()

    def set_memory_limit(self, size: int) -> None:
        """Let the samples of this cell, and of those after it, use ``size`` bytes."""
        self._memory = size
        self._current.set_memory_limit(size)
        self._describe()

    def memory_kills(self) -> int:
        """How many processes of the cell at hand the kernel has killed for want of memory."""
        return self._current.memory_kills()

    def why_it_ended(self) -> str:
        """Say what is known of the end of the cell at hand."""
        return self._current.why_it_ended()

    def ended_from_outside(self) -> bool:
        """Whether the cell at hand was ended by somebody else."""
        return self._current.ended_from_outside()

    def close(self) -> None:
        """Have the cell at hand destroyed; the spares stay for this process's next ``PooledCell``."""
        if self._inner is not None:
            self._pool.retire(self._inner)
            self._inner = None
            self._pool.leave()
