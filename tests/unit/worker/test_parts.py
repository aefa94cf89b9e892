"""Cutting a task into parts and putting their verdicts together, held against grading the tests in a row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.status import Status
from grader.worker.parts import Assembly, Part, parts_of

TIMES = st.lists(st.floats(0, 3), max_size=30)
GROUPS = st.lists(TIMES, min_size=1, max_size=3).map(
    lambda times: [(f"g{index}", each) for index, each in enumerate(times)]
)


@given(GROUPS)
def test_parts_cover_every_test_once_in_order(groups):
    parts = parts_of(groups)
    if parts:
        covered = [(part.group, test) for part in parts for test in range(part.begin, part.end)]
        assert covered == [(name, test) for name, times in groups for test in range(len(times))]
        assert len(parts) > 1


@given(GROUPS)
def test_a_task_with_a_quick_reference_is_left_whole(groups):
    if sum(sum(times) for _, times in groups) < 4:
        assert parts_of(groups) == ()


def test_the_first_part_is_short():
    parts = parts_of([("base", [0.3] * 4), ("plus", [1.0] * 6)])
    assert parts == (
        Part("base", 0, 2),
        Part("base", 2, 4),
        Part("plus", 0, 2),
        Part("plus", 2, 4),
        Part("plus", 4, 6),
    )


def part_verdict(part: Part, failing: set[tuple[str, int]], cpu_s: float = 0.1) -> dict[str, object]:
    """What a worker says of a part in which these tests fail."""
    first = next((test for test in range(part.begin, part.end) if (part.group, test) in failing), None)
    status = Status.PASSED if first is None else Status.WRONG_ANSWER
    relative = None if first is None else first - part.begin
    passed = part.end - part.begin if relative is None else relative
    group = {
        "status": status,
        "passed": passed,
        "total": part.end - part.begin,
        "first_failed": relative,
    }
    return {
        "sample_id": "s",
        "status": status,
        "passed": first is None,
        "groups": {part.group: group},
        "reward": float(first is None),
        "cpu_s": cpu_s,
        "wall_s": cpu_s,
        "peak_memory_bytes": 7,
        "attempts": 1,
        "error": None,
    }


def in_a_row(groups: list[tuple[str, list[float]]], failing: set[tuple[str, int]]) -> dict[str, object]:
    """What grading all tests in one process finds, with fail-fast."""
    found: dict[str, object] = dict.fromkeys(name for name, _ in groups)
    for name, times in groups:
        first = next((test for test in range(len(times)) if (name, test) in failing), None)
        status = Status.PASSED if first is None else Status.WRONG_ANSWER
        passed = len(times) if first is None else first
        found[name] = {"status": status, "passed": passed, "total": len(times), "first_failed": first}
        if first is not None:
            break
    return found


@given(GROUPS.filter(lambda groups: bool(parts_of(groups))), st.data())
def test_together_the_parts_say_what_one_process_would(groups, data):
    parts = parts_of(groups)
    tests = [(name, test) for name, times in groups for test in range(len(times))]
    failing = data.draw(st.sets(st.sampled_from(tests), max_size=3))
    assembly = Assembly(parts, {name: len(times) for name, times in groups}, 60.0)
    waiting = list(assembly.first_wave)
    while waiting and assembly.verdict() is None:
        index = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        waiting += assembly.add(index, part_verdict(parts[index], failing))
        waiting = [index for index in waiting if index not in assembly.unwanted]
    verdict = assembly.verdict()
    assert verdict is not None
    expected = in_a_row(groups, failing)
    assert verdict["groups"] == expected
    assert verdict["passed"] == (not failing)
    assert verdict["reward"] == float(not failing)


@pytest.fixture
def halves() -> Assembly:
    return Assembly((Part("base", 0, 2), Part("base", 2, 4)), {"base": 4}, 60.0)


def test_parts_share_the_time_of_their_group(halves):
    assert list(halves.add(0, part_verdict(halves.parts[0], set(), cpu_s=40.0))) == [1]
    halves.add(1, part_verdict(halves.parts[1], set(), cpu_s=40.0))
    verdict = halves.verdict()
    assert verdict is not None
    assert verdict["status"] == Status.TIME_LIMIT
    assert verdict["groups"]["base"]["first_failed"] == 2
    assert verdict["cpu_s"] == 80.0


def test_a_part_that_could_not_be_judged_leaves_the_sample_unjudged(halves):
    halves.add(0, part_verdict(halves.parts[0], set()))
    lost = {**part_verdict(halves.parts[1], set()), "status": Status.INFRASTRUCTURE_ERROR, "passed": False}
    halves.add(1, lost)
    verdict = halves.verdict()
    assert verdict is not None
    assert verdict["status"] == Status.INFRASTRUCTURE_ERROR
    assert verdict["reward"] is None
    assert verdict["groups"] == {"base": None}


def test_nothing_else_is_run_before_the_first_part_has_passed(halves):
    assert list(halves.first_wave) == [0]
    assert list(halves.add(0, part_verdict(halves.parts[0], {("base", 1)}))) == []
    verdict = halves.verdict()
    assert verdict is not None
    assert verdict["groups"]["base"] == {
        "status": Status.WRONG_ANSWER,
        "passed": 1,
        "total": 4,
        "first_failed": 1,
    }
