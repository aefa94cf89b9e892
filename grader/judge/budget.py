"""How much is read of the wrong answers of one sample.

A sample whose first failure does not end it can give a wrong answer in every test, and each may be made to take the
judge as long as one answer may. Right answers cost nothing here, and so do wrong ones of about the length of the
expected ones, so that no honest program comes near the end of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from grader.sandbox.runner.decoding import CollisionBudget, DecodeError, Foreign
from grader.sandbox.runner.revive import revive

_MOST_BYTES: Final = 1 << 20  # to decode them takes a second
_TIMES_EXPECTED: Final = 4  # a wrong answer of so many times the expected one's length is read for nothing
_REVIVED_WEIGHT: Final = 64  # what comparing two Decimals or Fractions costs, in units of a CollisionBudget
_HOLDING: Final = frozenset((list, tuple, dict, set, frozenset, Foreign))
_COLLIDING: Final = "with the same hash"  # what a DecodeError says that comes after much work


class ReadingBudget:
    """Counts the wrong answers of one sample; once ``used_up``, what differs is wrong without being read."""

    def __init__(self) -> None:
        self.used_up = False
        self._bytes_left = _MOST_BYTES
        self._collisions = CollisionBudget()

    def take(self, answer: object, length: int, expected_length: int) -> None:
        """Count a decoded answer; lengths are in bytes of the encoding."""
        self._take_bytes(length, expected_length)
        try:
            for keys in _keys_in(answer):
                self._take_keys(keys, 1 + length // (64 * len(keys) + 64))
        except DecodeError as error:
            self._note(error)
        except RecursionError:  # deep keys with the same hash
            self.used_up = True

    def take_undecodable(self, error: DecodeError, length: int, expected_length: int) -> None:
        """Count an answer that could not be decoded."""
        self._take_bytes(length, expected_length)
        self._note(error)

    def _take_bytes(self, length: int, expected_length: int) -> None:
        self._bytes_left -= max(0, length - _TIMES_EXPECTED * expected_length)
        self.used_up = self.used_up or self._bytes_left < 0

    def _take_keys(self, keys: list[Any], weight: int) -> None:
        if len(keys) < 2:
            return
        revived = revive(keys)
        if revived is not keys:
            assert isinstance(revived, list)
            keys, weight = revived, weight * _REVIVED_WEIGHT
        try:
            self._collisions.check(keys, weight)
        except TypeError:
            return  # they have no hash: no set of them is made

    def _note(self, error: DecodeError) -> None:
        self.used_up = self.used_up or _COLLIDING in str(error)


def _keys_in(answer: object) -> Iterator[list[Any]]:
    """Yield the members of each set, and the keys of each dict, that is in the answer."""
    pending: list[Any] = [answer] if type(answer) in _HOLDING else []
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind is Foreign:
            item = (item.value,)
        elif kind is dict:
            yield list(item)
            item = chain(item, item.values())
        elif kind is set or kind is frozenset:
            yield list(item)
        pending += [inner for inner in item if type(inner) in _HOLDING]
