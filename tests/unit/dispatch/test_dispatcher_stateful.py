"""Whatever happens in whatever order: every item has one outcome, bounds hold, and nothing is left in the end."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from grader.dispatch.events import (
    Abandon,
    Cancel,
    CancelItems,
    Cancelled,
    Deliver,
    Done,
    Expired,
    Finished,
    GaveUp,
    Item,
    Lost,
    Send,
    Submit,
    Tick,
    Violation,
    WorkerHeard,
    WorkerLost,
    WorkerReady,
    WorkerSilent,
)
from grader.dispatch.state import Dispatcher, DispatcherConfig
from grader.errors import OverloadedError

WORKERS = st.sampled_from(["w1", "w2", "w3", "w4"])
TENANTS = st.sampled_from(["t1", "t2", "t3"])
COSTS = st.none() | st.sampled_from([0.0, 0.004, 0.03, 2.0])
CONFIG = DispatcherConfig(max_samples=30, max_bytes=100, tenant_share=0.6, alone_s=3600.0)
MIN_IN_FLIGHT = CONFIG.min_in_flight


class Worker:
    """A worker as the outside world knows it. ``held`` has its items, the oldest first.

    ``since`` is when it last lost one, or was given its first; ``stuck`` that what waited there was taken back since.
    """

    def __init__(self):
        self.held: list[int] = []
        self.silent = False
        self.since = 0.0
        self.stuck = False

    def may_be_stuck(self, now):
        return self.stuck or (self.held and now - self.since >= CONFIG.stuck_s)

    def drop(self, numbers, now):
        for number in numbers:
            self.held.remove(number)
        self.since, self.stuck = now, False


class Live:
    """An item without an outcome, as the outside world knows it."""

    def __init__(self, item):
        self.item = item
        self.failures = 0
        self.blames = 0
        self.lost_by: set[Worker] = set()


class DispatcherModel(RuleBasedStateMachine):
    """Plays the workers and the requests, and checks every instruction against what may be asked for."""

    def __init__(self):
        super().__init__()
        self.machine = Dispatcher(CONFIG)
        self.now = 0.0
        self.number = 0
        self.live: dict[int, Live] = {}
        self.unbounded = 0
        self.outcomes: dict[int, object] = {}
        self.workers: dict[str, Worker] = {}
        self.last_failed: int | None = None
        self.last_held = -CONFIG.stuck_s  # when a worker last had something
        self.cancelling: set[int] = set()
        self.finishing: set[int] = set()

    # -- playing

    def tell(self, *events):
        for instruction in self.machine.handle_all(events, self.now):
            if isinstance(instruction, Send):
                self.on_send(instruction)
            elif isinstance(instruction, Abandon):
                self.on_abandon(instruction)
            else:
                assert isinstance(instruction, Deliver)
                self.on_deliver(instruction)
        self.cancelling.clear()
        self.finishing = set()
        self.last_failed = None

    def holders(self, number):
        return [name for name, worker in self.workers.items() if number in worker.held]

    def on_send(self, send):
        worker = self.workers[send.worker]
        assert not worker.silent, "sent to a silent worker"
        assert not worker.stuck, "sent to a worker that does not get on"
        if not worker.held:
            worker.since = self.now
        for item in send.items:
            live = self.live[item.number]
            assert live.item is item
            others = [self.workers[name] for name in self.holders(item.number)]
            assert worker not in others, "sent to the same worker twice"
            assert len(others) <= 1
            assert all(other.silent for other in others), "two workers have an item that is not hedged"
            if not others:
                assert item.deadline is None or item.deadline > self.now, "started after its deadline"
            if worker in live.lost_by:
                reachable = [one for one in self.workers.values() if not one.silent]
                assert set(reachable) <= live.lost_by, "sent back to the worker that lost it"
            worker.held.append(item.number)
        # 25 of the least that an item costs are a batch.
        assert len(worker.held) <= max(MIN_IN_FLIGHT, CONFIG.batch_s / CONFIG.overhead_s) + 1

    def on_abandon(self, abandon):
        worker, numbers = self.workers[abandon.worker], set(abandon.numbers)
        since = worker.since
        taken_back = numbers - self.cancelling - self.finishing - {self.last_failed}
        assert taken_back in (set(), numbers)
        worker.drop(numbers, self.now)
        if taken_back:
            assert worker.held, "all was taken back, also what it is at"
            assert self.now - since >= CONFIG.stuck_s
            assert not any(self.holders(number) for number in numbers), "a copy was taken back"
            worker.stuck = True

    def on_deliver(self, deliver):
        number, outcome = deliver.number, deliver.outcome
        assert number not in self.outcomes, "delivered twice"
        assert not self.holders(number), "delivered while a worker has it"
        live = self.live.pop(number)
        self.outcomes[number] = outcome
        if isinstance(outcome, Done):
            assert number in self.finishing
            assert outcome.attempts == live.failures + 1 <= CONFIG.max_attempts
        elif isinstance(outcome, GaveUp):
            assert number == self.last_failed
            assert outcome.attempts == live.failures == CONFIG.max_attempts
            assert live.blames < 2
        elif isinstance(outcome, Violation):
            assert number == self.last_failed
            assert live.blames == 2
            assert outcome.attempts == live.failures <= CONFIG.max_attempts
        elif isinstance(outcome, Expired):
            assert live.item.deadline <= self.now
        else:
            assert isinstance(outcome, Cancelled)
            assert number in self.cancelling

    # -- requests

    @initialize(count=st.integers(0, 3))
    def some_workers(self, count):
        for name in ["w1", "w2", "w3"][:count]:
            self.worker_ready(name)

    @rule(
        tenant=TENANTS,
        request=st.integers(0, 3),
        costs=st.lists(COSTS, min_size=1, max_size=12),
        size=st.integers(0, 4),
        priority=st.sampled_from(["interactive", "background"]),
        wait=st.none() | st.floats(-1.0, 20.0),
        unbounded=st.sampled_from([False, False, False, True]),
    )
    def submit(self, tenant, request, costs, size, priority, wait, unbounded):
        items = []
        for cost_s in costs:
            self.number += 1
            items.append(
                Item(
                    number=self.number,
                    request_id=f"{tenant}/{request}",
                    tenant=tenant,
                    weight={"t1": 1.0, "t2": 0.5, "t3": 7.0}[tenant],
                    priority=priority,
                    task_key=f"k{self.number % 5}",
                    size_bytes=size,
                    cost_s=cost_s,
                    deadline=None if wait is None else self.now + wait,
                )
            )
        mine = [live.item for live in self.live.values() if live.item.tenant == tenant]
        everyones = [live.item for live in self.live.values()]
        fits = all(
            len(held) + len(items) <= int(share * CONFIG.max_samples)
            and sum(item.size_bytes for item in (*held, *items)) <= int(share * CONFIG.max_bytes)
            for held, share in ((mine, CONFIG.tenant_share), (everyones, 1.0))
        )
        if not unbounded and not fits:
            before = self.machine.sizes()
            with pytest.raises(OverloadedError) as caught:
                self.machine.handle(Submit(tuple(items)), self.now)
            assert 0 < caught.value.retry_after_s <= 60
            assert self.machine.sizes() == before
            return
        self.live |= {item.number: Live(item) for item in items}
        self.tell(Submit(tuple(items), unbounded))

    @rule(tenant=TENANTS, request=st.integers(0, 3))
    def cancel(self, tenant, request):
        request_id = f"{tenant}/{request}"
        wanted = {number for number, live in self.live.items() if live.item.request_id == request_id}
        self.cancelling = set(wanted)
        self.tell(Cancel(request_id))
        assert not wanted & set(self.live)

    @rule(data=st.data(), stale=st.booleans())
    def cancel_items(self, data, stale):
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.live)), max_size=5)) if self.live else []
        self.cancelling = set(chosen)
        self.tell(CancelItems((*chosen, *sorted(self.outcomes)[:1])) if stale else CancelItems(tuple(chosen)))
        assert not set(chosen) & set(self.live)

    @rule(seconds=st.floats(0.0, 10.0))
    def time_passes(self, seconds):
        self.now += seconds
        deadline = self.next_deadline()
        if deadline == self.now:
            assert self.machine.next_wake(self.now) == deadline
        self.tell(Tick())

    def next_deadline(self):
        waiting = [
            live.item.deadline
            for number, live in self.live.items()
            if live.item.deadline is not None and not self.holders(number)
        ]
        return max(min(waiting), self.now) if waiting else None

    # -- workers

    @rule(name=WORKERS)
    def worker_ready(self, name):
        worker = self.workers.setdefault(name, Worker())
        worker.silent = False
        self.tell(WorkerReady(name, "node"))

    @rule(name=WORKERS)
    def worker_lost(self, name):
        worker = self.workers.pop(name, None)
        if worker and worker.held:
            self.failed(worker, worker.held[0], blamed=False)
        self.tell(WorkerLost(name, "killed"))

    @rule(name=WORKERS)
    def worker_silent(self, name):
        if name in self.workers:
            self.workers[name].silent = True
        self.tell(WorkerSilent(name))

    @rule(name=WORKERS)
    def worker_heard(self, name):
        if name in self.workers:
            self.workers[name].silent = False
        self.tell(WorkerHeard(name))

    def failed(self, worker, number, blamed):
        live = self.live[number]
        live.failures += 1
        live.blames += blamed
        live.lost_by.add(worker)
        self.last_failed = number

    def some_held(self, data):
        pairs = [(name, number) for name, worker in sorted(self.workers.items()) for number in worker.held]
        return data.draw(st.sampled_from(pairs)) if pairs else (None, None)

    # Not so much more than was told that an item's estimate is beyond alone_s: then a worker gets nothing beside it.
    @rule(data=st.data(), cpu_s=st.sampled_from([0.0, 0.01, 1.0]))
    def finish(self, data, cpu_s):
        name, number = self.some_held(data)
        if name is None:
            return
        worker = self.workers[name]
        worker.drop([number], self.now)
        self.finishing = {number}
        self.tell(Finished(name, number, cpu_s))
        assert number in self.outcomes

    @rule(name=WORKERS, data=st.data())
    def finish_several_at_once(self, name, data):
        held = self.workers[name].held if name in self.workers else []
        if not held:
            return
        numbers = data.draw(st.lists(st.sampled_from(held), min_size=1, unique=True))
        worker = self.workers[name]
        worker.drop(numbers, self.now)
        self.finishing = set(numbers)
        self.tell(*(Finished(name, number, 0.01) for number in numbers))
        assert self.outcomes.keys() >= set(numbers)

    @rule(name=WORKERS, data=st.data())
    def finish_what_is_not_held(self, name, data):
        held = self.workers[name].held if name in self.workers else []
        numbers = [number for number in range(1, self.number + 1) if number not in held]
        if numbers:
            number = data.draw(st.sampled_from(numbers))
            before = self.machine.sizes()
            self.tell(
                data.draw(st.sampled_from([Finished(name, number, 9.0), Lost(name, number, True, "late")]))
            )
            assert self.machine.sizes() == before

    @rule(data=st.data(), blamed=st.booleans())
    def cell_lost(self, data, blamed):
        name, number = self.some_held(data)
        if name is None:
            return
        worker = self.workers[name]
        worker.drop([number], self.now)
        self.failed(worker, number, blamed)
        self.tell(Lost(name, number, blamed, "down"))

    # -- what holds at all times

    @invariant()
    def what_is_known_agrees(self):
        held = {number for worker in self.workers.values() for number in worker.held}
        for number, live in self.live.items():
            assert sorted(self.machine.holders(number)) == sorted(self.holders(number))
            assert self.machine.attempts(number) == live.failures + 1
        assert self.machine.running == len(held)
        assert sum(self.machine.queued().values()) == len(self.live) - len(held)
        assert self.machine.sizes()["items"] == len(self.live)

    @invariant()
    def no_worker_is_idle_while_it_could_work(self):
        waiting = [live for number, live in self.live.items() if not self.holders(number)]
        for worker in self.workers.values():
            if not worker.silent and not worker.may_be_stuck(self.now) and len(worker.held) < MIN_IN_FLIGHT:
                reachable = {other for other in self.workers.values() if not other.silent}
                assert all(worker in live.lost_by and reachable - live.lost_by for live in waiting)

    @invariant()
    def silent_workers_items_are_hedged_where_they_can_be(self):
        for worker in self.workers.values():
            idle = (
                not worker.silent and len(worker.held) < MIN_IN_FLIGHT and not worker.may_be_stuck(self.now)
            )
            for other in self.workers.values() if idle else ():
                if other.silent:
                    alone = [number for number in other.held if len(self.holders(number)) == 1]
                    assert all(self.live[number].failures for number in alone)

    @invariant()
    def it_wakes_for_the_next_deadline_or_to_see_which_workers_are_stuck(self):
        if any(worker.held for worker in self.workers.values()):
            self.last_held = self.now
        deadline, wake = self.next_deadline(), self.machine.next_wake(self.now)
        if wake != deadline:
            assert self.now <= wake <= self.last_held + CONFIG.stuck_s
            assert deadline is None or wake < deadline

    @invariant()
    def the_machine_looks_again_where_something_waits_behind_an_item(self):
        for worker in self.workers.values():
            alone = [number for number in worker.held[1:] if len(self.holders(number)) == 1]
            if alone and not worker.silent:
                wake = self.machine.next_wake(self.now)
                assert wake is not None
                assert wake <= self.now + CONFIG.stuck_s

    def teardown(self):
        self.worker_ready("last resort")
        for name in list(self.workers):
            self.worker_ready(name)
        while self.live:
            name, number = next(
                (name, worker.held[0]) for name, worker in self.workers.items() if worker.held
            )
            self.workers[name].drop([number], self.now)
            self.finishing = {number}
            self.tell(Finished(name, number, 0.0))
        assert set(self.outcomes) <= set(range(1, self.number + 1))
        left = dict(self.machine.sizes())
        assert left.pop("workers") == len(self.workers)
        assert left.pop("learned") <= 5 + 3
        assert not any(left.values()), left
        self.now += CONFIG.stuck_s
        self.tell(Tick())
        assert self.machine.next_wake(self.now) is None
        assert self.machine.queued() == {}


TestDispatcher = DispatcherModel.TestCase
TestDispatcher.settings = settings(max_examples=100, stateful_step_count=40)
