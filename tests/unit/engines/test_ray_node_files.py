"""The cache folder of a node: what inline tests bring is bounded there, and what is in use stays."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from grader.engines import ray_node
from grader.engines.ray_files import ClusterFiles
from grader.engines.ray_node import NodeFolder
from grader.limits import Limits
from grader.suites import registry
from grader.suites.inline import SUITE_SHA256, InlineTasks
from grader.suites.task import Task
from grader.worker.eviction import KEPT_S
from grader.worker.grading import Policy
from grader.worker.messages import Cancel, Grade, Graded, Lost, Prepare, Prepared
from grader.worker.program import Program

KEY = "key"
SIZE = 1000
POLICY = Policy(Limits(), None, True)


def inline_tasks(count: int) -> list[Task]:
    tasks = InlineTasks()
    for number in range(count):
        tasks.add({"inputs": [f"{number}\n"], "outputs": ["1\n"]}, "tests")
    return list(tasks.suite.tasks.values())


def grade(number: int, task: Task) -> Grade:
    return Grade(number, Program(task.task_id, str(number), "print(1)"), task, SUITE_SHA256, POLICY)


class Node:
    """A node's folder, in which there is room for ten files."""

    def __init__(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray_node, "_TIDIED_AFTER", 5)
        self.cache = cache
        self.folder = NodeFolder(cache, KEY, max_bytes=10 * SIZE)

    def path(self, task: Task) -> Path:
        (name,) = self.folder.names(grade(0, task))
        return self.cache / name

    def receive(self, tasks: list[Task]) -> None:
        asyncio.run(
            self.folder.receive({str(self.path(task).relative_to(self.cache)): bytes(SIZE) for task in tasks})
        )

    def grow_old(self) -> None:
        """Have what is there not been used for long."""
        long_ago = time.time() - 2 * KEPT_S
        for file in self.cache.rglob("*.json"):
            os.utime(file, (long_ago, long_ago))

    def has(self, tasks: list[Task]) -> list[bool]:
        return [self.path(task).is_file() for task in tasks]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def test_what_is_sent_to_a_node_is_bounded(node):
    old, new = inline_tasks(15)[:10], inline_tasks(15)[10:]
    node.receive(old)
    node.grow_old()
    node.receive(new)
    assert sum(node.has(old)) <= 5
    assert all(node.has(new))


def test_what_is_made_on_a_node_is_bounded_too(node):
    tasks = inline_tasks(15)
    node.folder.require([Prepare(number, task, SUITE_SHA256, Limits()) for number, task in enumerate(tasks)])
    for task in tasks:
        node.path(task).parent.mkdir(parents=True, exist_ok=True)
        node.path(task).write_bytes(bytes(SIZE))
    node.grow_old()
    node.folder.release([Prepared(number) for number in range(15)])
    node.receive([])
    assert sum(node.has(tasks)) <= 10


def test_large_files_are_looked_through_sooner(node, monkeypatch):
    monkeypatch.setattr(ray_node, "_TIDIED_AFTER", 1000)
    monkeypatch.setattr(ray_node, "_TIDIED_AFTER_BYTES", 12 * SIZE)
    tasks = inline_tasks(13)
    node.receive(tasks[:11])
    node.grow_old()
    node.receive(tasks[11:])
    assert sum(node.has(tasks)) <= 10


@pytest.mark.parametrize(
    ("done", "stays"),
    [
        (None, True),
        (Graded(7, {}), False),
        (Lost(7, False, "gone"), False),
        (Cancel((7,)), False),
    ],
)
def test_what_a_job_needs_stays_until_it_is_done(node, done, stays):
    tasks = inline_tasks(20)
    node.receive(tasks[:4])
    node.folder.require([grade(7, tasks[0])])
    if isinstance(done, Cancel):
        node.folder.require([done])
    elif done is not None:
        node.folder.release([done])
    node.grow_old()
    node.receive(tasks[4:])
    assert node.has(tasks[:1]) == [stays]


def test_others_on_the_node_see_what_is_in_use(node):
    tasks = inline_tasks(20)
    node.receive(tasks[:4])
    node.folder.require([grade(7, tasks[0])])
    node.grow_old()
    node.folder.mark_held(time.monotonic())
    other = NodeFolder(node.cache, KEY, max_bytes=10 * SIZE)
    asyncio.run(
        other.receive({str(node.path(task).relative_to(node.cache)): bytes(SIZE) for task in tasks[4:]})
    )
    assert node.has(tasks[:4]) == [True, False, False, False]


def test_a_job_is_refused_whose_files_are_not_there(node):
    with pytest.raises(FileNotFoundError):
        node.folder.require([grade(7, inline_tasks(1)[0])])


def test_what_a_node_may_have_removed_is_sent_again(tmp_path):
    files = ClusterFiles(tmp_path, KEY)
    (name,) = files.names(grade(0, inline_tasks(1)[0]))
    suite = registry.load("starter")
    task = next(iter(suite.tasks.values()))
    (lasting,) = files.names(Grade(1, Program(task.task_id, "s", ""), task, suite.sha256, POLICY))
    both = {name, lasting}
    assert files.missing("node", both, now=0.0) == both
    files.note("node", both, now=0.0)
    assert files.missing("node", both, now=0.4 * KEPT_S) == set()
    assert files.missing("node", both, now=0.8 * KEPT_S) == set()
    assert files.missing("node", both, now=1.4 * KEPT_S) == {name}
    assert files.missing("another", both, now=0.0) == both
