"""How many plans are kept: requests choose their limits, and bring tasks of their own."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from grader.dispatch import plans
from grader.errors import SuiteError
from grader.limits import Limits
from grader.suites import registry
from grader.suites.task import Suite, Task
from grader.worker.bundle import BundleStore
from grader.worker.grading import Policy

_KEPT = 6


class _Plans(plans.Plans):
    """Plans that need no expected answers, and say how many are kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "key")
        self.made: list[tuple[str, float]] = []

    def _made(self, suite: Suite, task: Task, policy: Policy) -> plans.Plan:
        if task.task_id.startswith("broken"):
            raise SuiteError("its expected answers are damaged")
        self.made.append((task.task_id, policy.limits.time_floor_s))
        return plans.Plan(task.task_id, task, 0.0, (), (), {}, 0.0)

    def kept(self) -> list[tuple[str, float]]:
        floors = {kind: policy.limits.time_floor_s for (_, policy), kind in self._kinds.items()}
        return [(name, floors[kind]) for kind, name in self._plans]

    def kinds(self) -> int:
        return len(self._kinds)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Plans:
    monkeypatch.setattr(plans, "_KEPT", _KEPT)
    return _Plans(tmp_path)


SUITE = registry.load("starter")


def policy(floor_s: float) -> Policy:
    return Policy(replace(Limits(), time_floor_s=floor_s), None, fail_fast=True)


def tasks(*names: str) -> Iterable[Task]:
    one = next(iter(SUITE.tasks.values()))
    return [replace(one, task_id=name) for name in names]


def test_a_plan_is_made_once_for_each_policy(known: _Plans) -> None:
    for floor_s in (1.0, 2.0, 1.0):
        found = known.of(SUITE, tasks("a", "b"), policy(floor_s))
        assert {name: plan.light.task_id for name, plan in found.items()} == {"a": "a", "b": "b"}
    assert known.made == [("a", 1.0), ("b", 1.0), ("a", 2.0), ("b", 2.0)]


def test_answers_that_somebody_has_removed_are_missing_again(tmp_path: Path) -> None:
    found = plans.Plans(tmp_path, "key")
    store = BundleStore(tmp_path, SUITE.sha256, "key")
    (task,) = tasks("a")
    assert [missing.task_id for missing, _ in found.missing(SUITE, [task])] == ["a"]
    store.folder.mkdir(parents=True)
    for file in store.files(task):
        file.touch()
    assert list(found.missing(SUITE, [task])) == []
    shutil.rmtree(store.folder)
    assert [missing.task_id for missing, _ in found.missing(SUITE, [task])] == ["a"]


def test_those_that_were_used_last_are_kept(known: _Plans) -> None:
    known.of(SUITE, tasks("a", "b", "c"), policy(1.0))
    known.of(SUITE, tasks("a", "b", "c"), policy(2.0))
    known.of(SUITE, tasks("a"), policy(1.0))
    known.of(SUITE, tasks("d", "e"), policy(3.0))
    assert known.kept() == [("a", 2.0), ("b", 2.0), ("c", 2.0), ("a", 1.0), ("d", 3.0), ("e", 3.0)]
    for number in range(100):
        known.of(SUITE, tasks("a"), policy(10.0 + number))
    assert (len(known.kept()), known.kinds()) == (_KEPT, _KEPT)


def test_a_request_with_more_than_are_kept_gets_all_of_its_own(known: _Plans) -> None:
    names = [f"task-{number}" for number in range(3 * _KEPT)]
    assert list(known.of(SUITE, tasks(*names), policy(1.0))) == names
    assert [name for name, _ in known.kept()] == names[-_KEPT:]


def test_nothing_is_kept_of_what_cannot_be_planned(known: _Plans) -> None:
    for number in range(100):
        assert known.of(SUITE, tasks(), policy(1.0 + number)) == {}
        with pytest.raises(SuiteError):
            known.of(SUITE, tasks("broken"), policy(1.0 + number))
    assert known.kinds() == 0
    with pytest.raises(SuiteError):
        known.of(SUITE, tasks("a", "broken"), policy(1.0))
    assert known.kept() == [("a", 1.0)]
