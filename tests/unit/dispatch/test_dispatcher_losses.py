"""What becomes of items whose cell or worker goes down, is silent, or hands them back."""

from __future__ import annotations

import pytest

from grader.dispatch.events import (
    Done,
    Finished,
    GaveUp,
    Lost,
    Tick,
    Violation,
    WorkerHeard,
    WorkerLost,
    WorkerSilent,
)


def lose(desk, worker, number, blamed=False, why="cell down"):
    desk.at[worker].remove(number)
    return desk.tell(Lost(worker, number, blamed, why))


def lose_worker(desk, worker, why="killed"):
    held, desk.at[worker] = desk.at[worker], []
    desk.tell(WorkerLost(worker, why))
    return held


def where(desk, number):
    return [worker for worker, held in desk.at.items() if number in held]


def test_a_lost_item_goes_to_another_worker(desk):
    desk.workers("a", "b")
    (number,) = desk.submit()
    (first,) = where(desk, number)
    lose(desk, first, number)
    (second,) = where(desk, number)
    assert second != first
    assert desk.machine.attempts(number) == 2
    desk.finish(second, number)
    assert desk.outcomes == {number: Done(2)}
    assert desk.machine.retries == {"cell_lost": 1}


def test_a_lost_item_waits_for_another_worker_that_is_busy(desk):
    desk.workers("a", "b")
    numbers = desk.submit(8, cost_s=10.0)
    item = desk.at["a"][0]
    lose(desk, "a", item)
    assert where(desk, item) == []
    assert len(desk.at["a"]) == 3  # what waited behind it does not wait for b
    desk.finish("b", desk.at["b"][0])
    assert where(desk, item) == ["b"]
    desk.finish_all()
    assert set(desk.outcomes) == set(numbers)


def test_a_lost_item_goes_back_where_no_other_worker_is(desk):
    desk.workers("a")
    (number,) = desk.submit()
    lose(desk, "a", number)
    assert where(desk, number) == ["a"]


def test_a_silent_worker_is_no_other_worker(desk):
    desk.workers("a", "b")
    desk.tell(WorkerSilent("b"))
    (number,) = desk.submit()
    lose(desk, "a", number)
    assert where(desk, number) == ["a"]


@pytest.mark.parametrize("silent", [False, True])
def test_a_worker_that_is_gone_is_no_other_worker(desk, silent):
    desk.workers("a", "b")
    if silent:
        desk.tell(WorkerSilent("b"))
    desk.tell(WorkerLost("b", "gone"))
    (number,) = desk.submit()
    lose(desk, "a", number)
    assert where(desk, number) == ["a"]


def test_three_retries_and_no_more(desk):
    desk.workers("a", "b", "c", "d", "e")
    (number,) = desk.submit()
    visited = []
    for _ in range(4):
        (worker,) = where(desk, number)
        visited.append(worker)
        lose(desk, worker, number, why=f"{worker} down")
    assert len(set(visited)) == 4
    assert desk.outcomes == {number: GaveUp(f"{visited[-1]} down", 4)}
    assert desk.left() == {}


def test_blamed_twice_is_a_violation(desk):
    desk.workers("a", "b")
    (number,) = desk.submit()
    for _ in range(2):
        lose(desk, where(desk, number)[0], number, blamed=True, why="took its cell down")
    assert desk.outcomes == {number: Violation("took its cell down", 2)}
    assert desk.machine.retries == {"blamed": 1}


def test_blamed_once_is_tried_again(desk):
    desk.workers("a", "b")
    (number,) = desk.submit()
    lose(desk, where(desk, number)[0], number, blamed=True)
    lose(desk, where(desk, number)[0], number, blamed=False)
    desk.finish(where(desk, number)[0], number)
    assert desk.outcomes == {number: Done(3)}


def test_of_a_lost_worker_only_the_oldest_item_has_had_its_attempt(desk):
    desk.workers("a")
    numbers = desk.submit(5)
    assert desk.at["a"] == numbers[:5]
    lose_worker(desk, "a")
    assert [desk.machine.attempts(number) for number in numbers] == [2, 1, 1, 1, 1]
    assert desk.machine.retries == {"worker_lost": 1, "put_back": 4}
    desk.workers("b")
    assert desk.at["b"] == numbers


def test_four_lost_workers_are_four_attempts(desk):
    (number,) = desk.submit()
    for worker in "abcd":
        desk.workers(worker)
        lose_worker(desk, worker, why=f"{worker} is gone")
    assert desk.outcomes == {number: GaveUp("d is gone", 4)}


def test_what_came_back_goes_before_what_waits(desk):
    desk.workers("a", "b")
    numbers = desk.submit(20, cost_s=1.0)
    held = lose_worker(desk, "a")
    for _ in range(3):
        desk.finish("b", desk.at["b"][0])
    assert desk.at["b"] == held
    desk.finish_all()
    assert set(desk.outcomes) == set(numbers)


def test_what_came_back_is_not_paid_for_twice(desk):
    desk.workers("a")
    mine = desk.submit(6, tenant="mine", cost_s=1.0)
    desk.submit(6, tenant="other", request_id="o", cost_s=1.0)
    assert lose_worker(desk, "a") == mine[:3]
    desk.workers("b")
    # The other came when the third was served, so that these two are due at the same time.
    assert desk.at["b"][:2] == mine[:2]


def test_an_item_that_the_only_worker_with_room_has_lost_does_not_hold_up_those_behind_it(desk):
    desk.workers("busy")
    long, *_ = desk.submit(3, cost_s=100.0)
    desk.workers("a", "b")
    (lost,) = desk.submit()
    (first_holder,) = where(desk, lost)
    lose(desk, first_holder, lost)
    (holder,) = where(desk, lost)
    assert holder != first_holder
    desk.tell(WorkerSilent(first_holder))
    (behind,) = desk.submit()
    desk.tell(WorkerHeard(first_holder))
    desk.tell(WorkerSilent(holder))
    assert behind in desk.at[first_holder]
    assert lost not in desk.at[first_holder]
    desk.finish("busy", long)
    assert lost in desk.at["busy"]
    desk.finish_all()
    assert desk.left() == {}


def test_a_silent_workers_items_are_sent_to_another_once(desk):
    desk.workers("a")
    numbers = desk.submit(2)
    desk.workers("b", "c")
    desk.tell(WorkerSilent("a"))
    copies = desk.at["b"] + desk.at["c"]
    assert sorted(copies) == numbers
    desk.tell(WorkerSilent("a"))
    desk.tell(Tick())
    assert sorted(desk.at["b"] + desk.at["c"]) == numbers
    assert desk.machine.running == 2
    assert desk.machine.retries == {"hedged": 2}


@pytest.mark.parametrize("winner", ["a", "b"])
def test_the_first_verdict_on_a_hedged_item_counts(desk, winner):
    desk.workers("a")
    (number,) = desk.submit()
    desk.workers("b")
    desk.tell(WorkerSilent("a"))
    loser = "b" if winner == "a" else "a"
    assert set(desk.machine.holders(number)) == {"a", "b"}
    desk.finish(winner, number)
    assert desk.outcomes == {number: Done(1)}
    assert desk.abandoned == [(loser, number)]
    assert desk.tell(Finished(loser, number, 0.0)) == []
    assert desk.left() == {}


def test_a_worker_that_is_heard_again_has_nothing_more_hedged(desk):
    desk.workers("a")
    numbers = desk.submit(3)
    desk.tell(WorkerSilent("a"))
    desk.tell(WorkerHeard("a"))
    desk.workers("b")
    assert desk.at["b"] == []
    assert desk.at["a"] == numbers


def test_a_silent_worker_gets_nothing(desk):
    desk.workers("a")
    desk.tell(WorkerSilent("a"))
    (number,) = desk.submit()
    assert desk.at["a"] == []
    desk.tell(WorkerHeard("a"))
    assert desk.at["a"] == [number]


def test_a_hedged_item_survives_either_worker(desk):
    desk.workers("a")
    (number,) = desk.submit()
    desk.workers("b")
    desk.tell(WorkerSilent("a"))
    lose_worker(desk, "a")
    assert desk.machine.holders(number) == ("b",)
    assert desk.machine.queued() == {}
    desk.finish("b", number)
    assert desk.outcomes == {number: Done(2)}


def test_an_item_whose_copy_is_lost_is_hedged_again(desk):
    desk.workers("a")
    (number,) = desk.submit()
    desk.workers("b", "c")
    desk.tell(WorkerSilent("a"))
    (second,) = [worker for worker in where(desk, number) if worker != "a"]
    lose(desk, second, number)
    (third,) = [worker for worker in where(desk, number) if worker != "a"]
    assert third not in ("a", second)


def test_an_item_that_is_given_up_is_abandoned_everywhere(desk):
    desk.workers("a")
    (number,) = desk.submit()
    desk.workers("b")
    desk.tell(WorkerSilent("a"))
    for _ in range(4):
        lose(desk, "b", number)
        if number not in desk.at["b"]:
            break
    assert desk.outcomes == {number: GaveUp("cell down", 4)}
    assert desk.abandoned == [("a", number)]
    assert desk.left() == {}


def test_a_worker_of_the_same_name_is_a_new_one(desk):
    desk.workers("a")
    (number,) = desk.submit()
    lose_worker(desk, "a")
    desk.workers("a")
    assert desk.at["a"] == [number]
    desk.finish("a", number)
    assert desk.outcomes == {number: Done(2)}


def test_reports_on_what_is_not_held_are_ignored(desk):
    desk.workers("a", "b")
    (number,) = desk.submit()
    for event in (
        Finished("b", number, 1.0),
        Finished("nobody", number, 1.0),
        Finished("a", 999, 1.0),
        Lost("b", number, True, "late"),
        Lost("nobody", number, True, "late"),
        WorkerLost("nobody", "late"),
        WorkerSilent("nobody"),
        WorkerHeard("nobody"),
    ):
        assert desk.tell(event) == []
    assert desk.at == {"a": [number], "b": []}
    assert desk.machine.attempts(number) == 1
    desk.finish("a", number)
    numbers = desk.submit(6, cost_s=1.0)
    assert len(desk.at["b"]) == 3
    desk.finish_all()
    assert set(numbers) < set(desk.outcomes)
