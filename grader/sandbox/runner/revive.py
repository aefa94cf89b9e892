"""What data of foreign kinds means: decoded answers become values that compare as Python's own would.

Nothing here runs a program's code: only exact types of the standard library are made, from inert data.
"""

from __future__ import annotations

import datetime
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from typing import Any, Final

from .decoding import CollisionBudget, DecodeError, Foreign
from .encoding import MAX_NUMBER_SIZE

_CONTAINERS: Final = frozenset((list, tuple, dict, set, frozenset))
_MAX_RANGE: Final = 100_000
# Equality of these is exact, whatever the other number is, and takes the longer the longer both are: to compare a
# Decimal with an int of 200,000 bits takes a tenth of a second. Beyond so many bits no Decimal could equal an int.
_SLOW_TO_COMPARE: Final = frozenset((Decimal, Fraction))
_SLOW_KINDS: Final = ("Decimal", "Fraction")
_SLOWER: Final = 100_000
_MAX_INT_BITS_BESIDE_DECIMALS: Final = 1 << 15
_NUMPY_ITEMS: Final = frozenset((bool, int, float, complex, str, bytes))
_AMBIGUOUS: Final = "The truth value of an array with more than one element, or with none, is ambiguous."
_Meanings = dict[str, Callable[[Any], Any]]


class Array:
    """A numpy array: its shape and its nested items.

    Equal to an array of the same shape with equal items. Numpy says neither yes nor no about an array and a
    list, unless there is one element; so an array equals something else only where both are one element.
    """

    __hash__ = None  # type: ignore[assignment]  # as numpy's

    def __init__(self, shape: tuple[int, ...], items: Any) -> None:
        self.shape = shape
        self.items = items

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Array):
            return self.shape == other.shape and bool(self.items == other.items)
        if any(length != 1 for length in self.shape):
            return False
        return bool(_only_item(self.items) == _only_item(other))


class ArrayInTests(Array):
    """The same for test source: what a test asks of it is answered as numpy does, or not at all.

    Numpy compares item by item, and gives neither this comparison nor an array a truth unless it has one item. No test
    may pass on an array on which it would not with numpy, so that ``!=`` and ``not`` may not answer there either.
    """

    __hash__ = None

    def __bool__(self) -> bool:
        item = self._item()
        if type(item) not in (bool, int, float, complex):
            raise ValueError("whether an array of one such item is true is not known here")
        return bool(item)

    def __eq__(self, other: object) -> bool:
        return bool(self._item() == _comparable(other))

    def __ne__(self, other: object) -> bool:
        return bool(self._item() != _comparable(other))

    def _item(self) -> Any:
        """The only item; ValueError where there are none or more, or where items and shape were forged."""
        item = self.items
        for length in self.shape:
            if length != 1 or type(item) is not list or len(item) != 1:
                raise ValueError(_AMBIGUOUS)
            item = item[0]
        if type(item) in (list, tuple):
            raise ValueError(_AMBIGUOUS)
        return item


class Drained:
    """What an iterator gave. Equal to another iterator that gave the same; iterable for set comparison."""

    __hash__ = None  # type: ignore[assignment]  # equality is by content, and the content is a list

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Drained) and self.items == other.items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class _Budget(CollisionBudget):
    """Knows what Decimals and Fractions cost inside of tuples and frozensets: the more, the more digits they have."""

    def _cost_of_leaf(self, value: object) -> int:
        if type(value) is Decimal:
            return 64 + 2 * (len(str(value)) + abs(value.adjusted()))
        if type(value) is Fraction:
            return 64 + (value.numerator.bit_length() + value.denominator.bit_length()) // 2
        return super()._cost_of_leaf(value)


class DrainedInTests(Drained):
    """The same for test source. A view of a dict's values is one of these too: empty, it would be false, and an
    iterator true."""

    def __bool__(self) -> bool:
        if not self.items:
            raise ValueError("whether an iterator is true that gave nothing is not known here")
        return True


def revive(value: object, *, for_tests: bool = False) -> object:
    """Return the value with each ``Foreign`` in it replaced by what it means, or left where it means nothing.

    ``for_tests``: it goes to test source, which may ask more of it than whether it equals something.
    Raises DecodeError where keys cannot be hashed, collide too often, or would take too long to compare.
    """
    weight, kinds = _survey(value)
    if "Decimal" in kinds and _longest_int(value) > _MAX_INT_BITS_BESIDE_DECIMALS:
        raise DecodeError("a Decimal beside an int that it could only slowly be compared with")
    meanings = _MEANINGS_IN_TESTS if for_tests else _MEANINGS
    return _revived(value, meanings, _Budget(), weight) if kinds else value


def distinct(items: Iterable[Any]) -> set[Any]:
    """Return the items as a set; raise DecodeError where they collide too often, TypeError if unhashable."""
    if isinstance(items, range) and abs(items.stop - items.start) // abs(items.step) > _MAX_RANGE:
        raise DecodeError(f"a range of more than {_MAX_RANGE} numbers as a set")
    if isinstance(items, str | bytes | bytearray):
        return set(
            items
        )  # of few different ones, whose hashes nobody chooses; a list of all would be far longer
    gathered = list(items)
    weight = _survey(gathered)[0] // (8 * len(gathered) + 8)
    _Budget().check(gathered, 1 + weight)
    return set(gathered)


def _survey(value: object) -> tuple[int, set[str]]:
    """Say what it costs to compare the value, counted in plain values, and of which kinds the Foreign in it are."""
    total, foreign = 0, set[str]()
    for inside, kinds in _levels(value):
        total += len(inside)
        slow = _SLOW_TO_COMPARE & kinds
        if Foreign in kinds:
            here = [item.kind for item in inside if type(item) is Foreign]
            foreign.update(here)
            total += _SLOWER * sum(map(here.count, _SLOW_KINDS))
        if slow:
            total += _SLOWER * sum(type(item) in slow for item in inside)
    return total, foreign


def _longest_int(value: object) -> int:
    """The bits of the longest int inside."""
    lengths = (
        item.bit_length()
        for inside, kinds in _levels(value)
        if int in kinds
        for item in inside
        if type(item) is int
    )
    return max(lengths, default=0)


def _levels(value: object) -> Iterator[tuple[list[Any], set[type]]]:
    """Yield all values inside, and of which types they are; level by level, in C."""
    level: list[Any] = [(value,)]
    while level:
        mappings = [item for item in level if type(item) is dict]
        inside = list(chain.from_iterable(chain(level, (item.values() for item in mappings))))
        kinds = set(map(type, inside))
        yield inside, kinds
        level = [item for item in inside if type(item) in _CONTAINERS] if kinds & _CONTAINERS else []
        if Foreign in kinds:
            level += [(item.value,) for item in inside if type(item) is Foreign]


def _revived(value: Any, meanings: _Meanings, budget: _Budget, weight: int) -> Any:
    kind = type(value)
    if kind is Foreign:
        return _meaning(value, meanings, budget, weight)
    if kind not in _CONTAINERS:
        return value
    items = chain(value, value.values()) if kind is dict else value
    values = []
    for item in items:
        values.append(_revived(item, meanings, budget, weight))
    if kind is list:
        return values
    if kind is tuple:
        return tuple(values)
    keys = values[: len(value)]
    _check(keys, budget, weight)
    return dict(zip(keys, values[len(value) :], strict=True)) if kind is dict else kind(keys)


def _check(keys: list[Any], budget: _Budget, weight: int) -> None:
    try:
        budget.check(keys, 1 + weight // (8 * len(keys) + 8))
    except TypeError:
        raise DecodeError("an unhashable key in a set or dict") from None


def _meaning(foreign: Foreign, meanings: _Meanings, budget: _Budget, weight: int) -> Any:
    make = meanings.get(foreign.kind)
    if make is None:
        return foreign
    payload = _revived(foreign.value, meanings, budget, weight)
    if foreign.kind == "dict_keys":
        _check(payload, budget, weight)
    if foreign.kind == "dict_items":
        if not all(type(item) is tuple and len(item) == 2 for item in payload):
            return foreign
        _check([key for key, _ in payload], budget, weight)
    try:
        return make(payload)
    except (TypeError, ValueError, ArithmeticError):
        return foreign  # a forged payload means nothing


def _numpy_scalar(payload: tuple[Any, ...]) -> Any:
    _dtype, value = payload
    if type(value) not in _NUMPY_ITEMS:
        raise ValueError("not a value that a numpy scalar can have")
    return value


def _numpy_array(payload: tuple[Any, ...]) -> Array:
    return Array(*_shape_and_items(payload))


def _shape_and_items(payload: tuple[Any, ...]) -> tuple[tuple[int, ...], Any]:
    _dtype, shape, items = payload
    if type(shape) is not tuple:
        raise ValueError("a shape is a tuple")
    return shape, items


def _fraction(payload: tuple[Any, ...]) -> Fraction:
    numerator, denominator = payload
    if type(numerator) is not int or type(denominator) is not int:
        raise ValueError("a fraction has two ints")
    if max(numerator.bit_length(), denominator.bit_length()) > MAX_NUMBER_SIZE:
        raise ValueError("larger than the encoder writes")
    return Fraction(numerator, denominator)


def _decimal(payload: str) -> Decimal:
    if len(payload) > MAX_NUMBER_SIZE:
        raise ValueError("larger than the encoder writes")
    value = Decimal(payload)
    if value.is_snan():
        raise ValueError("a signalling NaN cannot be compared")
    if value.is_finite() and abs(value.adjusted()) > MAX_NUMBER_SIZE:
        raise ValueError("its exact value would have too many digits")
    return value


def _range(payload: tuple[Any, ...]) -> range:
    return range(*payload)


def _timedelta(payload: tuple[Any, ...]) -> datetime.timedelta:
    days, seconds, microseconds = payload
    return datetime.timedelta(days=days, seconds=seconds, microseconds=microseconds)


_MEANINGS: _Meanings = {
    "numpy.scalar": _numpy_scalar,
    "numpy.array": _numpy_array,
    "Counter": Counter,
    "OrderedDict": OrderedDict,
    "defaultdict": dict,
    "namedtuple": tuple,
    "deque": deque,
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_items": lambda items: dict(items).items(),
    "iterator": Drained,
    "Fraction": _fraction,
    "Decimal": _decimal,
    "range": _range,
    "bytearray": bytearray,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "timedelta": _timedelta,
}

_MEANINGS_IN_TESTS: _Meanings = {
    **_MEANINGS,
    "numpy.array": lambda payload: ArrayInTests(*_shape_and_items(payload)),
    "iterator": DrainedInTests,
}


def _comparable(other: object) -> Any:
    """What numpy would compare one item with."""
    if isinstance(other, ArrayInTests):
        return other._item()
    if isinstance(other, range):
        other = list(other[:2])
    item = _only_item(other)
    if type(item) in (list, tuple):
        raise ValueError(_AMBIGUOUS)
    return item


def _only_item(value: Any) -> Any:
    while type(value) in (list, tuple) and len(value) == 1:
        value = value[0]
    return value
