"""How long the whole programs of one test group may take together.

The cell is played by the test: it says what each run is supposed to have used, and holds it to its limits.
"""

from __future__ import annotations

import pytest

from grader.limits import Limits
from grader.sandbox.cell import Done
from grader.status import Status
from grader.suites.task import StdioTest, StdioTests, TestGroup
from grader.worker.bundle import StdioAnswers
from grader.worker.stdio import StdioGrading

TESTS = 18


def outcome_of(*, cpu_s=0.0, idle_s=0.0, slowness=1.0, reference_s=0.0, fail_fast=True, limits=None):
    """Grade a program that prints the right thing in every test, and takes so long for it; returns the outcomes and
    how many runs there were."""
    groups = [TestGroup(name, StdioTests((StdioTest("1\n", "1\n"),) * TESTS)) for name in ("base", "plus")]
    answers = StdioAnswers(
        {group.name: ["1\n"] * TESTS for group in groups},
        {group.name: [reference_s] * TESTS for group in groups},
    )
    conversation = StdioGrading("program", groups, answers, limits or Limits(), fail_fast).run()
    runs, done = 0, None
    try:
        while True:
            request = conversation.send(done)
            runs += 1
            ended = "exited"
            if cpu_s / slowness > request.limits.load_s:
                ended = "cpu_limit"
            elif idle_s > (request.limits.idle_s or request.limits.load_s):
                ended = "idle_limit"
            if ended == "exited":
                request.on_output(b"1\n")
            done = Done(
                runs,
                ended,
                0,
                0,
                0,
                cpu_s,
                cpu_s + idle_s,
                0,
                b"",
                b"",
                False,
                slowness=slowness,
                idle_s=idle_s,
            )
    except StopIteration as end:
        return end.value, runs


@pytest.mark.parametrize("fail_fast", [True, False])
@pytest.mark.parametrize("used", [{"cpu_s": 3.8}, {"idle_s": 3.8}], ids=["runs", "sleeps"])
def test_a_group_has_sixty_seconds_in_all(used, fail_fast):
    (base, plus), _ = outcome_of(**used, fail_fast=fail_fast)
    assert base.status is Status.TIME_LIMIT
    assert (base.first_failed, base.passed) == (15, 15)  # 15 * 3.8 are 57 s
    assert plus == (None if fail_fast else base)  # each group has its own


def test_no_test_runs_when_the_time_is_used_up():
    limits = Limits(group_time_s=2.0, time_floor_s=1.0)
    (base, _), runs = outcome_of(cpu_s=0.5, limits=limits)
    assert (base.status, base.first_failed, runs) == (Status.TIME_LIMIT, 4, 4)


def test_the_limit_is_of_cpu_time_and_of_idle_time_each():
    (base, plus), _ = outcome_of(cpu_s=3.0, idle_s=3.0)
    assert base.status is plus.status is Status.PASSED


def test_what_a_slow_processor_takes_longer_is_not_counted():
    (base, _), _ = outcome_of(cpu_s=5.0, slowness=2.0)
    assert base.status is Status.PASSED


def test_short_runs_may_have_been_on_a_slow_processor():
    (base, _), _ = outcome_of(cpu_s=0.2, limits=Limits(group_time_s=2.0))
    assert base.status is Status.PASSED  # 18 * 0.2 are 3.6 s
    (base, _), _ = outcome_of(cpu_s=0.2, limits=Limits(group_time_s=1.0))
    assert base.status is Status.TIME_LIMIT


def test_a_reference_that_takes_long_gives_more():
    (base, _), _ = outcome_of(cpu_s=3.9, reference_s=1.0)
    assert base.status is Status.PASSED
