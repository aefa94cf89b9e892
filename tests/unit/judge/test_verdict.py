"""From findings and endings to statuses: the whole table, and the rules for groups."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.judge.stream import AnswerStream, Expected, Finding, Raised
from grader.judge.verdict import (
    Ending,
    error_of_ending,
    group_outcomes,
    status_of_ending,
    status_of_raised,
)
from grader.sandbox.runner import wire
from grader.sandbox.runner.encoding import encode
from grader.status import Status, Termination

LOADED, FINISHED = wire.frame(wire.LOADED, b""), wire.frame(wire.FINISHED, b"")
RIGHT, WRONG = wire.frame(wire.VALUE, b"right"), wire.frame(wire.VALUE, b"wrong")
CLEAN = Ending("exited")


def raised(name: str) -> bytes:
    return wire.frame(wire.RAISED, encode((name, "why", 7)))


def stream_of(tests: int, *frames: bytes, fail_fast: bool = False) -> AnswerStream:
    offsets = array("Q", range(len(LOADED), len(LOADED) + len(RIGHT) * tests + 1, len(RIGHT)))
    expected = Expected(LOADED + RIGHT * tests + FINISHED, offsets)
    stream = AnswerStream(expected, lambda _test, _payload: False, fail_fast)
    stream.feed(b"".join(frames))
    return stream


@pytest.mark.parametrize(
    ("ending", "status", "error"),
    [
        (Ending("cpu_limit", signal=9), Status.TIME_LIMIT, None),
        (Ending("idle_limit", signal=9), Status.TIME_LIMIT, None),
        (Ending("output_limit", signal=9), Status.OUTPUT_LIMIT, None),
        (Ending("signalled", signal=9, memory_kill=True), Status.MEMORY_LIMIT, None),
        (Ending("cpu_limit", signal=9, memory_kill=True), Status.MEMORY_LIMIT, None),
        (Ending("signalled", signal=31), Status.SECURITY_VIOLATION, "ForbiddenSystemCall"),
        (Ending("signalled", signal=9), Status.RUNTIME_ERROR, "Crashed"),
        (Ending("signalled", signal=11), Status.RUNTIME_ERROR, "Crashed"),
        (Ending("signalled", signal=6), Status.RUNTIME_ERROR, "Crashed"),
        (Ending("signalled", signal=64), Status.RUNTIME_ERROR, "Crashed"),
        (Ending("exited", code=0), Status.RUNTIME_ERROR, "Exited"),
        (Ending("exited", code=31), Status.RUNTIME_ERROR, "Exited"),
        (Ending("exited", code=137), Status.RUNTIME_ERROR, "Exited"),
    ],
    ids=str,
)
def test_how_a_process_ended_decides_the_test_it_did_not_answer(ending, status, error):
    assert status_of_ending(ending) is status
    told = error_of_ending(ending)
    assert (told and told.type) == error
    outcome = group_outcomes(stream_of(3, LOADED, RIGHT), [3], ending, fail_fast=True)[0]
    assert (outcome.status, outcome.passed, outcome.total, outcome.first_failed) == (status, 1, 3, 1)
    assert outcome.error == told


def test_a_crash_is_told_by_the_signals_name():
    assert "SIGSEGV" in error_of_ending(Ending("signalled", signal=11)).message
    assert "signal 40" in error_of_ending(Ending("signalled", signal=40)).message
    assert "status 3" in error_of_ending(Ending("exited", code=3)).message


@pytest.mark.parametrize("ended", sorted(set(Termination) - {Termination.CANCELLED}))
def test_no_ending_passes_an_unanswered_test(ended):
    for signal in range(65):
        for kill in (False, True):
            assert status_of_ending(Ending(ended, 0, signal, kill)) is not Status.PASSED


@pytest.mark.parametrize(
    ("name", "status"),
    [("MemoryError", Status.MEMORY_LIMIT), ("RecursionError", Status.RUNTIME_ERROR),
     ("SystemExit", Status.RUNTIME_ERROR), ("KeyboardInterrupt", Status.RUNTIME_ERROR),
     ("passed", Status.RUNTIME_ERROR), ("TimeoutError", Status.RUNTIME_ERROR), ("", Status.RUNTIME_ERROR)],
)  # fmt: skip
def test_an_exceptions_name_decides_little(name, status):
    assert status_of_raised(Raised(name, "", 0)) is status
    outcome = group_outcomes(stream_of(2, LOADED, RIGHT, raised(name)), [2], CLEAN, fail_fast=True)[0]
    assert (outcome.status, outcome.passed, outcome.first_failed) == (status, 1, 1)
    assert outcome.error == Raised(name, "why", 7)


def test_all_right_is_passed_however_the_process_then_ends():
    """It has answered everything: what it does afterwards is no test."""
    for ending in (CLEAN, Ending("signalled", signal=11), Ending("cpu_limit"), Ending("cancelled")):
        outcome = group_outcomes(stream_of(2, LOADED, RIGHT, RIGHT), [2], ending, fail_fast=True)[0]
        assert (outcome.status, outcome.passed, outcome.total) == (Status.PASSED, 2, 2)
        assert outcome.first_failed is None
        assert outcome.error is None


def test_a_wrong_answer_goes_before_the_way_the_process_ended():
    stream = stream_of(3, LOADED, WRONG)
    outcome = group_outcomes(stream, [3], Ending("cpu_limit"), fail_fast=False)[0]
    assert (outcome.status, outcome.passed, outcome.first_failed) == (Status.WRONG_ANSWER, 0, 0)
    assert outcome.error is None


def test_a_group_is_judged_by_its_first_failing_test():
    stream = stream_of(4, LOADED, RIGHT, raised("KeyError"), WRONG, RIGHT, FINISHED)
    outcome = group_outcomes(stream, [4], CLEAN, fail_fast=False)[0]
    assert (outcome.status, outcome.passed, outcome.first_failed) == (Status.RUNTIME_ERROR, 2, 1)


@pytest.mark.parametrize(
    ("frame", "status", "error"),
    [
        (wire.frame(wire.UNCOMPILABLE, encode(("SyntaxError", "bad", 2))), Status.COMPILE_ERROR, "SyntaxError"),
        (wire.frame(wire.UNCOMPILABLE, encode(("MemoryError", "", 0))), Status.COMPILE_ERROR, "MemoryError"),
        (raised("ImportError"), Status.RUNTIME_ERROR, "ImportError"),
        (raised("MemoryError"), Status.MEMORY_LIMIT, "MemoryError"),
        (wire.frame(0, b""), Status.SECURITY_VIOLATION, "Tampering"),
    ],
)  # fmt: skip
def test_a_program_that_does_not_load_fails_its_first_group(frame, status, error):
    outcomes = group_outcomes(stream_of(4, frame), [2, 2], CLEAN, fail_fast=True)
    assert outcomes[0].status is status
    assert (outcomes[0].passed, outcomes[0].total, outcomes[0].first_failed) == (0, 2, 0)
    assert outcomes[0].error.type == error
    assert outcomes[1] is None


def test_tampering_fails_a_group_whose_answers_were_all_right():
    stream = stream_of(2, LOADED, RIGHT, RIGHT, WRONG)
    outcome = group_outcomes(stream, [2], CLEAN, fail_fast=True)[0]
    assert outcome.status is Status.SECURITY_VIOLATION
    assert outcome.first_failed is not None


class TestGroups:
    def test_each_counts_its_own_tests(self):
        stream = stream_of(5, LOADED, RIGHT, RIGHT, RIGHT, WRONG, RIGHT, FINISHED)
        base, plus = group_outcomes(stream, [2, 3], CLEAN, fail_fast=False)
        assert (base.status, base.passed, base.total) == (Status.PASSED, 2, 2)
        assert (plus.status, plus.passed, plus.total, plus.first_failed) == (Status.WRONG_ANSWER, 2, 3, 1)

    def test_with_fail_fast_the_groups_after_a_failing_one_are_not_judged(self):
        stream = stream_of(4, LOADED, RIGHT, WRONG, fail_fast=True)
        base, plus = group_outcomes(stream, [2, 2], Ending("cancelled"), fail_fast=True)
        assert (base.status, base.passed, base.first_failed) == (Status.WRONG_ANSWER, 1, 1)
        assert plus is None

    def test_without_fail_fast_a_group_after_a_failing_one_is_judged(self):
        stream = stream_of(4, LOADED, WRONG, RIGHT, RIGHT, RIGHT, FINISHED)
        base, plus = group_outcomes(stream, [2, 2], CLEAN, fail_fast=False)
        assert base.status is Status.WRONG_ANSWER
        assert plus.status is Status.PASSED

    def test_the_groups_after_one_in_which_the_process_ended_are_not_judged(self):
        stream = stream_of(4, LOADED, RIGHT)
        base, plus = group_outcomes(stream, [2, 2], Ending("cpu_limit"), fail_fast=False)
        assert base.status is Status.TIME_LIMIT
        assert plus is None

    def test_a_process_that_ends_between_two_groups_fails_the_second(self):
        stream = stream_of(4, LOADED, RIGHT, RIGHT)
        base, plus = group_outcomes(stream, [2, 2], Ending("signalled", signal=11), fail_fast=True)
        assert base.status is Status.PASSED
        assert (plus.status, plus.first_failed) == (Status.RUNTIME_ERROR, 0)

    def test_an_empty_group_passes(self):
        assert (
            group_outcomes(stream_of(0, LOADED, FINISHED), [0], CLEAN, fail_fast=True)[0].status
            is Status.PASSED
        )


@given(st.lists(st.sampled_from([RIGHT, WRONG, raised("E")]), max_size=8), st.data(), st.booleans())
def test_the_outcomes_add_up(frames, data, fail_fast):
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    tests = sum(sizes)
    stream = stream_of(tests, LOADED, *frames[:tests], fail_fast=fail_fast)
    outcomes = group_outcomes(stream, sizes, Ending("exited"), fail_fast=fail_fast)
    assert len(outcomes) == len(sizes)
    judged = [outcome for outcome in outcomes if outcome is not None]
    assert outcomes[: len(judged)] == judged, "what is not judged is at the end"
    assert all(outcome.status is Status.PASSED for outcome in judged[:-1]) or not fail_fast
    for outcome, size in zip(judged, sizes, strict=False):
        assert outcome.total == size
        assert 0 <= outcome.passed <= size
        assert (outcome.passed == size) == (outcome.status is Status.PASSED) == (outcome.first_failed is None)
        assert outcome.first_failed is None or 0 <= outcome.first_failed < size


@given(st.sampled_from(list(Finding)), st.integers(0, 2))
def test_any_finding_fails_its_test(finding, test):
    """Also one that is still undecided: a long answer counts as right only when it was looked at."""
    stream = stream_of(3, LOADED, RIGHT, RIGHT, RIGHT)
    stream.findings[test] = finding
    stream.raised[test] = Raised("E", "", 0)
    outcome = group_outcomes(stream, [3], CLEAN, fail_fast=True)[0]
    assert outcome.status is not Status.PASSED
    assert (outcome.passed, outcome.first_failed) == (2, test)
