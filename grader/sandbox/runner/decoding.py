"""Reading answers: bytes from a sandbox become plain values, or a ``DecodeError``, and nothing else.

The format is that of docs/answer-encoding.md. The bytes are an adversary's: every length is checked before it
is believed, nothing recurses, and the work and the memory are proportional to the length of the input.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

MAX_INT_BITS: Final = 1_000_000
"""Bits of the largest int that is read."""

_MAX_COLLISION_WORK: Final = 4_000_000
_VALUES_A_UNIT: Final = 16  # plain values that C compares in a unit of work
_NESTING: Final = frozenset((tuple, frozenset))
_BULK_ITEMS: Final = 8
_UNBOUNDED: Final = 1 << 62
_COUNT = struct.Struct("<I")
_INT32 = struct.Struct("<i")
_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")

_CONSTANTS: dict[int, object] = {ord("N"): None, ord("T"): True, ord("F"): False, ord("."): ...}
_TAG_INT, _TAG_FLOAT, _TAG_TEXT, _TAG_TUPLE, _TAG_LIST, _TAG_DICT, _TAG_DICT_END, _TAG_FOREIGN = b"igu([{0Q"
_TAG_SET: Final = ord("<")
_COUNTED, _TABLES = frozenset(b"([<>"), frozenset(b"{<>")
_BULK_LAYOUTS = {_TAG_INT: struct.Struct("<xi"), _TAG_FLOAT: struct.Struct("<xd")}

_PAYLOADS: dict[str, type] = {
    "numpy.scalar": tuple,
    "numpy.array": tuple,
    "Counter": dict,
    "OrderedDict": dict,
    "defaultdict": dict,
    "namedtuple": tuple,
    "deque": list,
    "dict_keys": list,
    "dict_items": list,
    "iterator": list,
    "Fraction": tuple,
    "Decimal": str,
    "range": tuple,
    "bytearray": bytes,
    "date": str,
    "time": str,
    "datetime": str,
    "timedelta": tuple,
    "opaque": str,
}


# What takes more of the worker's memory than other values, and how many of those it is counted as besides itself.
# A value takes some 80 bytes; a set or dict has a table, and a deque a block of 64 places, also where it is empty.
_HEAVY_TABLE: Final = 2
_HEAVY_KINDS: Final = {
    "Counter": 4,
    "OrderedDict": 4,
    "defaultdict": 2,
    "deque": 12,
    "dict_keys": 4,
    "dict_items": 4,
    "iterator": 2,
    "numpy.array": 2,
    "Fraction": 3,
    "Decimal": 3,
}


class DecodeError(ValueError):
    """The bytes encode no value within the bounds: a wrong answer, never the grader's error."""


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """Data that is not of an exact builtin type: its kind and what it holds.

    It equals nothing but itself; ``grader.judge.compare`` knows what each kind means.
    """

    kind: str
    value: Any


class CollisionBudget:
    """Bounds the work of making sets and dicts of values whose hashes were chosen to collide.

    Python's hashes of numbers and tuples are known to everyone, so that n values can be made to cost n²
    comparisons, and frozensets inside frozensets four times as many with each level. ``weight`` says how much one
    comparison may cost, in units of some tens of nanoseconds; what tuples and frozensets hold is counted besides.
    """

    def __init__(self, work: int = _MAX_COLLISION_WORK) -> None:
        self._left = work

    def check(self, items: Sequence[Hashable], weight: int = 1) -> None:
        """Raise DecodeError where a set of the items would take too long to make, TypeError if it cannot be.

        Few values share a hash by accident (-1 and -2 do), so that the common case is one pass in C.
        """
        if len(set(map(hash, items))) == len(items):
            return
        buckets: dict[int, list[Hashable]] = {}
        costs: dict[int, int] = {}  # of the dearest item with that hash
        for item in items:
            key = hash(item)
            bucket = buckets.setdefault(key, [])
            if len(bucket) > 1:
                self._spend(len(bucket) * weight)
            if bucket and type(item) in _NESTING:
                costs[key] = max(costs.get(key) or self._cost(bucket[0]), self._cost(item))
                self._spend(len(bucket) * (costs[key] // _VALUES_A_UNIT))
            if item not in bucket:
                bucket.append(item)

    def _spend(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise DecodeError("too many values with the same hash in a set or dict")

    def _cost(self, item: object) -> int:
        """How many plain values are looked at, at the most, when the item is compared with one of the same cost.

        To compare two frozensets is to compare each member of the one with all of its hash in the other: members
        with one hash multiply what is inside them, level by level. To count it is work, too, and spent.
        """
        total, waiting = 0, [(item, 1)]
        while waiting:
            value, times = waiting.pop()
            total += times * self._cost_of_leaf(value)
            if type(value) is tuple:
                waiting += [(inner, times) for inner in value]
            elif type(value) is frozenset:
                alike = Counter(map(hash, value))
                waiting += [(inner, times * alike[hash(inner)]) for inner in value]
            else:
                continue
            self._spend((len(value) + 1) // 2)
        return total

    def _cost_of_leaf(self, value: object) -> int:
        if type(value) is int:
            return 1 + (value.bit_length() >> 10)
        return 1 + (len(value) >> 8) if type(value) is str or type(value) is bytes else 1


def decode(data: bytes | memoryview, *, max_values: int = 2_000_000, max_depth: int = 500) -> object:
    """Return the value that the bytes encode, of exact builtin types and ``Foreign`` only.

    ``max_values`` bounds the number of values in all, of which some kinds count as several, ``max_depth`` the nested
    levels. Raises DecodeError for anything that the encoder would not have written for a value within the bounds.
    """
    try:
        return _Decoder(bytes(data), max_values, max_depth).run()
    except (IndexError, struct.error):
        raise DecodeError(f"the encoding ends too early, after {len(data)} bytes") from None
    except RecursionError:
        raise DecodeError("deeply nested keys with the same hash in a set or dict") from None


@dataclass(slots=True)
class _Open:
    """A container whose items are still being read. A dict's number of items is known only at its end."""

    tag: int
    kind: str
    start: int
    missing: int
    items: list[Any]


class _Decoder:
    __slots__ = ("_budget", "_data", "_max_depth", "_position", "_values_left")

    def __init__(self, data: bytes, max_values: int, max_depth: int) -> None:
        self._data = data
        self._position = 0
        self._values_left = max_values
        self._max_depth = max_depth
        self._budget = CollisionBudget()

    def run(self) -> object:
        root = _Open(_TAG_LIST, "", 0, 1, [])
        top = root
        above: list[_Open] = []
        data = self._data
        while True:
            while top.missing == 0:
                if top is root:
                    if self._position != len(data):
                        raise DecodeError(f"{len(data) - self._position} bytes follow the value")
                    return root.items[0]
                value = self._closed(top)
                top = above.pop()
                top.items.append(value)
            tag = data[self._position]
            if tag == _TAG_DICT_END and top.tag == _TAG_DICT:
                self._position += 1
                top.missing = 0
                continue
            top.missing -= 1
            self._spend(1)
            read = _SCALARS.get(tag)
            if read is not None:
                value, self._position = read(data, self._position + 1)
                top.items.append(value)
                continue
            if len(above) >= self._max_depth:
                raise DecodeError(f"more than {self._max_depth} nested levels")
            above.append(top)
            top = self._opened(tag)
            self._spend(_HEAVY_KINDS.get(top.kind, 0) if top.kind else _HEAVY_TABLE * (tag in _TABLES))

    def _spend(self, values: int) -> None:
        self._values_left -= values
        if self._values_left < 0:
            raise DecodeError("too many values in one answer")

    def _opened(self, tag: int) -> _Open:
        data, start = self._data, self._position
        if tag in _COUNTED:
            count = _COUNT.unpack_from(data, start + 1)[0]
            self._position = start + 5
            if count > len(data) - self._position:
                raise DecodeError(f"{count} items are announced at byte {start}, more than there are bytes")
            opened = _Open(tag, "", start, count, [])
            if count >= _BULK_ITEMS:
                self._read_bulk(opened)
            return opened
        if tag == _TAG_DICT:
            self._position = start + 1
            return _Open(tag, "", start, _UNBOUNDED, [])
        if tag == _TAG_FOREIGN:
            self._position = start + 2 + data[start + 1]
            kind = data[start + 2 : self._position].decode("latin-1")
            if kind not in _PAYLOADS:
                raise DecodeError(f"unknown kind of value at byte {start}")
            return _Open(tag, kind, start, 1, [])
        raise DecodeError(f"unknown tag {tag} at byte {start}")

    def _read_bulk(self, opened: _Open) -> None:
        """Read a container of nothing but int32 or nothing but floats at C speed."""
        start = self._position
        layout = _BULK_LAYOUTS.get(self._data[start])
        if layout is None:
            return
        end = start + opened.missing * layout.size
        if end > len(self._data):
            return
        tags = self._data[start : end : layout.size]
        if tags.count(tags[:1]) != opened.missing:
            return
        self._spend(opened.missing)
        opened.items = list(chain.from_iterable(layout.iter_unpack(self._data[start:end])))
        opened.missing = 0
        self._position = end

    def _closed(self, done: _Open) -> object:
        if done.tag == _TAG_LIST:
            return done.items
        if done.tag == _TAG_TUPLE:
            return tuple(done.items)
        if done.tag == _TAG_FOREIGN:
            payload = done.items[0]
            if type(payload) is not _PAYLOADS[done.kind]:
                raise DecodeError(f"a {type(payload).__name__} cannot be the payload of {done.kind}")
            return Foreign(done.kind, payload)
        return self._keyed(done)

    def _keyed(self, done: _Open) -> object:
        """Make a set or dict. It is made once: each time costs the comparisons that the budget has counted."""
        keys = done.items
        if done.tag == _TAG_DICT:
            if len(done.items) % 2:
                raise DecodeError(f"a key without a value in the dict at byte {done.start}")
            keys = done.items[::2]
        made: dict[Any, Any] | set[Any] | frozenset[Any]
        try:
            if len(keys) > 1:
                self._budget.check(keys, 1 + (self._position - done.start) // (64 * len(keys) + 64))
            if done.tag == _TAG_DICT:
                made = dict(zip(keys, done.items[1::2], strict=True))
            else:
                made = set(keys) if done.tag == _TAG_SET else frozenset(keys)
        except TypeError:
            raise DecodeError(f"an unhashable key at byte {done.start}") from None
        if len(made) != len(keys):
            raise DecodeError(f"the same key twice in the set or dict at byte {done.start}")
        if any(key != key for key in keys if type(key) is float or type(key) is complex):
            raise DecodeError(f"NaN as a key at byte {done.start}")
        return made


def _read_int32(data: bytes, at: int) -> tuple[int, int]:
    return _INT32.unpack_from(data, at)[0], at + 4


def _read_float(data: bytes, at: int) -> tuple[float, int]:
    return _FLOAT.unpack_from(data, at)[0], at + 8


def _read_complex(data: bytes, at: int) -> tuple[complex, int]:
    return complex(*_COMPLEX.unpack_from(data, at)), at + 16


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    begin = at + 4
    end = begin + _COUNT.unpack_from(data, at)[0]
    if end > len(data):
        raise DecodeError(f"a string of {end - begin} bytes at byte {at}, more than there are")
    return data[begin:end], end


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    raw, end = _read_bytes(data, at)
    try:
        return raw.decode("utf-8", "surrogatepass"), end
    except UnicodeDecodeError:
        raise DecodeError(f"text that is not UTF-8 at byte {at}") from None


def _read_long(data: bytes, at: int) -> tuple[int, int]:
    signed_count = _INT32.unpack_from(data, at)[0]
    count = abs(signed_count)
    begin = at + 4
    end = begin + 2 * count
    if count * 15 > MAX_INT_BITS + 14:
        raise DecodeError(f"an int of more than {MAX_INT_BITS} bits at byte {at}")
    if end > len(data):
        raise DecodeError(f"an int of {count} digits at byte {at}, more than there are bytes")
    digits = data[begin:end]
    if not digits or digits[-2:] == b"\0\0" or max(digits[1::2]) > 0x7F:
        raise DecodeError(f"an int with wrong digits at byte {at}")
    magnitude = _joined_digits(digits)
    value = -magnitude if signed_count < 0 else magnitude
    if -(1 << 31) <= value < 1 << 31:
        raise DecodeError(f"a small int written as a large one at byte {at}")
    return value, end


def _joined_digits(digits: bytes) -> int:
    """Join 15-bit digits, each in 16 bits, by halving the number of gaps again and again: n log n in C."""
    value = int.from_bytes(digits, "little")
    lane, used, total = 16, 15, 8 * len(digits)
    while lane < total:
        pairs = -(-total // (2 * lane))
        low = int.from_bytes(((1 << used) - 1).to_bytes(lane // 4, "little") * pairs, "little")
        value = (value & low) | ((value >> lane & low) << used)
        lane, used = 2 * lane, 2 * used
    return value


_SCALARS: dict[int, Callable[[bytes, int], tuple[object, int]]] = {
    _TAG_INT: _read_int32,
    _TAG_FLOAT: _read_float,
    _TAG_TEXT: _read_text,
    ord("l"): _read_long,
    ord("y"): _read_complex,
    ord("s"): _read_bytes,
}


def _constant(value: object) -> Callable[[bytes, int], tuple[object, int]]:
    return lambda _data, at: (value, at)


_SCALARS.update((tag, _constant(value)) for tag, value in _CONSTANTS.items())
