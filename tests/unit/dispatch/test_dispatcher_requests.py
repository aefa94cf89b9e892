"""What a request may bring, when it is refused, and how it ends."""

from __future__ import annotations

import pytest

from grader.dispatch.events import (
    Abandon,
    Cancel,
    CancelItems,
    Cancelled,
    Deliver,
    Done,
    Expired,
    Finished,
    Item,
    Lost,
    Submit,
    Tick,
    WorkerLost,
    WorkerSilent,
)
from grader.dispatch.state import DispatcherConfig
from grader.errors import InputError, OverloadedError


def test_items_wait_for_the_first_worker(desk):
    numbers = desk.submit(2)
    assert desk.machine.queued() == {("t", "interactive"): 2}
    desk.workers("a")
    assert desk.at["a"] == numbers
    assert desk.machine.queued() == {}
    assert desk.machine.running == 2
    desk.finish_all()
    assert desk.outcomes == dict.fromkeys(numbers, Done(1))
    assert desk.left() == {}


def test_payloads_come_back_untouched(desk):
    payload = object()
    (item,) = desk.items(payload=payload)
    desk.workers("a")
    (send,) = desk.tell(Submit((item,)))
    assert send.items[0].payload is payload


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ({"max_samples": 8, "tenant_share": 1.0}, {}),
        ({"max_bytes": 80, "tenant_share": 1.0}, {"size_bytes": 10}),
        ({"max_samples": 16, "tenant_share": 0.5}, {}),
        ({"max_bytes": 160, "tenant_share": 0.5}, {"size_bytes": 10}),
    ],
)
def test_the_bound_holds_and_a_refusal_changes_nothing(make_desk, config, fields):
    desk = make_desk(**config)
    desk.submit(6, **fields)
    before = dict(desk.machine.sizes())
    with pytest.raises(OverloadedError, match="try again in") as caught:
        desk.submit(3, **fields)
    assert 1 <= caught.value.retry_after_s <= 60
    assert desk.machine.sizes() == before
    desk.submit(2, **fields)


def test_one_tenant_leaves_room_for_others(make_desk):
    desk = make_desk(max_samples=10, tenant_share=0.5)
    desk.submit(5, tenant="greedy")
    with pytest.raises(OverloadedError, match="this tenant's share"):
        desk.submit(1, tenant="greedy")
    desk.submit(5, tenant="modest")
    with pytest.raises(OverloadedError, match="the queue has no room"):
        desk.submit(1, tenant="late")


def test_a_submit_of_two_tenants_is_taken_whole_or_not_at_all(make_desk):
    desk = make_desk(max_samples=10, tenant_share=0.5)
    desk.submit(4, tenant="x")
    with pytest.raises(OverloadedError):
        desk.tell(Submit(desk.items(1, tenant="y") + desk.items(2, tenant="x")))
    assert desk.machine.queued() == {("x", "interactive"): 4}


def test_what_runs_takes_room_until_it_is_done(make_desk):
    desk = make_desk(max_samples=2, tenant_share=1.0)
    desk.workers("a")
    numbers = desk.submit(2)
    with pytest.raises(OverloadedError):
        desk.submit(1)
    desk.finish("a", numbers[0])
    desk.submit(1)


def test_a_batch_that_never_fits_is_told_so(make_desk):
    desk = make_desk(max_samples=10, tenant_share=0.5)
    with pytest.raises(OverloadedError, match="send it in pieces"):
        desk.submit(6)


def test_the_time_to_wait_grows_with_the_queue_and_falls_with_the_workers(make_desk):
    def wait(queued, workers):
        desk = make_desk(max_samples=queued, tenant_share=1.0)
        desk.workers(*(f"w{index}" for index in range(workers)))
        desk.submit(queued, cost_s=1.0)
        with pytest.raises(OverloadedError) as caught:
            desk.submit(queued, cost_s=1.0)
        return caught.value.retry_after_s

    assert wait(40, 4) == pytest.approx(40 * 1.002 / 4)
    assert wait(20, 4) == pytest.approx(20 * 1.002 / 4)
    assert wait(40, 2) == pytest.approx(40 * 1.002 / 2)
    assert wait(2000, 2) == 60


def test_follow_up_work_is_taken_though_the_queue_is_full(make_desk):
    desk = make_desk(max_samples=2, tenant_share=1.0)
    desk.submit(2)
    desk.tell(Submit(desk.items(2), unbounded=True))
    desk.workers("a")
    desk.finish_all()
    assert len(desk.outcomes) == 4
    assert desk.left() == {}


def test_a_number_in_use_is_refused(desk):
    (item,) = desk.items()
    with pytest.raises(ValueError, match="in use"):
        desk.tell(Submit((item, item)))
    desk.tell(Submit((item,)))
    with pytest.raises(ValueError, match="in use"):
        desk.tell(Submit((*desk.items(), item)))
    assert desk.machine.queued() == {("t", "interactive"): 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"weight": 0.0},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"size_bytes": -1},
        {"cost_s": -1.0},
        {"cost_s": float("nan")},
        {"cost_s": float("inf")},
        {"deadline": float("nan")},
        {"priority": "urgent"},
    ],
)
def test_items_that_cannot_be_meant_are_refused(fields):
    with pytest.raises(ValueError, match="item 1: "):
        Item(**({"number": 1, "request_id": "r", "tenant": "t", "task_key": "k"} | fields))


@pytest.mark.parametrize("occupied_s", [-1.0, float("nan"), float("inf")])
def test_costs_that_cannot_be_meant_are_refused(occupied_s):
    with pytest.raises(ValueError, match="occupied_s"):
        Finished("a", 1, occupied_s)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_samples": 0},
        {"batch_s": float("nan")},
        {"tenant_share": 0.0},
        {"tenant_share": 1.5},
        {"overhead_s": 0.0},
        {"background_share": -0.1},
    ],
)
def test_configurations_that_cannot_be_meant_are_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        DispatcherConfig(**fields)


# -- deadlines


def test_what_was_not_started_at_its_deadline_expires(desk):
    early, late, never = desk.submit(deadline=5.0), desk.submit(deadline=7.0), desk.submit()
    assert desk.machine.next_wake(0.0) == 5.0
    desk.now = 4.9
    assert desk.tell(Tick()) == []
    desk.now = 5.0
    assert desk.tell(Tick()) == [Deliver(early[0], Expired())]
    assert desk.machine.next_wake(5.0) == 7.0
    desk.now = 8.0
    desk.workers("a")
    assert desk.at["a"] == never
    assert desk.outcomes[late[0]] == Expired()
    assert desk.next_deadline() is None


def test_a_wake_that_is_overdue_is_now(desk):
    desk.submit(deadline=5.0)
    assert desk.machine.next_wake(6.0) == 6.0


def test_an_item_that_comes_too_late_expires_at_once(desk):
    desk.workers("a")
    desk.now = 10.0
    (number,) = desk.submit(deadline=9.0)
    assert desk.outcomes == {number: Expired()}
    assert desk.left() == {}


def test_what_runs_goes_on_past_its_deadline(desk):
    desk.workers("a")
    (number,) = desk.submit(deadline=5.0)
    assert desk.next_deadline() is None
    desk.now = 6.0
    desk.tell(Tick())
    desk.finish("a", number)
    assert desk.outcomes == {number: Done(1)}


def test_what_is_lost_after_its_deadline_is_not_started_again(desk):
    desk.workers("a", "b")
    (number,) = desk.submit(deadline=5.0)
    desk.now = 6.0
    (holder,) = desk.machine.holders(number)
    desk.tell(Lost(holder, number, False, "down"))
    assert desk.outcomes == {number: Expired()}
    assert desk.left() == {}


def test_what_came_back_before_its_deadline_still_has_it(desk):
    desk.workers("a")
    (number,) = desk.submit(deadline=5.0)
    desk.tell(WorkerLost("a", "down"))
    assert desk.machine.next_wake(1.0) == 5.0
    desk.now = 5.0
    desk.tell(Tick())
    assert desk.outcomes == {number: Expired()}


# -- cancellation


def test_cancel_drops_what_waits_and_abandons_what_runs(make_desk):
    desk = make_desk(min_in_flight=1)
    desk.workers("a", "b")
    mine = desk.submit(4, request_id="mine", cost_s=1.0, deadline=9.0)
    other = desk.submit(2, request_id="other", cost_s=1.0)
    out = desk.tell(Cancel("mine"))
    assert out[:2] == [Abandon("a", (mine[0],)), Abandon("b", (mine[1],))]
    assert desk.outcomes == dict.fromkeys(mine, Cancelled())
    assert sorted(desk.at["a"] + desk.at["b"]) == other
    assert desk.next_deadline() is None
    desk.finish_all()
    assert desk.left() == {}


def test_cancelled_items_are_cancelled_once_and_alone(desk):
    numbers = desk.submit(4)
    desk.tell(CancelItems((numbers[1], numbers[1], 999)))
    assert desk.outcomes == {numbers[1]: Cancelled()}
    desk.workers("a")
    assert desk.at["a"] == [numbers[0], numbers[2], numbers[3]]
    desk.tell(CancelItems((numbers[0], numbers[3])))
    assert desk.tell(Finished("a", numbers[0], 0.0)) == []
    desk.tell(Cancel("r"))
    assert desk.tell(Cancel("r")) == []
    assert set(desk.outcomes) == set(numbers)
    assert desk.left() == {}


def test_a_hedged_item_is_abandoned_at_both_workers(desk):
    desk.workers("a")
    (number,) = desk.submit()
    desk.workers("b")
    desk.tell(WorkerSilent("a"))
    desk.tell(CancelItems((number,)))
    assert sorted(desk.abandoned) == [("a", number), ("b", number)]
    assert desk.left() == {}


def test_what_came_back_can_be_cancelled(desk):
    desk.workers("a")
    numbers = desk.submit(4)
    desk.tell(WorkerLost("a", "down"))
    desk.tell(CancelItems(tuple(numbers[:2])))
    desk.at["a"].clear()
    desk.workers("b")
    assert desk.at["b"] == numbers[2:]
    desk.finish_all()
    assert desk.left() == {}


def test_cancelled_items_do_not_pile_up_while_others_wait(desk):
    desk.submit(1, request_id="stays")
    for _ in range(40):
        numbers = desk.submit(50, request_id="stays")
        desk.tell(CancelItems(tuple(numbers)))
        desk.submit(1, tenant="comes and goes", request_id="short", deadline=1e9)
        desk.tell(Cancel("short"))
    sizes = desk.machine.sizes()
    assert sizes["items"] == sizes["queued"] == sizes["requests"] == sizes["tenants"] == 1
    assert sizes["in_requests"] <= 20
    assert sizes["flows"] <= 2
    assert sizes["waiting"] <= 70
    assert sizes["resting"] <= 70


def test_tenants_that_come_and_go_do_not_pile_up_while_another_waits(make_desk):
    desk = make_desk(min_in_flight=1, batch_s=0.001)
    desk.submit(1000, tenant="stays")
    desk.workers("a")
    for index in range(400):
        desk.submit(1, tenant=f"goes {index}", request_id=f"r{index}")
        desk.finish("a", desk.at["a"][0])
        desk.finish("a", desk.at["a"][0])
    assert desk.machine.sizes()["flows"] <= 5
