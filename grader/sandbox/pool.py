"""A warm pool of cells: made, looked after, replaced and destroyed by a thread, so that no sample waits for any of it.

``PooledCell`` looks like one cell to its owner. Behind it cells change: when one has grown old or has served its
samples, and in one-shot mode after every run. When one is lost, its owner's next cell is a spare that is ready.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

from grader.errors import CellLostError, InfrastructureError, SandboxError
from grader.sandbox.cell import Answers, Cell, Done, Event, RunLimits

_LOOK_S = 0.5  # between two looks at the spares
_TRY_AGAIN_S = 0.5
_WAKE_S = 0.01  # while a run waits for a fresh cell
_LINGER_S = 10.0  # a pool that nobody uses ends

_log = logging.getLogger("grader.sandbox")


@dataclass(frozen=True, slots=True)
class Renewal:
    """When cells are replaced by fresh ones. Raises ValueError for numbers that make no sense.

    ``one_shot``: after every run of a program; a sample whose tests are whole programs has a run for each test, and
    each gets a cell of its own. ``max_age_s`` (wall-clock seconds) and ``max_runs`` limit all others. ``spares`` is how
    many cells are kept ready for each worker, from ``spares_after_s`` seconds after its first cell on: so a short run
    need not share its processors with the start of cells that it will not use. A cell is never taken from a sample
    that runs.
    """

    one_shot: bool = False
    max_age_s: float = 3600.0
    max_runs: int = 10_000
    spares: int = 1
    spares_after_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.max_age_s > 0 and self.max_runs > 0 and self.spares > 0):
            raise ValueError(f"max_age_s, max_runs and spares must be positive: {self}")
        if not self.spares_after_s >= 0:
            raise ValueError(f"spares_after_s is a number of seconds: {self}")

    @property
    def runs(self) -> int:
        """How many runs a cell serves at the most."""
        return 1 if self.one_shot else self.max_runs


@dataclass(slots=True)
class Spare:
    """A cell that is ready, and when it was made (monotonic seconds)."""

    cell: Cell
    made_at: float


class WarmPool:
    """Keeps cells ready. ``make`` makes one, is called in the pool's thread, and raises SandboxError.

    ``patience_s`` is how long making a cell may fail before ``take`` gives up, e.g. while a daemon is being restarted.
    """

    def __init__(self, make: Callable[[], Cell], renewal: Renewal, *, patience_s: float = 60.0) -> None:
        self._make, self.renewal, self._patience_s = make, renewal, patience_s
        self._changed = threading.Condition()
        self._spares: deque[Spare] = deque()
        self._retired: deque[Cell] = deque()
        self._failing_since: float | None = None
        self._error = ""
        self._ending = False
        self._first_taken_at: float | None = None
        self._asked_for = False  # a cell, by somebody who found none
        self._unused_since = self._looked_at = time.monotonic()
        self._users = 0
        self._thread = threading.Thread(target=self._keep, name="warm-pool", daemon=True)
        self._thread.start()

    def enter(self) -> bool:
        """Become a user of the pool; returns whether it still is one. Ten seconds after the last user it ends."""
        with self._changed:
            self._users += not self._ending
            return not self._ending

    def leave(self) -> None:
        """Use the pool no longer."""
        with self._changed:
            self._users -= 1
            self._unused_since = time.monotonic()

    def take(self) -> Spare:
        """Wait for a cell that is ready; it is the caller's. Raises SandboxError if none can be had."""
        with self._changed:
            while True:
                spare = self.take_ready()
                if spare is not None:
                    return spare
                self._changed.wait(_TRY_AGAIN_S)

    def take_ready(self) -> Spare | None:
        """Return a cell if one is ready, as ``take`` does; never waits for one."""
        with self._changed:
            if self._spares:
                self._changed.notify_all()
                self._asked_for = False
                self._first_taken_at = self._first_taken_at or time.monotonic()
                return self._spares.popleft()
            if not self._asked_for:
                self._asked_for = True
                self._changed.notify_all()
            if self._ending:
                raise SandboxError("the pool of cells has been closed")
            failing = self._failing_since
            if failing is not None and time.monotonic() - failing >= self._patience_s:
                raise SandboxError(f"no cell could be made for {self._patience_s:.0f} s: {self._error}")
            return None

    def retire(self, cell: Cell) -> None:
        """Have a cell destroyed."""
        with self._changed:
            if not self._ending:
                self._retired.append(cell)
                self._changed.notify_all()
                return
        cell.close()

    def close(self) -> None:
        """Destroy what is in the pool; may be called twice."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()

    # In the pool's thread.

    def _keep(self) -> None:
        try:
            while not self._step():
                pass
        finally:
            with self._changed:
                self._ending = True
                cells = [*self._retired, *(spare.cell for spare in self._spares)]
                self._retired.clear()
                self._spares.clear()
                self._changed.notify_all()
            for cell in cells:
                _destroy(cell)

    def _step(self) -> bool:
        """Do what is most wanted; returns whether it is time to end."""
        with self._changed:
            if not self._users and time.monotonic() - self._unused_since > _LINGER_S:
                self._ending = True
            if self._ending:
                return True
            wanted = len(self._spares) < self._wanted()
            if not wanted and not self._retired:
                self._changed.wait(_LOOK_S)
            retired = self._retired.popleft() if self._retired and not wanted else None
        if retired is not None:
            _destroy(retired)
        elif wanted:
            self._add()
        if time.monotonic() - self._looked_at >= _LOOK_S:
            self._looked_at = time.monotonic()
            self._check_spares()
        return False

    def _wanted(self) -> int:
        """How many cells are to be ready now."""
        first = self._first_taken_at
        if first is not None and time.monotonic() - first >= self.renewal.spares_after_s:
            return self.renewal.spares
        return 1 if self._asked_for else 0

    def _add(self) -> None:
        try:
            spare = Spare(self._make(), time.monotonic())
        except Exception as error:
            if not isinstance(error, InfrastructureError):
                # Whoever waits for a cell is to hear of it, and the next one may be made.
                _log.exception("a cell could not be made for a reason that was not foreseen")
            with self._changed:
                self._error = str(error) or repr(error)
                self._failing_since = self._failing_since or time.monotonic()
                self._changed.notify_all()
                if not self._ending:
                    self._changed.wait(_TRY_AGAIN_S)
            return
        with self._changed:
            self._failing_since = None
            self._spares.append(spare)
            self._changed.notify_all()

    def _check_spares(self) -> None:
        """Take one spare after the other out, and put it back if it is young and answers."""
        for _ in range(len(self._spares)):
            with self._changed:
                if not self._spares:
                    return
                spare = self._spares.popleft()
            if self._is_fit(spare):
                with self._changed:
                    self._spares.append(spare)
                    self._changed.notify_all()
            else:
                _destroy(spare.cell)

    def _is_fit(self, spare: Spare) -> bool:
        if time.monotonic() - spare.made_at > self.renewal.max_age_s:
            return False
        try:
            spare.cell.check_alive()
            return not spare.cell.receive(0)  # no run, so no event of one
        except CellLostError:
            return False
        except Exception:
            _log.exception("a spare cell could not be looked at for a reason that was not foreseen")
            return False


def _destroy(cell: Cell) -> None:
    try:
        cell.close()
    except Exception:
        _log.exception("a cell could not be destroyed")


_pools: dict[Hashable, WarmPool] = {}


def entered(key: Hashable, make: Callable[[], Cell], renewal: Renewal, patience_s: float) -> WarmPool:
    """Return this process's pool of that key, entered: so the owner of a lost cell finds the spare that there was."""
    pool = _pools.get(key)
    if pool is None or not pool.enter():
        pool = _pools[key] = WarmPool(make, renewal, patience_s=patience_s)
        pool.enter()
    return pool


@atexit.register
def close_all() -> None:
    """End all pools of this process."""
    while _pools:
        _pools.popitem()[1].close()


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
