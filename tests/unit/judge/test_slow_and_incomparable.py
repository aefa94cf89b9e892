"""Answers that Python cannot compare, or only slowly: they are wrong, and cost the worker next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest

from grader.judge.compare import matches
from grader.sandbox.runner.decoding import DecodeError, Foreign, decode
from grader.sandbox.runner.encoding import MAX_NUMBER_SIZE, encode
from grader.sandbox.runner.revive import distinct, revive
from grader.suites.task import Comparison

_MODULUS = (1 << 61) - 1  # of CPython's hashes of numbers


def judged(kind: str, answer: object, expected: object) -> bool:
    comparison = Comparison(kind)  # type: ignore[arg-type]  # each is one of the kinds
    return matches(comparison, decode(encode(answer)), decode(encode(expected)), lambda: [1], 0.0)


@pytest.mark.parametrize("kind", ["exact", "evalplus", "close", "benchmark", "set"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({1: {}}.items(), {(1, 2)}),  # comparing raises TypeError: a dict cannot be hashed
        ({1: []}.items(), frozenset({(1, 2)})),
        ({10**5000: 1}, {"1": 1}),  # Python writes no int of so many digits
        ({-(10**5000): 1}, {"1": 1}),
    ],
)
def test_what_cannot_be_compared_is_wrong(kind: str, answer: object, expected: object) -> None:
    assert not judged(kind, answer, expected)


def test_keys_that_json_wrote_are_still_those_numbers() -> None:
    assert judged("benchmark", {12: 1, 2.5: 2, 10**60: 3}, {"12": 1, "2.5": 2, "1" + "0" * 60: 3})


def colliding(make: Callable[[int], object], count: int) -> bytes:
    """A set of so many values with one hash; as bytes, since Python itself would take minutes to make it."""
    as_list = encode([make(1 + (1 << 4000) + 12345 + _MODULUS * number) for number in range(count)])
    return b"<" + as_list[1:]


def test_a_decimal_beside_a_huge_int_is_refused() -> None:
    values = [Decimal(12345 + _MODULUS * number) for number in range(1, 300)]
    data = encode([12345 + (_MODULUS << 200_000), *values])
    with pytest.raises(DecodeError, match="beside an int"):
        revive(decode(b"<" + data[1:]))


@pytest.mark.parametrize(
    "make",
    [
        Decimal,
        Fraction,
        lambda number: (Decimal if number % 2 else int)(number),
        lambda number: (1, (Decimal if number % 2 else Fraction)(number)),
    ],
)
def test_slow_numbers_with_one_hash_are_refused(make: Callable[[int], object]) -> None:
    data = colliding(make, 2000)
    with pytest.raises(DecodeError, match="too many values with the same hash"):
        revive(decode(data))
    items = revive(decode(b"[" + data[1:]))
    assert isinstance(items, list)
    with pytest.raises(DecodeError, match="too many values with the same hash"):
        distinct(items)


def test_honest_sets_of_decimals_and_fractions_are_read() -> None:
    values = (
        {Decimal(n) / 7 for n in range(2000)} | {Fraction(n, 7) for n in range(1, 2000, 2)} | set(range(2000))
    )
    assert revive(decode(encode(values))) == values
    assert revive(decode(encode([Decimal("1.5"), 10**4000]))) == [Decimal("1.5"), 10**4000]


@pytest.mark.parametrize(
    ("kind", "payload", "means"),
    [
        ("Fraction", (2**MAX_NUMBER_SIZE - 1, 3), True),
        ("Fraction", (2**MAX_NUMBER_SIZE, 3), False),
        ("Fraction", (3, 2**MAX_NUMBER_SIZE), False),
        ("Decimal", f"1E+{MAX_NUMBER_SIZE}", True),
        ("Decimal", f"1E+{MAX_NUMBER_SIZE + 1}", False),
        ("Decimal", f"1E-{MAX_NUMBER_SIZE + 1}", False),
        ("Decimal", "9" * (MAX_NUMBER_SIZE + 1), False),
        ("Decimal", "NaN", True),
        ("Decimal", "sNaN", False),
        ("Decimal", "-sNaN123", False),
    ],
)
def test_numbers_that_no_encoder_writes_mean_nothing(kind: str, payload: object, means: bool) -> None:
    """Compared with a fraction, say, they would take the memory of all their digits, or raise."""
    forged = Foreign(kind, payload)
    assert (revive(forged) is not forged) == means
    assert (revive([forged])[0] is not forged) == means
