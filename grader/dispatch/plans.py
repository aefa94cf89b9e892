"""How a task's samples are graded: what they may cost, whether in parts, and whether its expected answers are there."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from grader.suites import inline
from grader.suites.task import FunctionTests, Suite, Task
from grader.worker.bundle import BundleStore
from grader.worker.eviction import MAX_BYTES, evict, mark_used
from grader.worker.grading import Policy
from grader.worker.messages import TravellingTask
from grader.worker.parts import Assembly, Part, parts_of

_KEPT = 4096  # plans of tasks; inline tests bring ever new ones
_KEPT_STORES = 64
_MAX_INLINE_BYTES = MAX_BYTES
_TIDIED_AFTER = 256  # new tasks of inline tests, before the folder is looked through again


@dataclass(frozen=True, slots=True)
class Plan:
    """How one task's samples are graded.

    ``key`` names the task among those of all suites. ``light`` is the task without the inputs and answers that its
    bundle has: it travels with every job. ``cost_s`` is what the reference needs, in CPU seconds; None where that is
    not known.
    """

    key: str
    light: Task
    cost_s: float | None
    parts: tuple[Part, ...]
    part_costs_s: tuple[float, ...]
    totals: dict[str, int]
    group_limit_s: float

    def assembly(self) -> Assembly | None:
        """Return the assembly for a new sample, if it is to be graded in parts."""
        return Assembly(self.parts, self.totals, self.group_limit_s) if self.parts else None


class _Kind:
    """A suite and a policy, for as long as there is a plan for them."""


class Plans:
    """Plans by suite, task and policy, and the bundles that are being made."""

    def __init__(self, cache: Path, root_key: str) -> None:
        self._cache, self._root_key = cache, root_key
        self._stores: OrderedDict[str, BundleStore] = OrderedDict()
        self._plans: OrderedDict[tuple[_Kind, str], Plan] = OrderedDict()
        self._kinds: WeakValueDictionary[tuple[str, Policy], _Kind] = WeakValueDictionary()
        self._names: OrderedDict[tuple[str, str], tuple[str, ...]] = OrderedDict()
        self._making: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._untidied = 0

    def missing(
        self, suite: Suite, tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, asyncio.Future[None] | None]]:
        """Yield the tasks whose expected answers are not there, with what to wait for if they are being made."""
        for task in tasks:
            key = (suite.sha256, task.task_id)
            if key in self._making:
                yield task, self._making[key]
            elif not all(map(os.path.isfile, files := self._files_of(suite, task))):
                yield task, None
            elif suite.sha256 == inline.SUITE_SHA256:
                mark_used(map(Path, files))

    def begin(self, suite: Suite, task: Task, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Note that a task's expected answers are being made; return what is done when they are."""
        key = (suite.sha256, task.task_id)
        future: asyncio.Future[None] = loop.create_future()
        self._making[key] = future

        def made(_: asyncio.Future[None]) -> None:
            del self._making[key]
            if not future.cancelled() and future.exception() is None:
                self._untidied += suite.sha256 == inline.SUITE_SHA256

        future.add_done_callback(made)
        return future

    def tidy(self, loop: asyncio.AbstractEventLoop, in_use: Iterable[Suite]) -> None:
        """Remove expected answers of inline tests where there are too many, now and then, and in a thread.

        Those of the suites in use stay.
        """
        if self._untidied < _TIDIED_AFTER:
            return
        self._untidied = 0
        store = BundleStore(self._cache, inline.SUITE_SHA256, self._root_key)
        tasks = [
            task for suite in in_use if suite.sha256 == inline.SUITE_SHA256 for task in suite.tasks.values()
        ]
        kept = [file for task in tasks for file in store.files(task)]
        loop.run_in_executor(None, partial(evict, store.folder, max_bytes=_MAX_INLINE_BYTES, kept=kept))

    def of(self, suite: Suite, tasks: Iterable[Task], policy: Policy) -> dict[str, Plan]:
        """Return the plans, by ``task_id``, for tasks whose expected answers are there."""
        key = (suite.sha256, policy)  # whose hash takes longer than all that is done for a task
        kind = self._kinds.setdefault(key, _Kind())
        found = {}
        for task in tasks:
            plan = self._plans.pop((kind, task.task_id), None) or self._made(suite, task, policy)
            self._plans[kind, task.task_id] = found[task.task_id] = plan
            if len(self._plans) > _KEPT:
                self._plans.popitem(last=False)
        return found

    def _made(self, suite: Suite, task: Task, policy: Policy) -> Plan:
        chosen = policy.chosen(task)
        cost_s: float | None = None
        parts: tuple[Part, ...] = ()
        costs: tuple[float, ...] = ()
        totals: dict[str, int] = {}
        limit_s = 0.0
        if chosen and all(isinstance(group.tests, FunctionTests) for group in chosen):
            bundle = self._store(suite).open(task)
            names = [group.name for group in chosen]
            times = {name: [bundle.times[test] for test in bundle.tests_of([name])] for name in names}
            cost_s = sum(map(sum, times.values()))
            totals = {name: len(times[name]) for name in names}
            limit_s = policy.limits.whole_group_time_s(sum(bundle.times))
            if policy.fail_fast:
                parts = parts_of([(name, times[name]) for name in names])
            costs = tuple(sum(times[part.group][part.begin : part.end]) for part in parts)
        return Plan(
            task_key(suite, task.task_id), _without_inputs(task), cost_s, parts, costs, totals, limit_s
        )

    def _files_of(self, suite: Suite, task: Task) -> tuple[str, ...]:
        """The files with a task's expected answers. Their names are kept, as to find them takes longer than to ask the
        disk, which is done for every batch: a cache folder may be tidied by others at any time."""
        key = (suite.sha256, task.task_id)
        files = self._names.get(key)
        if files is None:
            files = self._names[key] = tuple(map(str, self._store(suite).files(task)))
            if len(self._names) > _KEPT:
                self._names.popitem(last=False)
        return files

    def _store(self, suite: Suite) -> BundleStore:
        store = self._stores.pop(suite.sha256, None)
        store = store or BundleStore(self._cache, suite.sha256, self._root_key)
        self._stores[suite.sha256] = store
        if len(self._stores) > _KEPT_STORES:
            self._stores.popitem(last=False)
        return store


def task_key(suite: Suite, name: str) -> str:
    """Return what names this task, or other work for it, among those of all suites."""
    return f"{suite.sha256[:16]}/{name}"


def _without_inputs(task: Task) -> Task:
    """The task without the inputs and answers that its bundle has."""
    groups = tuple(
        replace(group, tests=FunctionTests(tuple)) if isinstance(group.tests, FunctionTests) else group
        for group in task.groups
    )
    return TravellingTask(**vars(task) | {"groups": groups})
