"""What an item is thought to cost: told by the reference at first, then learned from verdicts."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from grader.dispatch.events import Item


@dataclass(slots=True)
class TaskCosts:
    """What is known of one task: exponential means over its items, in seconds for which they occupied a worker, and the
    worker that had it last.

    ``mean_s`` is over all. ``used_s`` and ``told_s`` are over those whose reference's cost was told: their
    quotient says how samples do beside the reference, also where an item is only a part of the task's tests.
    """

    mean_s: float | None = None
    used_s: float = 0.0
    told_s: float = 0.0
    last_worker: str | None = None


class CostModel:
    """Estimates in seconds of a worker, from a bounded memory of tasks and tenants; the least recently used are
    forgotten.

    A program that waits keeps its worker from others as one does that computes: the CPU time that a reference needs is
    only what is thought of a task at first.
    Every item has ``overhead_s`` on top of what its program uses: what a worker needs for any sample. An exponential
    mean with ``rate`` forgets old samples, so that it follows a model that is being trained.
    """

    def __init__(self, *, default_s: float, overhead_s: float, rate: float, limit: int) -> None:
        self._default_s = default_s
        self._overhead_s = overhead_s
        self._rate = rate
        self._limit = limit
        self._tasks: OrderedDict[str, TaskCosts] = OrderedDict()
        self._tenants: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many tasks and tenants are remembered."""
        return len(self._tasks) + len(self._tenants)

    def of_task(self, key: str) -> TaskCosts:
        """Return what is known of a task, to be kept with its items and to be learned from them."""
        known = self._tasks.get(key)
        if known is None:
            known = self._tasks[key] = TaskCosts()
            if len(self._tasks) > self._limit:
                self._tasks.popitem(last=False)
        else:
            self._tasks.move_to_end(key)
        return known

    def estimate(self, item: Item, task: TaskCosts) -> float:
        """Seconds for which this item, which is of this task, is thought to occupy a worker.

        What is known of its task; else what its reference needs; else what its tenant's samples needed, since a tenant
        may bring a new task with every sample; else the default.
        """
        if item.cost_s is not None:
            if task.told_s <= 0:
                return self._overhead_s + item.cost_s
            return self._overhead_s + item.cost_s * task.used_s / task.told_s
        if task.mean_s is not None:
            return self._overhead_s + task.mean_s
        return self._overhead_s + self._tenants.get(item.tenant, self._default_s)

    def learn(self, item: Item, task: TaskCosts, occupied_s: float) -> None:
        """Take for how many seconds an item, which is of this task, occupied its worker."""
        rate, told_s = self._rate, item.cost_s
        task.mean_s = occupied_s if task.mean_s is None else task.mean_s + rate * (occupied_s - task.mean_s)
        if told_s is not None:
            if task.told_s <= 0:
                task.used_s = task.told_s = told_s
            task.used_s += rate * (occupied_s - task.used_s)
            task.told_s += rate * (told_s - task.told_s)
        mean_s = self._tenants.get(item.tenant, occupied_s)
        self._tenants[item.tenant] = mean_s + rate * (occupied_s - mean_s)
        self._tenants.move_to_end(item.tenant)
        if len(self._tenants) > self._limit:
            self._tenants.popitem(last=False)
