"""Frozensets of values with one hash, inside of one another: what they cost is bounded, however deep they go."""

from __future__ import annotations

import itertools
import struct
from decimal import Decimal

import pytest

from grader.sandbox.runner.decoding import CollisionBudget, DecodeError, decode
from grader.sandbox.runner.encoding import encode
from grader.sandbox.runner.revive import revive

_LEAVES = (-1, -2, -2 - (2**61 - 1))  # one hash, and no two are equal


def pairs(depth: int, leaf: int = 0, wrap: bytes = b"") -> bytes:
    """A frozenset of two others of one hash, and so on down to the leaves."""
    if depth == 0:
        return wrap + encode(_LEAVES[leaf])
    others = [pairs(depth - 1, other, wrap) for other in range(3) if other != leaf]
    return struct.pack("<cI", b">", 2) + b"".join(others)


class Counted:
    """Counts how often members are compared."""

    compared = 0

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return self is other


def members(budget: CollisionBudget, depth: int, kind: int = 0) -> frozenset[object]:
    """Three kinds of leaves make three of frozensets, and so on, each made when the budget has let its members pass."""
    here: list[object] = [Counted() for _ in range(3)]
    for _ in range(depth):
        below, here = here, []
        for left_out in range(3):
            chosen = [member for index, member in enumerate(below) if index != left_out]
            budget.check(chosen)
            here.append(frozenset(chosen))
    return frozenset({here[kind]})


@pytest.mark.parametrize("depth", [20, 100])
def test_no_more_is_compared_than_the_budget_allows(depth: int) -> None:
    Counted.compared = 0
    with pytest.raises(DecodeError, match="same hash"):
        members(CollisionBudget(work=1000), depth)
    assert Counted.compared < 3 * 16 * 1000


def test_a_few_levels_are_read_and_more_are_refused() -> None:
    assert decode(pairs(5)) == decode(pairs(5))
    with pytest.raises(DecodeError, match="same hash"):
        decode(pairs(14))
    with pytest.raises(DecodeError, match="same hash"):
        decode(b"{" + pairs(14) + b"N0")


def test_it_is_the_same_where_their_hashes_meet_only_when_they_are_given_their_meaning() -> None:
    scalar = b"Q\x0cnumpy.scalar(\2\0\0\0" + encode("<i8")
    revive(decode(pairs(5, wrap=scalar)))
    hostile = decode(pairs(14, wrap=scalar))
    with pytest.raises(DecodeError, match="same hash"):
        revive(hostile)


def test_long_tuples_beside_many_small_keys_are_counted_as_long() -> None:
    modulus = 2**61 - 1
    long = [b"(" + struct.pack("<I", 200) + encode(0) * 199 + encode(n * modulus) for n in range(1, 2001)]
    small = [encode(n) for n in range(200_000)]
    with pytest.raises(DecodeError, match="same hash"):
        decode(b"<" + struct.pack("<I", len(long) + len(small)) + b"".join(small + long))


def test_what_collides_by_accident_is_read() -> None:
    grid = set(itertools.product(range(-100, 100), repeat=2))
    assert decode(encode(grid)) == grid
    nested = {frozenset(itertools.product((-1, -2, n), repeat=3)) for n in range(60)}
    assert decode(encode(nested)) == nested
    powers = {frozenset(subset) for n in range(10) for subset in itertools.combinations(range(-5, 5), n)}
    assert decode(encode(powers)) == powers
    amounts = {(x, Decimal(y) / 10) for x in range(-50, 50) for y in range(-50, 50)}
    assert revive(decode(encode(amounts))) == amounts
