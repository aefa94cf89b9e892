"""The dispatcher as a pure state machine: events and the time go in, instructions come out.

It does no I/O, reads no clock and starts no task, so that all of it can be tested without workers. ``driver.py``
connects it to the world.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

from grader.dispatch.config import DispatcherConfig
from grader.dispatch.costs import CostModel
from grader.dispatch.crew import Crew, Worker
from grader.dispatch.events import (
    Abandon,
    Cancel,
    CancelItems,
    Cancelled,
    Deliver,
    Done,
    Event,
    Expired,
    Finished,
    GaveUp,
    Instruction,
    Item,
    Lost,
    Outcome,
    Priority,
    Send,
    Submit,
    Tick,
    Violation,
    WorkerHeard,
    WorkerLost,
    WorkerReady,
    WorkerSilent,
)
from grader.dispatch.queues import Deadlines, Entry, FairQueue
from grader.dispatch.usage import Room

__all__ = ["Dispatcher", "DispatcherConfig"]

# Of the items that may go to certain workers only, so many are passed over in the search for one that may go to
# those that have room; more of them means that workers keep losing items, and then it is well that these wait.
_PASSED_OVER = 32
_DONE_AT_FIRST = Done(1)


class Dispatcher:
    """Decides which item goes to which worker when, and what becomes of it.

    Every item that was taken gets exactly one Deliver. Calls of ``handle`` are not to be nested, and their
    instructions are to be carried out in order; ``now`` must not go back.
    """

    def __init__(self, config: DispatcherConfig) -> None:
        self._config = config
        self._entries: dict[int, Entry] = {}
        self._requests: dict[str, dict[int, Entry]] = {}
        self._costs = CostModel(
            default_s=config.default_cost_s,
            overhead_s=config.overhead_s,
            rate=config.learning_rate,
            limit=config.learned_tasks,
        )
        self._queue = FairQueue(self._estimate, config.background_share, config.idle_credit_s)
        self._deadlines = Deadlines()
        self._room = Room(config.max_samples, config.max_bytes, config.tenant_share)
        self._crew = Crew(config.batch_s, config.min_in_flight, config.alone_s)
        self._to_hedge: dict[int, Entry] = {}
        self._look_at: float | None = None  # which workers are stuck
        self._retries: Counter[str] = Counter()
        self._out: list[Instruction] = []
        self._handlers: dict[type, Callable[[Any], None]] = {
            Submit: self._submit,
            Cancel: self._cancel,
            CancelItems: self._cancel_items,
            WorkerReady: self._worker_ready,
            WorkerLost: self._worker_lost,
            WorkerSilent: self._worker_silent,
            WorkerHeard: self._worker_heard,
            Finished: self._finished,
            Lost: self._lost,
            Tick: lambda _: None,
        }

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take an event; return what is to be done, in this order. ``now`` is in seconds.

        An event about a worker, request or item that is not known (any more) is no error: reports cross on the way.

        Raises OverloadedError where a Submit has no room, and ValueError where a number is in use; then nothing has
        changed.
        """
        return self.handle_all((event,), now)

    def handle_all(self, events: Iterable[Event], now: float) -> list[Instruction]:
        """Take what happened at once, one after the other, and only then hand out what waits. A Submit, which may be
        refused, comes alone."""
        out: list[Instruction] = []
        self._out = out
        self._crew.now = now
        for event in events:
            self._handlers[type(event)](event)
        if self._look_at is not None and self._look_at <= now:
            self._take_back()
        for entry in self._deadlines.due(now):
            self._drop_waiting(entry, Expired())
        if self._to_hedge or self._queue:
            self._dispatch()
        return out

    # -- what is known, for metrics and the driver

    def next_wake(self, now: float) -> float | None:
        """Return the time at which a Tick is needed unless another event comes first: because of the next deadline, or
        to see which workers are stuck."""
        times = [at for at in (self._deadlines.next(), self._look_at) if at is not None]
        return max(min(times), now) if times else None

    def queued(self) -> Mapping[tuple[str, Priority], int]:
        """Return how many items wait, by tenant and priority; O(tenants)."""
        return self._queue.counts()

    @property
    def running(self) -> int:
        """How many items are at a worker."""
        return self._crew.running

    @property
    def busy(self) -> int:
        """How many workers that can be reached have an item; O(workers)."""
        return self._crew.busy

    @property
    def retries(self) -> Mapping[str, int]:
        """How many items were sent again or put back since the start, by a few fixed reasons.

        ``worker_lost``, ``cell_lost`` and ``blamed`` count attempts that failed; ``put_back`` items that were
        not begun; ``hedged`` copies because of a silent worker.
        """
        return {reason: count for reason, count in self._retries.items() if count}

    def holders(self, number: int) -> tuple[str, ...]:
        """Return the workers that have an item: none while it waits, two while it is hedged."""
        entry = self._entries.get(number)
        return tuple(worker.name for worker in entry.holders) if entry else ()

    def attempts(self, number: int) -> int:
        """Return how many times an item was begun, the attempt at hand (or the next) included; 0 if unknown."""
        entry = self._entries.get(number)
        return entry.failures + 1 if entry else 0

    def sizes(self) -> Mapping[str, int]:
        """Return how many entries every table has, for the search for leaks; O(requests).

        All but ``workers`` and ``learned`` are 0 when nothing is left.
        """
        return {
            "items": len(self._entries),
            "requests": len(self._requests),
            "deadlines": len(self._deadlines),
            "to_hedge": len(self._to_hedge),
            "tenants": len(self._room),
            "running": self._crew.running,
            **self._queue.sizes(),
            "workers": len(self._crew),
            "learned": len(self._costs),
        }

    # -- requests

    def _submit(self, event: Submit) -> None:
        items = event.items
        numbers = {item.number for item in items}
        if len(numbers) < len(items) or not self._entries.keys().isdisjoint(numbers):
            raise ValueError("an item's number is in use already; numbers are never used twice")
        if not event.unbounded:
            self._room.check(items, len(self._crew))
        for item in items:
            task = self._costs.of_task(item.task_key)
            entry = Entry(item, task, self._costs.estimate(item, task))
            self._entries[item.number] = entry
            request = self._requests.get(item.request_id)
            if request is None:
                request = self._requests[item.request_id] = {}
            request[item.number] = entry
            self._room.take(item, entry.cost_s)
            self._queue.push(entry)
            self._deadlines.add(entry)

    def _estimate(self, entry: Entry) -> float:
        return self._costs.estimate(entry.item, entry.task)

    def _cancel(self, event: Cancel) -> None:
        self._cancel_entries(list(self._requests.get(event.request_id, {}).values()))

    def _cancel_items(self, event: CancelItems) -> None:
        numbers = dict.fromkeys(event.numbers)
        self._cancel_entries([self._entries[number] for number in numbers if number in self._entries])

    def _cancel_entries(self, entries: list[Entry]) -> None:
        abandoned: dict[str, list[int]] = {}
        for entry in entries:
            for worker in entry.holders:
                self._crew.release(worker, entry)
                abandoned.setdefault(worker.name, []).append(entry.item.number)
        self._out += [Abandon(worker, tuple(numbers)) for worker, numbers in abandoned.items()]
        for entry in entries:
            if entry.queued:
                self._drop_waiting(entry, Cancelled())
            else:
                self._deliver(entry, Cancelled())

    # -- workers

    def _worker_ready(self, event: WorkerReady) -> None:
        self._crew.ready(event.worker, event.node)
        self._unhedge(event.worker)

    def _worker_lost(self, event: WorkerLost) -> None:
        worker = self._crew.get(event.worker)
        if worker is None:
            return
        held = self._crew.remove(worker)
        # Only what it began can have been its end, and what was begun first is the oldest.
        kept = held[1:]
        self._retries["put_back"] += len(kept)
        if held and self._count_failure(held[0], worker, "worker_lost", event.why):
            kept = held
        self._wait_again(kept)

    def _worker_silent(self, event: WorkerSilent) -> None:
        worker = self._crew.get(event.worker)
        if worker is None:
            return
        self._crew.set_silent(worker, silent=True)
        for number, entry in worker.held.items():
            if len(entry.holders) == 1:
                self._to_hedge[number] = entry

    def _worker_heard(self, event: WorkerHeard) -> None:
        worker = self._crew.get(event.worker)
        if worker is None:
            return
        self._crew.set_silent(worker, silent=False)
        self._unhedge(event.worker)

    def _take_back(self) -> None:
        """Take back what waits behind an item that takes long: another worker may begin it, this one when it can go on.

        A worker that has begun it meanwhile does so in vain.
        """
        now, after_s = self._crew.now, self._config.stuck_s
        stuck, next_at = self._crew.find_stuck(after_s)
        for worker in stuck:
            waiting = self._crew.take_back(worker)
            if waiting:
                self._retries["put_back"] += len(waiting)
                self._out.append(Abandon(worker.name, tuple(entry.item.number for entry in waiting)))
                self._wait_again(waiting)
            if len(worker.held) > 1:  # copies, each of which may become the only one
                next_at = min(next_at or inf, now + after_s)
        # Not each time that one of many workers could be: looking costs as much as there are workers.
        self._look_at = None if next_at is None else max(next_at, now + after_s / 4)

    def _unhedge(self, name: str) -> None:
        worker = self._crew.get(name)
        for number in worker.held if worker else ():
            self._to_hedge.pop(number, None)

    # -- what workers say of items

    def _finished(self, event: Finished) -> None:
        worker, entry = self._held(event.worker, event.number)
        if entry is None or worker is None:
            return
        self._crew.release(worker, entry)
        self._costs.learn(entry.item, entry.task, event.occupied_s)
        if entry.holders:
            self._abandon_copies(entry)
        self._deliver(entry, Done(entry.failures + 1) if entry.failures else _DONE_AT_FIRST)

    def _lost(self, event: Lost) -> None:
        worker, entry = self._held(event.worker, event.number)
        if entry is None or worker is None:
            return
        self._crew.release(worker, entry)
        entry.blames += event.blamed
        if self._count_failure(entry, worker, "blamed" if event.blamed else "cell_lost", event.why):
            self._wait_again([entry])

    def _held(self, name: str, number: int) -> tuple[Worker | None, Entry | None]:
        worker = self._crew.get(name)
        return worker, worker.held.get(number) if worker else None

    # -- what becomes of an item

    def _count_failure(self, entry: Entry, worker: Worker, reason: str, why: str) -> bool:
        """Count an attempt that was lost. Return whether the item is still wanted."""
        entry.failures += 1
        if entry.blames >= self._config.max_blames:
            outcome: Outcome = Violation(why, entry.failures)
        elif entry.failures >= self._config.max_attempts:
            outcome = GaveUp(why, entry.failures)
        else:
            if worker not in entry.avoid:
                entry.avoid += (worker,)
            self._retries[reason] += 1
            return True
        self._abandon_copies(entry)
        self._deliver(entry, outcome)
        return False

    def _wait_again(self, entries: list[Entry]) -> None:
        """Put items that came back in front of the queue, but for those of which there is another copy."""
        waiting = [entry for entry in entries if not entry.holders]
        for entry in waiting:
            self._to_hedge.pop(entry.item.number, None)
            self._deadlines.add(entry)
        for entry in entries:
            if len(entry.holders) == 1 and entry.holders[0].silent:
                self._to_hedge[entry.item.number] = entry
        self._queue.put_back(waiting)

    def _abandon_copies(self, entry: Entry) -> None:
        for worker in entry.holders:
            self._crew.release(worker, entry)
            self._out.append(Abandon(worker.name, (entry.item.number,)))

    def _drop_waiting(self, entry: Entry, outcome: Outcome) -> None:
        self._queue.remove(entry)
        self._deadlines.discard(entry)
        self._deliver(entry, outcome)

    def _deliver(self, entry: Entry, outcome: Outcome) -> None:
        item = entry.item
        del self._entries[item.number]
        request = self._requests[item.request_id]
        del request[item.number]
        if not request:
            del self._requests[item.request_id]
        if self._to_hedge:
            self._to_hedge.pop(item.number, None)
        self._room.give_back(item, entry.cost_s)
        self._out.append(Deliver(item.number, outcome))

    # -- handing out

    def _dispatch(self) -> None:
        sends: dict[str, list[Item]] = {}
        if self._to_hedge:
            self._hedge(sends)
        passed_over: list[Entry] = []
        while self._queue and len(passed_over) < _PASSED_OVER:
            least = self._crew.least_loaded()
            entry = self._queue.pop() if least else None
            if least is None or entry is None:
                break
            favourite = entry.task.last_worker
            worker = self._crew.elsewhere(entry) if entry.avoid else self._crew.preferred(favourite, least)
            if worker is None:
                passed_over.append(entry)
                continue
            self._deadlines.discard(entry)
            self._give(worker, entry, sends)
        if passed_over:
            self._queue.put_back(passed_over)
        if sends and self._look_at is None:
            self._look_at = self._crew.now + self._config.stuck_s
        self._out += [Send(worker, tuple(items)) for worker, items in sends.items()]

    def _hedge(self, sends: dict[str, list[Item]]) -> None:
        """Send what silent workers hold to others as well. It has had its turn, so it goes first."""
        passed_over: list[Entry] = []
        while self._to_hedge and len(passed_over) < _PASSED_OVER and self._crew.least_loaded():
            number, entry = next(iter(self._to_hedge.items()))
            del self._to_hedge[number]
            worker = self._crew.elsewhere(entry)
            if worker is None:
                passed_over.append(entry)
                continue
            self._retries["hedged"] += 1
            self._give(worker, entry, sends)
        self._to_hedge |= {entry.item.number: entry for entry in passed_over}

    def _give(self, worker: Worker, entry: Entry, sends: dict[str, list[Item]]) -> None:
        self._crew.hold(worker, entry)
        entry.task.last_worker = worker.name
        sends.setdefault(worker.name, []).append(entry.item)
