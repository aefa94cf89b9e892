"""Values that take much more memory than others count as several, so that no answer takes much of the worker."""

from __future__ import annotations

import collections
import tracemalloc
from decimal import Decimal
from fractions import Fraction

import pytest

from grader.judge.compare import matches
from grader.sandbox.runner.decoding import DecodeError, decode
from grader.sandbox.runner.encoding import encode
from grader.sandbox.runner.revive import distinct, revive
from grader.suites.task import Comparison

_A_VALUE = 110  # bytes, at the most: 2,000,000 of them are 210 MiB

HEAVY = {
    "set": set(),
    "frozenset": frozenset({1, 2, 3, 4, 5}),
    "dict": {},
    "dict of one": {1: None},
    "deque": collections.deque(),
    "Counter": collections.Counter(),
    "OrderedDict": collections.OrderedDict({1: 2}),
    "defaultdict": collections.defaultdict(int),
    "dict_keys": {}.keys(),
    "dict_items": {}.items(),
    "iterator": iter([]),
    "Fraction": Fraction(1, 3),
    "Decimal": Decimal("1.5"),
}


def counted_as(data: bytes) -> int:
    for most in range(1, 100):
        try:
            decode(data, max_values=most)
        except DecodeError:
            continue
        return most
    raise AssertionError("more than it can be")


@pytest.mark.parametrize("kind", HEAVY)
def test_what_a_value_takes_is_what_it_counts_as(kind: str) -> None:
    data = encode(HEAVY[kind])
    many = b"[" + (1000).to_bytes(4, "little") + data * 1000
    tracemalloc.start()
    try:
        decoded = decode(many)
        meant = revive(decoded)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert isinstance(meant, list)
    assert taken / 1000 < _A_VALUE * counted_as(data)


@pytest.mark.parametrize("text", ["ab", b"ab", bytearray(b"ab")])
def test_the_characters_of_a_long_text_are_not_put_into_a_list(text: str | bytes | bytearray) -> None:
    long = text * (1 << 20)
    tracemalloc.start()
    try:
        assert distinct(long) == set(text)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_texts_are_still_compared_as_sets() -> None:
    for answer, expected in (("abba", ["a", "b"]), (b"abba", [97, 98]), ("ab", "ba")):
        assert matches(Comparison("set"), answer, expected, lambda: [1], 0.0)
    assert not matches(Comparison("set"), "abc", ["a", "b"], lambda: [1], 0.0)
