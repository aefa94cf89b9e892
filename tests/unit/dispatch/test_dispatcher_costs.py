"""Estimates of what an item costs, and the heap that workers and tenants are found by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.dispatch.costs import CostModel
from grader.dispatch.events import Item
from grader.dispatch.heaps import LazyHeap


def item(**fields):
    return Item(**({"number": 1, "request_id": "r", "tenant": "t", "task_key": "k"} | fields))


def estimate(model, item):
    return model.estimate(item, model.of_task(item.task_key))


def learn(model, item, cpu_s):
    model.learn(item, model.of_task(item.task_key), cpu_s)


@pytest.fixture
def model():
    return CostModel(default_s=0.01, overhead_s=0.002, rate=0.2, limit=4)


def test_nothing_known(model):
    assert estimate(model, item()) == pytest.approx(0.012)


def test_the_reference_tells_until_samples_do(model):
    told = item(cost_s=1.0)
    assert estimate(model, told) == pytest.approx(1.002)
    for _ in range(50):
        learn(model, told, 0.25)
    assert estimate(model, told) == pytest.approx(0.252, abs=1e-3)


def test_one_sample_does_not_change_everything(model):
    told = item(cost_s=1.0)
    learn(model, told, 0.0)
    assert estimate(model, told) == pytest.approx(0.802)


def test_parts_of_a_task_cost_their_part(model):
    """Samples use half of what the reference does, whichever part of the tests they are run on."""
    for _ in range(50):
        learn(model, item(cost_s=3.0), 1.5)
        learn(model, item(cost_s=0.1), 0.05)
    assert estimate(model, item(cost_s=3.0)) == pytest.approx(1.502, abs=0.01)
    assert estimate(model, item(cost_s=0.1)) == pytest.approx(0.052, abs=0.01)


def test_references_that_need_nothing_are_no_trouble(model):
    learn(model, item(cost_s=0.0), 1.0)
    assert estimate(model, item(cost_s=0.0)) == pytest.approx(0.002)


def test_a_new_task_costs_what_its_tenants_others_do(model):
    learn(model, item(task_key="a"), 2.0)
    assert estimate(model, item(task_key="b")) == pytest.approx(2.002)
    assert estimate(model, item(task_key="b", tenant="other")) == pytest.approx(0.012)


def test_the_least_recently_used_is_forgotten(model):
    for index in range(9):
        learn(model, item(task_key="kept"), 3.0)
        learn(model, item(task_key=f"k{index}", tenant=f"t{index}"), 5.0)
    assert len(model) == 8
    assert estimate(model, item(task_key="kept", tenant="x")) == pytest.approx(3.002)
    assert estimate(model, item(task_key="k0", tenant="x")) == pytest.approx(0.012)


class Thing:
    def __init__(self):
        self.key = None


@given(
    st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 5)), max_size=300),
    st.sets(st.integers(0, 9)),
)
def test_a_lazy_heap_finds_the_least_whatever_changed(changes, rejected):
    things = [Thing() for _ in range(10)]
    heap = LazyHeap(lambda thing: thing.key)
    for index, key in changes:
        things[index].key = key
        heap.push(things[index])
    out = [things[index] for index in rejected]
    for but in (out, ()):
        keys = [thing.key for thing in things if thing.key is not None and thing not in but]
        found = heap.least(but)
        assert (found.key if found else None) == min(keys, default=None)
    assert len(heap) <= 64 + 2 * 10


@given(st.lists(st.none() | st.integers(0, 5), max_size=100))
def test_the_least_of_a_lazy_heap_may_be_put_elsewhere_in_one_step(keys):
    things = [Thing() for _ in range(4)]
    heap = LazyHeap(lambda thing: thing.key)
    for key, thing in enumerate(things):
        thing.key = key
        heap.push(thing)
    for key in keys:
        least = heap.least()
        assert (least.key if least else None) == min(
            (thing.key for thing in things if thing.key is not None), default=None
        )
        if least is not None:
            least.key = key
            heap.push_least(least)


def test_a_lazy_heap_does_not_grow_with_changes():
    things = [Thing() for _ in range(10)]
    heap = LazyHeap(lambda thing: thing.key)
    for index in range(2000):
        things[index % 10].key = index
        heap.push(things[index % 10])
    assert len(heap) <= 64 + 2 * 10
    assert heap.least() is things[0]
