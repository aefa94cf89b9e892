"""A sample that is graded in parts has one verdict, whatever its parts say and when."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.dispatch import events
from grader.dispatch.contract import Batch
from grader.dispatch.driver import Driver
from grader.dispatch.plans import Plan
from grader.dispatch.work import Grading, Sample
from grader.status import Status
from grader.suites.inline import inline_suite, inline_task
from grader.worker.parts import Assembly, Part
from grader.worker.program import Program

PARTS = [Part("base", index, index + 1) for index in range(4)]


def part_verdict(status):
    passed = status is Status.PASSED
    group = {"status": status, "passed": int(passed), "total": 1, "first_failed": None if passed else 0}
    numbers = {"cpu_s": 0.1, "wall_s": 0.1, "peak_memory_bytes": 1, "attempts": 1}
    return {"status": status, "passed": passed, "groups": {"base": group}, "reward": float(passed), **numbers}


@pytest.mark.parametrize("first", [Status.PASSED, Status.WRONG_ANSWER])
@given(
    others=st.permutations([1, 2, 3]),
    statuses=st.lists(
        st.sampled_from([Status.PASSED, Status.WRONG_ANSWER, Status.TIME_LIMIT]), min_size=3, max_size=3
    ),
)
def test_parts_that_end_before_they_can_be_cancelled_make_no_second_verdict(first, others, statuses):
    verdicts = []
    request = SimpleNamespace(closed=False, on_result=verdicts.append)
    assembly = Assembly(PARTS, {"base": len(PARTS)}, 60.0)
    sample = Sample(request, None, None, assembly, numbers={part: part for part in range(len(PARTS))})
    ends = [(0, first)]
    if first is Status.PASSED:  # only then are the others begun
        ends += zip(others, statuses, strict=True)
    for part, status in ends:
        Grading(sample, part, lambda *_: None).end(events.Done(1), part_verdict(status), {})
    assert len(verdicts) == 1
    by_part = [status for _, status in sorted(ends)]
    assert verdicts[0]["status"] == next((one for one in by_part if one is not Status.PASSED), Status.PASSED)


def test_a_part_is_charged_what_it_costs_and_not_what_all_of_its_task_does():
    suite = inline_suite([inline_task({"inputs": ["1"], "outputs": ["1"]}, "tests")])
    (task,) = suite.tasks.values()
    driver = Driver(SimpleNamespace())
    request = driver.open(Batch(request_id="r", suite=suite, programs=()), lambda _: None)
    plan = Plan("k", task, 46.0, tuple(PARTS), (0.5, 2.0, 2.0, 41.5), {"base": len(PARTS)}, 60.0)
    sample = Sample(request, Program(task.task_id, "s", ""), plan, plan.assembly())
    assert [item.cost_s for item in driver._part_items(sample, sample.assembly.first_wave)] == [0.5]
    assert [item.cost_s for item in driver._part_items(sample, (1, 2, 3))] == [2.0, 2.0, 41.5]
