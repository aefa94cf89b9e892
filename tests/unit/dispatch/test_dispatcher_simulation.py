"""The promise of fairness, in simulated time: workers that need as long as their items cost."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest

from grader.dispatch.events import Deliver, Finished, Item, Send, Submit, WorkerReady
from grader.dispatch.state import Dispatcher, DispatcherConfig


class Cluster:
    """Workers that run one item after the other, each for what it costs; time passes from finish to finish."""

    def __init__(self, workers):
        self.machine = Dispatcher(DispatcherConfig())
        self.now = 0.0
        self.free_at = dict.fromkeys(range(workers), 0.0)
        self.ends = []
        self.costs = {}
        self.delivered = set()
        self.numbers = itertools.count()
        for worker in self.free_at:
            self.tell(WorkerReady(str(worker), "n"))

    def submit(self, tenant, costs, told, request="r"):
        items = []
        for cost_s in costs:
            number = next(self.numbers)
            self.costs[number] = cost_s
            items.append(
                Item(number=number, request_id=f"{tenant}-{request}", tenant=tenant, task_key=f"k{number % 164}",
                     cost_s=cost_s if told else None)
            )  # fmt: skip
        self.tell(Submit(tuple(items)))
        return {item.number for item in items}

    def tell(self, event):
        for instruction in self.machine.handle(event, self.now):
            if isinstance(instruction, Send):
                worker = int(instruction.worker)
                for item in instruction.items:
                    begin = max(self.now, self.free_at[worker])
                    # What the program uses, and what a worker needs for any sample.
                    self.free_at[worker] = begin + self.costs[item.number] + 0.002
                    heapq.heappush(self.ends, (self.free_at[worker], item.number, instruction.worker))
            elif isinstance(instruction, Deliver):
                self.delivered.add(instruction.number)

    def run_until(self, wanted):
        """Go on until ``wanted`` are delivered; return the time that took."""
        begin, left = self.now, set(wanted) - self.delivered
        while left:
            self.now, number, worker = heapq.heappop(self.ends)
            self.tell(Finished(worker, number, self.costs[number]))
            left.discard(number)
        return self.now - begin


def costs_of(kind, count, seed):
    """CPU seconds of samples, as ``kind`` says: all alike, or most of them fast and a few slow."""
    if kind == "mixed":
        draw = random.Random(seed)
        return [draw.choice([0.0, 0.001, 0.001, 0.005, 0.005, 0.02, 0.1]) for _ in range(count)]
    return [kind] * count


def alone_and_shared(workers, kind, told):
    """Seconds that a batch of 64 takes on half the workers, and on all of them with another tenant's 50,000 queued."""
    batch = costs_of(kind, 64, 1)
    alone = Cluster(workers // 2)
    alone_s = alone.run_until(alone.submit("b", batch, told))
    shared = Cluster(workers)
    large = shared.submit("a", costs_of(kind, 50_000, 2), told)
    shared.run_until({min(large)})
    shared_s = shared.run_until(shared.submit("b", batch, told))
    assert len(shared.delivered & large) < 10_000
    return alone_s, shared_s


@pytest.mark.parametrize("told", [True, False], ids=["told", "unknown"])
@pytest.mark.parametrize("kind", [0.005, 1.0, "mixed"])
@pytest.mark.parametrize("workers", [2, 8])
def test_a_batch_beside_a_full_queue_takes_at_most_twice_what_it_takes_on_half_the_workers(
    workers, kind, told
):
    alone_s, shared_s = alone_and_shared(workers, kind, told)
    assert shared_s <= 2 * alone_s


@pytest.mark.parametrize("workers", [8, 64])
def test_a_batch_that_is_short_beside_what_workers_hold_waits_for_little_more_than_that(workers):
    """It waits for what they hold, and for the rest of what they are sent together with it."""
    alone_s, shared_s = alone_and_shared(workers, 0.0, told=True)
    assert shared_s <= 2 * alone_s + 2 * DispatcherConfig().batch_s


def test_a_trainers_batches_keep_their_pace_beside_an_evaluator():
    """Batch after batch, each when the last one is done: every one of them gets its half."""
    alone = Cluster(4)
    alone_s = [alone.run_until(alone.submit("b", costs_of("mixed", 512, n), True, n)) for n in range(5)]
    shared = Cluster(8)
    shared.submit("a", costs_of("mixed", 50_000, 99), True)
    shared_s = [shared.run_until(shared.submit("b", costs_of("mixed", 512, n), True, n)) for n in range(5)]
    assert all(together <= 1.5 * by_itself for together, by_itself in zip(shared_s, alone_s, strict=True))


def test_workers_end_at_the_same_time():
    """Long ones first: no worker is left with a long item when the others have ended."""
    cluster = Cluster(8)
    costs = [5.0] * 6 + [0.01] * 3000 + [1.0] * 20
    total_s = cluster.run_until(cluster.submit("a", costs, True))
    assert total_s <= 1.1 * max(5.0, (sum(costs) + 0.002 * len(costs)) / 8)
