"""Who is served when, and by which worker."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.dispatch.costs import TaskCosts
from grader.dispatch.events import Finished, Item, Lost, Send, Submit, WorkerReady, WorkerSilent
from grader.dispatch.queues import Entry, FairQueue
from grader.dispatch.state import Dispatcher, DispatcherConfig

ONE_BY_ONE = {"min_in_flight": 1, "batch_s": 0.001}


def order(desk):
    return [number for _, number in desk.sent]


# -- between tenants


def test_a_small_batch_does_not_wait_for_a_large_one(make_desk):
    desk = make_desk(**ONE_BY_ONE)
    desk.submit(2000, tenant="large", request_id="l")
    small = desk.submit(10, tenant="small", request_id="s")
    desk.workers("a")
    for _ in range(25):
        desk.finish("a", desk.at["a"][0])
    assert set(small) <= set(order(desk)[:21])


@st.composite
def _tenants(draw):
    """Tenants as (weight, costs of their items)."""
    count = draw(st.integers(2, 4))
    costs = st.lists(st.floats(0.0, 2.0), min_size=15, max_size=40)
    return [(draw(st.floats(0.1, 10.0)), draw(costs)) for _ in range(count)]


@given(tenants=_tenants(), workers=st.integers(1, 4), background=st.booleans())
def test_tenants_share_by_weight(tenants, workers, background):
    """The bound of start-time fair queueing: while two tenants both wait, what they were given over their weights
    differs by at most one item of each, over their weights. It is taken between any two points in time."""
    machine = Dispatcher(DispatcherConfig(**ONE_BY_ONE, learning_rate=1e-6))
    numbers = itertools.count()
    owner, left, given_s = {}, [len(costs) for _, costs in tenants], [[0.0] for _ in tenants]
    for tenant, (weight, costs) in enumerate(tenants):
        items = []
        for index, cost_s in enumerate(costs):
            number = next(numbers)
            owner[number] = (tenant, cost_s + 0.002)
            priority = "background" if background and index % 2 else "interactive"
            items.append(
                Item(number=number, request_id=f"r{tenant}", tenant=f"t{tenant}", weight=weight,
                     priority=priority, task_key=f"k{number}", cost_s=cost_s)
            )  # fmt: skip
        assert machine.handle(Submit(tuple(items)), 0.0) == []
    pending = [WorkerReady(f"w{index}", "n") for index in range(workers)]
    while pending and all(left):
        for instruction in machine.handle(pending.pop(0), 0.0):
            if isinstance(instruction, Send):
                for item in instruction.items:
                    tenant, cost_s = owner[item.number]
                    left[tenant] -= 1
                    for index, so_far in enumerate(given_s):
                        so_far.append(so_far[-1] + (cost_s if index == tenant else 0.0))
                    pending.append(Finished(instruction.worker, item.number, cost_s - 0.002))
    for (one, (weight, costs)), (other, (weight_2, costs_2)) in itertools.combinations(enumerate(tenants), 2):
        ahead = [x / weight - y / weight_2 for x, y in zip(given_s[one], given_s[other], strict=True)]
        allowed = (max(costs) + 0.002) / weight + (max(costs_2) + 0.002) / weight_2
        # Learning follows rounding errors of the mean, hence a little more.
        assert max(ahead) - min(ahead) <= allowed * 1.001


@pytest.mark.parametrize("credit_s", [0.0, 0.25])
def test_a_tenant_that_comes_back_gets_its_credit_and_no_more_for_the_time_it_was_away(make_desk, credit_s):
    desk = make_desk(**ONE_BY_ONE, idle_credit_s=credit_s)
    desk.submit(1, tenant="away", request_id="1")
    desk.submit(1000, tenant="busy", request_id="2")
    desk.workers("a")
    for _ in range(200):
        desk.finish("a", desk.at["a"][0], 0.01)
    before = len(desk.sent)
    back = set(desk.submit(80, tenant="away", request_id="3"))
    for _ in range(60):
        desk.finish("a", desk.at["a"][0], 0.01)
    served = [number in back for number in order(desk)[before:]]
    first = int(credit_s / (DispatcherConfig().default_cost_s + DispatcherConfig().overhead_s))
    assert all(served[1:first])
    assert (60 - first) / 2 - 2 <= sum(served[first:]) <= (60 - first) / 2 + 2


@pytest.mark.parametrize("burst", [1, 5, 20])
def test_a_tenant_that_comes_again_and_again_gets_its_share_and_its_credit_once(make_desk, burst):
    desk = make_desk(**ONE_BY_ONE, idle_credit_s=0.25)
    desk.submit(2000, tenant="steady", request_id="1")
    desk.workers("a")
    mine = set()
    for index in range(600):
        if not desk.machine.queued().get(("bursty", "interactive")):
            mine |= set(desk.submit(burst, tenant="bursty", request_id=f"b{index}"))
        desk.finish("a", desk.at["a"][0], 0.01)
    assert len(mine & set(order(desk))) <= 300 + 0.25 / 0.012 + burst + 1


def test_a_tenant_gains_nothing_by_coming_anew_for_every_item(make_desk):
    desk = make_desk(**ONE_BY_ONE)
    desk.submit(1000, tenant="steady", request_id="1", cost_s=0.01)
    desk.workers("a")
    mine = set()
    for index in range(100):
        if not desk.machine.queued().get(("bursty", "interactive")):
            mine |= set(desk.submit(1, tenant="bursty", request_id=f"b{index}", cost_s=1.0))
        desk.finish("a", desk.at["a"][0], 1.0 if desk.at["a"][0] in mine else 0.01)
    assert len(mine & set(order(desk))) <= 2


def test_a_tenant_loses_nothing_by_coming_anew_for_every_item(make_desk):
    """One that sends an item when the last one is done gets as much as one that has all of them queued."""
    desk = make_desk(**ONE_BY_ONE)
    desk.submit(50, tenant="steady", request_id="1", cost_s=1.0)
    desk.workers("a")
    spent = {True: 0.0, False: 0.0}
    mine = set(desk.submit(1, tenant="bursty", request_id="b", cost_s=0.1))
    for index in range(200):
        number = desk.at["a"][0]
        cost_s = 0.1 if number in mine else 1.0
        spent[number in mine] += cost_s
        if number in mine:
            mine |= set(desk.submit(1, tenant="bursty", request_id=f"b{index}", task_key="b", cost_s=0.1))
        desk.finish("a", number, cost_s)
    assert 0.8 < spent[True] / spent[False] < 1.2


def test_a_tenant_pays_by_what_its_samples_really_cost(make_desk):
    """Every sample brings a new task of unknown cost; those of one tenant are a hundred times as expensive."""
    desk = make_desk(**ONE_BY_ONE)
    for tenant in ("slow", "fast"):
        items = [
            desk.items(1, tenant=tenant, request_id=tenant, task_key=f"{tenant}{n}")[0] for n in range(1000)
        ]
        desk.tell(Submit(tuple(items)))
    desk.workers("a")
    spent = {True: 0.0, False: 0.0}
    for _ in range(700):
        number = desk.at["a"][0]
        cost_s = 1.0 if number <= 1000 else 0.01
        spent[number <= 1000] += cost_s + 0.002
        desk.finish("a", number, cost_s)
    assert 0.6 < spent[True] / spent[False] < 1.6


# -- within a tenant


def test_interactive_goes_before_background_which_still_moves(make_desk):
    desk = make_desk(**ONE_BY_ONE, background_share=0.1)
    background = set(desk.submit(1000, request_id="job", priority="background"))
    desk.submit(1000, request_id="r")
    desk.workers("a")
    for _ in range(499):
        desk.finish("a", desk.at["a"][0])
    assert len(background & set(order(desk))) == pytest.approx(50, abs=2)
    assert order(desk)[0] not in background


def test_background_that_trickles_in_gets_no_more_than_its_share(make_desk):
    desk = make_desk(**ONE_BY_ONE, background_share=0.1)
    desk.submit(1000, request_id="r")
    desk.workers("a")
    background = set()
    for index in range(500):
        if index % 3 == 0 and not desk.machine.queued().get(("t", "background")):
            background |= set(desk.submit(1, request_id=f"j{index}", priority="background"))
        desk.finish("a", desk.at["a"][0])
    assert len(background & set(order(desk))) == pytest.approx(50, abs=2)


def test_background_has_everything_while_nothing_else_waits(make_desk):
    desk = make_desk(**ONE_BY_ONE, background_share=0.0)
    background = desk.submit(5, priority="background")
    desk.workers("a")
    desk.finish_all()
    assert order(desk) == background


def test_requests_of_a_tenant_are_served_in_turn_and_the_longest_first(make_desk):
    desk = make_desk(**ONE_BY_ONE)
    costs = [0.1, 3.0, 0.5, 2.0]
    first = [desk.submit(1, request_id="1", task_key=f"{cost}", cost_s=cost)[0] for cost in costs]
    second = desk.submit(1, request_id="2", task_key="long", cost_s=9.0)
    desk.workers("a")
    desk.finish_all()
    assert order(desk) == [first[1], first[3], first[2], first[0], *second]


def test_learned_costs_decide_which_is_longest(make_desk):
    desk = make_desk(**ONE_BY_ONE)
    desk.workers("a")
    for task, cpu_s in (("slow", 2.0), ("quick", 0.001)):
        (number,) = desk.submit(1, task_key=task)
        desk.finish("a", number, cpu_s)
    blocker = desk.submit(1, task_key="other")
    quick = desk.submit(1, task_key="quick", request_id="2")
    slow = desk.submit(1, task_key="slow", request_id="2")
    desk.finish_all()
    assert order(desk)[2:] == blocker + slow + quick


# -- between workers


def test_fast_items_travel_in_batches_and_slow_ones_one_by_one(desk):
    desk.submit(100, task_key="fast", cost_s=0.0031)
    desk.workers("a")
    assert len(desk.at["a"]) == 10  # of 5.1 ms each, with what every sample costs
    sizes = []
    while len(desk.sent) < 100:
        out = desk.finish("a", desk.at["a"][0], 0.0031)
        sizes += [len(one.items) for one in out if isinstance(one, Send)]
    assert min(sizes[:-1]) >= 5
    desk.finish_all(0.0031)
    desk.submit(100, request_id="2", task_key="slow", cost_s=1.0)
    assert len(desk.at["a"]) == 3
    out = desk.finish("a", desk.at["a"][0], 1.0)
    assert [len(one.items) for one in out if isinstance(one, Send)] == [1]


def test_workers_get_even_costs(desk):
    desk.workers(*"abcd")
    mixed = [desk.items(1, task_key=f"k{n}", cost_s=0.03 if n % 40 == 0 else 0.001)[0] for n in range(200)]
    desk.tell(Submit(tuple(mixed)))
    cost_s = {item.number: 0.002 + item.cost_s for item in mixed}
    loads = [sum(cost_s[number] for number in held) for held in desk.at.values()]
    assert min(loads) >= 0.05
    assert max(loads) <= 0.05 + 0.032


def test_a_task_goes_to_the_worker_that_had_it_last(desk):
    desk.workers("a", "b", "c")
    desk.submit(1, request_id="x", task_key="x")
    desk.submit(1, request_id="y", task_key="y")
    desk.submit(1, request_id="z", task_key="z")
    home = {task: worker for task, (worker, _) in zip("xyz", desk.sent, strict=True)}
    assert len(set(home.values())) == 3
    desk.finish_all()
    for task in "zyxxzy":
        (number,) = desk.submit(1, request_id="more", task_key=task)
        assert desk.sent[-1] == (home[task], number)
        desk.finish(home[task], number)


def test_a_worker_that_is_a_batch_behind_is_passed_by(desk):
    desk.workers("a", "b")
    desk.submit(1, task_key="x", cost_s=0.2)
    (busy, _) = desk.sent[0]
    desk.submit(1, task_key="x", cost_s=0.01)
    assert desk.sent[1][0] != busy


def test_a_favourite_that_is_gone_or_silent_is_no_favourite(desk):
    desk.workers("a", "b")
    (number,) = desk.submit(1, task_key="x")
    (home, _) = desk.sent[0]
    desk.finish(home, number)
    desk.tell(WorkerSilent(home))
    desk.submit(1, task_key="x")
    assert desk.sent[-1][0] != home


def test_a_bad_worker_does_not_hold_up_the_queue(desk):
    """What one worker loses waits for another; meanwhile it still gets what has not been lost."""
    desk.workers("bad", "good")
    numbers = desk.submit(20, cost_s=5.0)
    for _ in range(6):
        number = desk.at["bad"].pop(0)
        desk.tell(Lost("bad", number, False, "down"))
        assert len(desk.at["bad"]) == 3
    desk.finish_all()
    assert set(desk.outcomes) == set(numbers)


def test_learned_costs_are_bounded(make_desk):
    desk = make_desk(learned_tasks=10)
    desk.workers("a")
    for index in range(50):
        desk.submit(1, tenant=f"t{index}", task_key=f"k{index}", request_id=f"r{index}")
        desk.finish_all()
    assert desk.machine.sizes()["learned"] <= 20


def test_nothing_is_put_behind_a_long_item(make_desk):
    desk = make_desk(alone_s=1.0)
    desk.workers("a")
    desk.submit(3, cost_s=1.5, request_id="long")
    assert len(desk.at["a"]) == 1
    desk.workers("b")
    assert len(desk.at["b"]) == 1
    desk.finish("b", desk.at["b"][0])
    assert len(desk.at["a"]) == len(desk.at["b"]) == 1


# -- within a request


def _entry(number, cost_s):
    return Entry(Item(number=number, request_id="r", tenant="t", task_key="k"), TaskCosts(), cost_s)


def _queue():
    return FairQueue(lambda entry: 1.0, background_share=0.1, idle_credit_s=0.25)


@given(st.lists(st.one_of(st.integers(0, 3), st.sampled_from(["pop", "remove"])), max_size=80))
def test_a_request_is_served_from_the_most_expensive_to_the_cheapest_whenever_items_come(steps):
    queue, waiting = _queue(), []
    for number, step in enumerate(steps):
        # Of those that cost the same, the one that came first.
        due = max(waiting, key=lambda entry: (entry.cost_s, -entry.item.number), default=None)
        if step == "pop":
            assert queue.pop() is due
        elif step == "remove" and waiting:
            due = waiting[len(waiting) // 2]
            queue.remove(due)
        elif isinstance(step, int):
            due = None
            waiting.append(_entry(number, float(step)))
            queue.push(waiting[-1])
        if due is not None:
            waiting.remove(due)
    assert len(queue) == len(waiting)


class _Counted(float):
    """A cost that counts how often it is compared."""

    compared = 0

    def __lt__(self, other):
        _Counted.compared += 1
        return float.__lt__(self, other)


def test_an_item_that_comes_late_is_not_compared_with_all_that_wait():
    queue = _queue()
    for number in range(10_000):
        queue.push(_entry(number, _Counted(number % 100)))
    queue.pop()
    _Counted.compared = 0
    for number in range(10_000, 10_010):
        queue.push(_entry(number, _Counted(50)))
        queue.pop()
    assert _Counted.compared < 10 * 40
