"""Answers that came as a digest, looked at again: what is held against what, and who is blamed where one is too long.

The cell is played by the test: it answers each run with what the program, or the reference, is said to send.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy
import pytest

from grader.errors import InfrastructureError
from grader.judge.stream import AnswerStream, Expected, Finding
from grader.limits import Limits
from grader.sandbox.cell import Done
from grader.sandbox.runner import wire
from grader.sandbox.runner.encoding import encode
from grader.suites.task import Comparison, Task
from grader.worker import functions
from grader.worker.functions import FunctionGrading

DIGEST = wire.frame(wire.DIGEST, wire.DIGEST_BODY.pack(8 << 20, b"d" * 32))
TOO_LONG = b"[" + struct.pack("<I", 16 << 20) + b"N" * (16 << 20)


class OneTest:
    """As much of a bundle as a second look needs."""

    times = (0.01,)
    peak_memory_bytes = 0

    def __init__(self, given: bytes | None = None) -> None:
        self._given = given

    def given_answer(self, test: int) -> bytes | None:
        return self._given

    def inputs(self, tests: list[int]) -> bytes:
        return b""

    def has_tolerance_switch(self, test: int) -> bool:
        return False


def looked_at(sent, *, given=None, frame=DIGEST, kind="exact"):
    """What is found of a test, and whose programs were run for it. ``sent``: by source, the answer and the end."""
    task = Task("long", "", "solve", "reference", (), Comparison(kind))
    grading = FunctionGrading(task, OneTest(given), "program", ["base"], Limits(), True)
    conversation = grading._second_look(0, frame)
    ran, done = [], None
    try:
        while True:
            request = conversation.send(done)
            ran.append(request.payloads[0]["source"])
            answer, ended = sent[ran[-1]]
            request.on_data(wire.frame(wire.LOADED, b""))
            if answer is not None:
                request.on_data(wire.frame(wire.VALUE, answer))
            done = Done(1, ended, 0, 0, 0, 0.01, 0.01, 0, b"", b"", False)
    except StopIteration as end:
        return end.value, ran


def test_a_wrong_answer_is_wrong_where_the_references_own_is_too_long_to_be_looked_at():
    sent = {"program": (encode([2]), "exited"), "reference": (None, "output_limit")}
    assert looked_at(sent) == (Finding.WRONG, ["program", "reference"])


def test_one_that_comes_whole_all_the_same_is_not_decoded():
    sent = {"program": (encode([2]), "exited"), "reference": (TOO_LONG, "exited")}
    assert looked_at(sent)[0] is Finding.WRONG
    sent = {"program": (TOO_LONG, "exited"), "reference": (TOO_LONG, "exited")}
    assert looked_at(sent)[0] is None


def test_a_given_answer_that_is_too_long_costs_no_run():
    assert looked_at({}, given=TOO_LONG) == (Finding.WRONG, [])


def test_a_short_expected_answer_is_not_asked_for_again():
    program = {"program": (encode([1.0] * 20_000), "exited")}
    expected = wire.frame(wire.VALUE, encode([1] * 20_000))
    assert looked_at(program, frame=expected) == (None, ["program"])
    assert looked_at(program, frame=wire.frame(wire.VALUE, encode([1]))) == (Finding.WRONG, ["program"])
    assert looked_at(program, frame=wire.frame(wire.VALUE, encode(True)), kind="not_none")[0] is None


@pytest.mark.parametrize(
    ("kind", "bytes_", "expected", "is_decoded"),
    [
        ("exact", 1 << 20, [1], True),
        ("exact", (1 << 20) + 1, [1], False),
        ("evalplus", (1 << 20) + 1, [1], False),
        ("set", (1 << 20) + 1, [1], True),  # the same element again and again
        ("not_none", (4 << 20) + 1, True, False),
        ("exact", (1 << 20) + 1, [1] * 5000, True),  # in numpy's numbers it would be 160 KiB
    ],
)
def test_an_answer_far_longer_than_the_expected_one_is_not_decoded(
    kind, bytes_, expected, is_decoded, monkeypatch
):
    decoded = []
    monkeypatch.setattr(functions, "decode", lambda data: decoded.append(data) or len(data))
    answer = b"[" + struct.pack("<I", bytes_ - 5) + b"N" * (bytes_ - 5)
    frame = wire.frame(wire.VALUE, encode(expected))
    assert looked_at({"program": (answer, "exited")}, frame=frame, kind=kind)[0] is Finding.WRONG
    assert (answer in decoded) is is_decoded


def test_the_longest_equal_answer_is_decoded():
    answer, expected = encode([numpy.complex128(1)] * 30_000), encode([True] * 30_000)
    assert len(answer) > 1 << 20
    frame = wire.frame(wire.VALUE, expected)
    assert looked_at({"program": (answer, "exited")}, frame=frame)[0] is None


def test_a_sample_whose_wrong_answers_took_long_enough_is_not_looked_at_again():
    task = Task("long", "", "solve", "reference", (), Comparison("exact"))
    grading = FunctionGrading(task, OneTest(), "program", ["base"], Limits(), False)
    grading.reading.used_up = True
    stream = AnswerStream(
        expected=Expected(wire.frame(wire.VALUE, encode(1)), [0, 10]),
        matches=lambda _test, _payload: False,
        fail_fast=False,
        findings={0: Finding.UNDECIDED},
    )
    with pytest.raises(StopIteration):
        next(grading._decide_long_answers(stream, [0]))
    assert stream.findings == {0: Finding.WRONG}


@pytest.mark.parametrize(
    ("ended", "finding"), [("cpu_limit", Finding.TIMED_OUT), ("output_limit", Finding.WRONG)]
)
def test_a_program_that_does_not_answer_again_is_blamed(ended, finding):
    assert looked_at({"program": (None, ended)}) == (finding, ["program"])


def test_a_reference_that_does_not_answer_again_is_our_error():
    sent = {"program": (encode([2]), "exited"), "reference": (None, "cpu_limit")}
    with pytest.raises(InfrastructureError, match="cpu_limit"):
        looked_at(sent)


@pytest.mark.parametrize("used", [{"cpu_s": 61.0}, {"idle_s": 61.0}])
def test_a_program_that_has_used_up_its_time_or_slept_it_away_is_not_looked_at_again(used):
    """With a thousand forged digests it would else sleep through a thousand runs, each with limits of its own."""
    grading = FunctionGrading(
        Task("long", "", "solve", "reference", (), Comparison("exact")),
        OneTest(),
        "program",
        ["base"],
        Limits(),
        True,
    )
    grading.usage.add(replace(Done(1, "exited", 0, 0, 0, 0.0, 61.0, 0, b"", b"", False), **used))
    with pytest.raises(StopIteration) as end:
        next(grading._second_look(0, DIGEST))
    assert end.value.value is Finding.TIMED_OUT
