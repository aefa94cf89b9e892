"""What waits at a worker behind an item that takes long is taken back, so that another may begin it."""

from __future__ import annotations

import pytest

from grader.dispatch.events import (
    CancelItems,
    Done,
    Expired,
    Finished,
    Lost,
    Tick,
    WorkerHeard,
    WorkerLost,
    WorkerSilent,
)
from grader.dispatch.state import DispatcherConfig

STUCK_S = DispatcherConfig().stuck_s


def wait(desk, seconds):
    desk.now += seconds
    desk.tell(Tick())


@pytest.fixture
def desk(make_desk):
    return make_desk(stuck_s=STUCK_S)


@pytest.fixture
def stuck(desk):
    """Worker a has been at its first item for long; b has ended all that it had."""
    desk.workers("a", "b")
    numbers = desk.submit(6, cost_s=10.0)
    for number in list(desk.at["b"]):
        desk.finish("b", number)
    assert len(desk.at["a"]) == 3
    desk.numbers = numbers
    return desk


def test_what_waits_behind_a_long_item_goes_to_a_worker_that_has_room(stuck):
    first, *behind = stuck.at["a"]
    wait(stuck, STUCK_S - 0.01)
    assert stuck.at["a"] == [first, *behind]
    wait(stuck, 0.01)
    assert stuck.at == {"a": [first], "b": behind}
    assert stuck.machine.retries == {"put_back": 2}
    stuck.finish_all()
    assert stuck.outcomes == dict.fromkeys(stuck.numbers, Done(1))
    wait(stuck, STUCK_S)
    assert stuck.left() == {}
    assert stuck.machine.next_wake(stuck.now) is None


def test_the_machine_asks_to_be_woken_for_it(stuck):
    assert stuck.machine.next_wake(stuck.now) == STUCK_S
    stuck.now = stuck.machine.next_wake(stuck.now)
    stuck.tell(Tick())
    assert len(stuck.at["a"]) == 1


def test_nothing_is_given_to_it_until_it_has_ended_that_item(stuck):
    wait(stuck, STUCK_S)
    more = stuck.submit(5, cost_s=10.0)
    (first,) = stuck.at["a"]
    stuck.finish("a", first)
    assert stuck.at["a"]
    assert set(stuck.at["a"]) <= set(more)


def test_what_is_taken_back_goes_before_what_waits(stuck):
    waiting = stuck.submit(8, cost_s=10.0)
    wait(stuck, STUCK_S)
    behind = {number for _, number in stuck.abandoned}
    (first,) = stuck.at["b"]
    stuck.finish("b", first)
    assert len(stuck.at["b"]) == 3
    assert set(stuck.at["b"]) <= behind
    stuck.finish_all()
    assert stuck.outcomes == dict.fromkeys([*stuck.numbers, *waiting], Done(1))


@pytest.mark.parametrize("end", ["cancelled", "lost"])
def test_a_worker_whose_long_item_ends_otherwise_is_given_items_again(stuck, end):
    wait(stuck, STUCK_S)
    (first,) = stuck.at["a"]
    if end == "cancelled":
        stuck.tell(CancelItems((first,)))
    else:
        stuck.at["a"].clear()
        stuck.tell(WorkerLost("a", "gone"))
        stuck.workers("a")
    stuck.submit(8, cost_s=10.0)
    assert len(stuck.at["a"]) == 3


def test_a_worker_that_goes_on_keeps_what_it_has(desk):
    desk.workers("a")
    desk.submit(20, cost_s=10.0)
    for _ in range(10):
        held = list(desk.at["a"])
        wait(desk, STUCK_S * 0.9)
        assert desk.at["a"] == held
        desk.finish("a", held[0])
    assert desk.abandoned == []


def test_a_report_that_crosses_the_order_is_no_error(stuck):
    _, second, _ = stuck.at["a"]
    wait(stuck, STUCK_S)
    stuck.tell(Finished("a", second, 0.0))
    assert second in stuck.at["b"]
    stuck.finish_all()
    assert stuck.outcomes == dict.fromkeys(stuck.numbers, Done(1))


def test_what_is_taken_back_after_its_deadline_expires(desk):
    desk.workers("a")
    first, second = desk.submit(2, deadline=STUCK_S / 2)
    wait(desk, STUCK_S)
    assert desk.at["a"] == [first]
    assert desk.outcomes == {second: Expired()}


def test_a_silent_worker_keeps_what_it_has_and_others_have_copies(stuck):
    held = list(stuck.at["a"])
    stuck.tell(WorkerSilent("a"))
    wait(stuck, STUCK_S)
    assert stuck.at == {"a": held, "b": held}


def test_a_copy_that_becomes_the_only_one_is_taken_back(desk):
    desk.workers("a")
    first, second, third = desk.submit(3)
    desk.workers("b")
    desk.tell(WorkerSilent("a"))
    desk.tell(WorkerHeard("a"))
    assert desk.at == {"a": [first, second, third], "b": [first, second, third]}
    wait(desk, STUCK_S)
    desk.at["a"].remove(second)
    desk.tell(Lost("a", second, False, "its cell went down"))
    desk.workers("c")
    assert desk.at["c"] == []
    wait(desk, STUCK_S)
    assert desk.at["b"] == [first, third]
    assert desk.at["c"] == [second]
