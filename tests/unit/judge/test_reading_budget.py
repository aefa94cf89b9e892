"""How much is read of the wrong answers of one sample, whose first failure does not end it."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest

from grader.judge.budget import ReadingBudget
from grader.limits import Limits
from grader.sandbox.runner import wire
from grader.sandbox.runner.decoding import DecodeError, decode
from grader.sandbox.runner.encoding import encode
from grader.suites.task import Comparison, Task
from grader.worker import functions
from grader.worker.functions import FunctionGrading

MODULUS = (1 << 61) - 1  # two ints that are the same by it have the same hash
COLLIDING = encode({number * MODULUS for number in range(2500)})
TESTS = 40


class Bundle:
    """As much of a bundle as holding answers against each other needs."""

    def has_tolerance_switch(self, test: int) -> bool:
        return False


def grading(kind="exact", *, fail_fast=False):
    task = Task("T/0", "", "f", "", (), Comparison(kind))
    return FunctionGrading(task, Bundle(), "program", ["base"], Limits(), fail_fast)


@pytest.fixture
def read(monkeypatch):
    """The encoded answers that are decoded."""
    seen = []

    def noting(data):
        seen.append(data)
        return decode(data)

    monkeypatch.setattr(functions, "decode", noting)
    return seen


def matched(grading, payload, expected, *, times=TESTS):
    frame = wire.frame(wire.VALUE, encode(expected))
    found = []
    for _ in range(times):
        try:
            found.append(grading._matches(0, payload, frame))
        except DecodeError:
            found.append(False)
    return found


@pytest.mark.parametrize(
    "payload",
    [
        COLLIDING,
        encode({number * MODULUS: None for number in range(2500)}),
        encode([[frozenset({number * MODULUS for number in range(2500)})]]),
        encode({number * MODULUS for number in range(4000)}),  # too many to be decoded
        encode({Fraction(number * MODULUS) for number in range(1, 1000)}),
        encode({Decimal(number * MODULUS) for number in range(1, 1000)}),
    ],
    ids=["ints", "keys", "nested", "too many", "Fractions", "Decimals"],
)
def test_one_sample_has_one_budget_of_colliding_hashes(payload, read):
    sample = grading()
    assert not any(matched(sample, payload, 1))
    assert read.count(payload) <= 2
    assert matched(sample, encode(1.0), 1, times=1) == [False]  # unread
    assert matched(grading(), encode(1.0), 1, times=1) == [True]  # the next sample has its own


def test_long_wrong_answers_are_read_up_to_a_length_in_all(read):
    payload = encode([None] * 50_000)
    assert not any(matched(grading(), payload, 1))
    assert read.count(payload) == 21  # the last one ends it


def test_wrong_answers_of_about_the_right_length_are_all_read(read):
    payload, expected = encode([None] * 30_000), [True] * 10_000
    assert not any(matched(grading(), payload, expected, times=40))
    assert read.count(payload) == 40


def test_right_answers_cost_nothing():
    payload = encode([1.0] * 7_000)
    assert all(matched(grading(), payload, [1] * 7_000))
    assert all(matched(grading("not_none"), payload, True))


def test_right_answers_that_may_be_anything_count_where_their_hashes_collide(read):
    matched(grading("not_none", fail_fast=True), COLLIDING, True)
    assert read.count(COLLIDING) == 2


def test_honest_sets_and_dicts_cost_nothing():
    budget = ReadingBudget()
    honest = [
        dict.fromkeys(range(-1000, 1000)),
        {(x, y) for x in range(-20, 20) for y in range(-20, 20)},
        {Fraction(1, number) for number in range(1, 500)},
        {str(number) for number in range(1000)},
    ]
    payload = encode(honest)
    for _ in range(50):
        budget.take(honest, len(payload), len(payload))
    assert not budget.used_up
