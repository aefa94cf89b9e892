"""The workers as the dispatcher sees them: what each holds, and which of them is to have the next item."""

from __future__ import annotations

from collections.abc import Collection

from grader.dispatch.heaps import LazyHeap
from grader.dispatch.queues import Entry


class Worker:
    """One worker. ``held`` are its items, the oldest first, ``load_s`` their estimated cost in seconds of a worker.

    ``wants`` says that there is room for more; ``silent`` that it gives no sign of life. ``since`` is when it last
    ended an item, or got one after having none; ``stuck`` that this was long ago, so that it gets nothing more.
    """

    __slots__ = ("held", "load_s", "name", "node", "silent", "since", "stuck", "wants")

    def __init__(self, name: str, node: str) -> None:
        self.name = name
        self.node = node
        self.held: dict[int, Entry] = {}
        self.load_s = 0.0
        self.wants = True
        self.silent = False
        self.since = 0.0
        self.stuck = False

    @property
    def open(self) -> bool:
        """Whether it is to be given items."""
        return self.wants and not self.silent and not self.stuck


class Crew:
    """All workers. One is filled up to ``batch_s`` of estimated work, and again when half of that is done.

    So fast items travel in batches, and slow ones one by one. A worker gets up to ``min_in_flight`` items, so that it
    does not wait for the next one to arrive, but nothing on top of ``alone_s``: what waits behind that could be begun
    elsewhere. It is taken back from one that turns out to be ``stuck``. ``now`` is the time, in seconds.
    """

    def __init__(self, batch_s: float, min_in_flight: int, alone_s: float) -> None:
        self._batch_s = batch_s
        self._alone_s = alone_s
        self._min_in_flight = min_in_flight
        self._workers: dict[str, Worker] = {}
        self._by_load: LazyHeap[Worker] = LazyHeap(lambda worker: worker.load_s if worker.open else None)
        self._changed: dict[Worker, None] = {}  # since they were last looked for, in this order
        self._reachable = 0
        self.running = 0
        self.now = 0.0

    def __len__(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    @property
    def busy(self) -> int:
        """How many workers that can be reached have items."""
        return sum(bool(worker.held) and not worker.silent for worker in self._workers.values())

    def get(self, name: str) -> Worker | None:
        """Return the worker of this name, if there is one."""
        return self._workers.get(name)

    def ready(self, name: str, node: str) -> None:
        """Add a worker, or note that one wants items again."""
        worker = self._workers.get(name)
        if worker is None:
            worker = self._workers[name] = Worker(name, node)
            self._reachable += 1
        self.set_silent(worker, silent=False)
        self._by_load.push(worker)

    def remove(self, worker: Worker) -> list[Entry]:
        """Take out a worker that is gone; return what it held, the oldest first."""
        del self._workers[worker.name]
        held = list(worker.held.values())
        for entry in held:
            self.release(worker, entry)
        self._reachable -= not worker.silent
        worker.wants = False
        return held

    def set_silent(self, worker: Worker, *, silent: bool) -> None:
        """Note whether a worker gives signs of life."""
        if worker.silent != silent:
            worker.silent = silent
            self._reachable += -1 if silent else 1
            self._by_load.push(worker)

    def find_stuck(self, after_s: float) -> tuple[list[Worker], float | None]:
        """Return the workers that have been at an item for ``after_s``, and when the next may be; None if that cannot
        be. They are for ``take_back``.

        One that is stuck already is found again while it has more than that item (copies). A silent worker's items are
        hedged instead. O(workers).
        """
        found, next_at = [], None
        for worker in self._workers.values():
            if len(worker.held) <= worker.stuck:
                continue
            at = worker.since + after_s
            if at <= self.now and not worker.silent:
                found.append(worker)
            elif next_at is None or at < next_at:
                next_at = at
        return found, next_at

    def take_back(self, worker: Worker) -> list[Entry]:
        """Take from a worker what waits behind the item that it is at, but for copies; return that.

        It gets nothing more until it has ended that item.
        """
        waiting = [entry for entry in list(worker.held.values())[1:] if len(entry.holders) == 1]
        for entry in waiting:
            self.release(worker, entry)
        worker.stuck = True
        return waiting

    def hold(self, worker: Worker, entry: Entry) -> None:
        """Note that a worker has an item."""
        if not worker.held:
            worker.since = self.now
        worker.held[entry.item.number] = entry
        worker.load_s += entry.charge_s
        self.running += not entry.holders
        entry.holders += (worker,)
        self._note(worker)

    def release(self, worker: Worker, entry: Entry) -> None:
        """Note that a worker has an item no more."""
        del worker.held[entry.item.number]
        worker.since = self.now
        worker.stuck = False
        # Sums of floats do not end at 0 by themselves.
        worker.load_s = worker.load_s - entry.charge_s if worker.held else 0.0
        others = len(entry.holders) > 1
        entry.holders = tuple(one for one in entry.holders if one is not worker) if others else ()
        self.running -= not entry.holders
        self._note(worker)

    def least_loaded(self, rejected: Collection[Worker] = ()) -> Worker | None:
        """Return the worker with room that has the least to do, other than ``rejected``."""
        if self._changed:
            for worker in self._changed:
                self._by_load.push(worker)
            self._changed.clear()
        return self._by_load.least(rejected)

    def preferred(self, favourite: str | None, least: Worker) -> Worker:
        """Return the worker to have an item: ``favourite``, if it has room and is at most a batch behind the ``least``
        loaded, else that one."""
        if favourite is None or favourite == least.name:
            return least
        worker = self._workers.get(favourite)
        if worker is not None and worker.open and worker.load_s - least.load_s <= self._batch_s:
            return worker
        return least

    def elsewhere(self, entry: Entry) -> Worker | None:
        """Return a worker with room for an item that others have lost; None where it has to wait for one.

        One that lost it is returned only where no other worker can be reached.
        """
        worker = self.least_loaded(entry.avoid)
        if worker is not None or self._has_reachable_beside(entry.avoid):
            return worker
        return self.least_loaded()

    def _has_reachable_beside(self, avoided: tuple[Worker, ...]) -> bool:
        reachable = sum(self._workers.get(worker.name) is worker and not worker.silent for worker in avoided)
        return self._reachable > reachable

    def _note(self, worker: Worker) -> None:
        few = len(worker.held) < self._min_in_flight and worker.load_s < self._alone_s
        if few or worker.load_s <= self._batch_s / 2:
            worker.wants = True
        elif worker.load_s >= self._batch_s:
            worker.wants = False
        self._changed[worker] = None
