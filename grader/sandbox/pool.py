"""A warm pool of cells: made, looked after, replaced and destroyed by a thread, so that no sample waits for any of it.

Their owners see them through ``grader.sandbox.pooled_cell``.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from grader.errors import CellLostError, InfrastructureError, SandboxError
from grader.sandbox.cell import Cell
from grader.sandbox.renewal import Renewal

_LOOK_S = 0.5  # between two looks at the spares
_TRY_AGAIN_S = 0.5
_LINGER_S = 10.0  # a pool that nobody uses ends

_log = logging.getLogger("grader.sandbox")


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
        except Exception as error:
            if not isinstance(error, CellLostError):
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
