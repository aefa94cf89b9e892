"""A limit counts the seconds of a processor at its fastest."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.sandbox.runner import pace, run, wire

LIMITS = run.Limits(4.0, 4.0, {1: 8.0}, 60.0, None, 1 << 20, 1000)
seconds = st.floats(0.001, 5.0)
slow = st.floats(1.0, 3.0)


def slowed(slowness: float, cpu: float) -> run.Run:
    """A run of a processor so slow, in its first test."""
    running = run.Run(1, LIMITS, (3,), whole_program=False, out=wire.Writer(-1))
    running._pids, running._frames.count = [], 1
    running._work.note(cpu, slowness)
    return running


@given(st.lists(st.tuples(seconds, slow), min_size=1))
def test_work_is_each_stretch_of_time_by_how_slow_the_processor_was_in_it(stretches):
    clock, cpu, work = pace.WorkClock(4.0), 0.0, 0.0
    for length, slowness in stretches:
        cpu += length
        clock.note(cpu, slowness)
        work += length / slowness
        assert clock.seconds(cpu) == pytest.approx(work)
    assert clock.seconds(cpu + 1.0) == pytest.approx(work + 1.0 / slowness)
    assert clock.slowness == pytest.approx(cpu / work)


@given(seconds)
def test_without_a_loop_it_is_the_time_itself(cpu):
    clock = pace.WorkClock(4.0)
    assert clock.seconds(cpu) == cpu
    assert clock.slowness == 1.0


@given(st.floats(0.01, 100.0), seconds, slow)
def test_nobody_has_less_than_the_limit_nor_more_than_the_most(limit, used, slowness):
    over = pace.is_over(limit, used, used / slowness)
    assert over is (used > min(pace.MOST, slowness) * limit or used > pace.MOST * limit)


def test_loops_are_timed_once_a_run_has_used_a_part_of_its_limit():
    for limit, first in ((4.0, 0.2), (0.4, 0.1)):
        clock = pace.WorkClock(limit)
        assert not clock.is_due(first)
        assert clock.is_due(first + 0.01)
        clock.note(first + 0.01, 1.0)
        assert not clock.is_due(first + 0.05)
        assert clock.is_due(first + 0.07)


def test_a_processor_is_as_slow_as_its_loop_is_long_beside_the_fastest(monkeypatch):
    processors = os.sched_getaffinity(0)
    loops = iter([0.004, 0.003, 0.005, 0.006, 0.002, 0.003])
    monkeypatch.setattr(pace, "_loop_seconds", lambda: next(loops))
    measured = pace.Pace()
    processor = min(processors)
    assert [measured.slowness_of(processor) for _ in range(3)] == [2.0, 1.0, 1.5]
    assert os.sched_getaffinity(0) == processors


def test_a_group_that_was_given_other_processors_is_gone_back_to_as_it_is():
    processors = os.sched_getaffinity(0)
    measured = pace.Pace()
    measured._processors = {100_000}
    assert measured.slowness_of(min(processors)) is not None
    assert os.sched_getaffinity(0) == processors


def test_a_processor_where_we_may_not_go_says_nothing():
    assert pace.Pace().slowness_of(100_000) is None


@pytest.mark.parametrize(
    ("slowness", "cpu", "killed"),
    [
        (1.0, 3.9, None),
        (1.0, 4.1, "cpu_limit"),
        (1.5, 5.9, None),
        (1.5, 6.1, "cpu_limit"),
        (3.0, 7.7, "cpu_limit"),
    ],
)
def test_a_test_on_a_slow_processor_has_more_seconds(slowness, cpu, killed):
    running = slowed(slowness, cpu)
    assert running._hold_limits(cpu) is (killed is not None)
    assert running._killed == killed


def test_a_step_counts_its_own_work_only():
    running = slowed(1.5, 3.0)
    running._next_step(3.0, 0.0)
    running._work.note(8.0, 1.0)
    assert running._limit() == 4.0
    assert running._hold_limits(8.0)


@pytest.mark.parametrize(("cpu", "killed"), [(5.9, None), (6.1, "cpu_limit")])
def test_a_test_that_was_slow_by_its_own_clock_is_judged_before_the_next_begins(monkeypatch, cpu, killed):
    """Its frame is no answer, and is not passed on."""
    running = slowed(1.5, cpu)
    running._answers, end = pipes = os.pipe()
    try:
        os.set_blocking(pipes[0], False)
        monkeypatch.setattr(running, "_cpu", lambda: cpu)
        os.write(end, wire.frame(wire.SLOW, b""))
        running._drain_answers(cpu)
        assert (running._killed, running._frames.count, running._answer_bytes) == (killed, 1, 0)
        os.write(end, wire.frame(wire.VALUE, b"x"))
        running._drain_answers(cpu)
        assert running._frames.count == 2
    finally:
        for descriptor in pipes:
            os.close(descriptor)


def test_the_supervisor_is_not_kept_by_one_that_says_again_and_again_that_it_was_slow(monkeypatch):
    """It has limits to hold, and the worker to answer."""
    running = slowed(1.0, 1.0)
    running._answers = -1
    said = iter([wire.frame(wire.SLOW, b"")] * 2)
    monkeypatch.setattr(run.os, "read", lambda _descriptor, _size: next(said))
    monkeypatch.setattr(running, "_cpu", lambda: 1.0)
    running._drain_answers(1.0)
    assert len(list(said)) == 1
