"""A task that goes with many jobs."""

from __future__ import annotations

import pickle

import pytest

from grader.suites.task import AssertionTests, Task, TestGroup
from grader.worker import messages
from grader.worker.messages import TravellingTask


def task_with(source: str) -> tuple[Task, TravellingTask]:
    """A task as it is, and as it travels."""
    groups = (TestGroup("base", AssertionTests([source])),)
    return Task("t/1", "", "f", "", groups), TravellingTask("t/1", "", "f", "", groups)


@pytest.mark.parametrize("length", [10, 2 * messages._KEPT_BYTES])
def test_it_arrives_as_a_plain_task(length: int) -> None:
    plain, travelling = task_with("#" * length)
    arrived = [pickle.loads(pickle.dumps(travelling)) for _ in range(2)]
    assert [type(one) for one in arrived] == [Task, Task]
    assert arrived == [plain, plain]


def test_it_is_pickled_once_and_read_once() -> None:
    tests = ["assert f() == 'pickled once'"]
    travelling = TravellingTask("t/1", "", "f", "", (TestGroup("base", AssertionTests(tests)),))
    first = pickle.dumps(travelling)
    tests.append("assert f() == 'too late'")
    assert pickle.dumps(travelling) == first
    assert pickle.loads(first) is pickle.loads(first)
