"""Answers as inert bytes: the format of docs/answer-encoding.md, written inside the sandbox.

This runs beside untrusted code, which can break it; then it breaks nothing but its own answers. It never
calls a method that a program's class could override, and what its fast path needs is bound at import, so that
a program that patches ``builtins`` or ``marshal`` for its own purposes still gets its answers out.
"""

import builtins
import collections
import io
import itertools
import marshal
import sys
import types
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 500
"""Nested levels that the pure-Python encoder writes, and that the judge's decoder reads."""

MAX_ITERATOR_ITEMS = 1_000_000
"""Items read from a generator or another iterator; a longer one is opaque."""

MAX_NUMBER_SIZE = 4096
"""Bits of each part of a Fraction, characters of a Decimal; more is opaque, as arithmetic on it is slow."""

_FORMAT = 2
_HEADER_BYTES = 5
_SLICE_ITEMS = 1000
_NAME_CHARACTERS = 100

# Functions take their builtins from here: what a program puts into the real module later does not reach them.
globals()["__builtins__"] = dict(vars(builtins))

_dumps, _modules = marshal.dumps, sys.modules
_OPAQUE = b"Q\x06opaque"
_ITERATOR = b"Q\x08iterator"
_BytesIO = io.BytesIO
# EXT1, EXT2, EXT4, NEWOBJ, EMPTY_SET, ADDITEMS, FROZENSET, NEWOBJ_EX, STACK_GLOBAL
_UNCLEAR_OPCODES = tuple(bytes([code]) for code in (0x82, 0x83, 0x84, 0x81, 0x8F, 0x90, 0x91, 0x92, 0x93))
_flatten, _take = itertools.chain.from_iterable, itertools.islice
_deque_iterator = collections.deque.__iter__
_type_name = type.__dict__["__name__"].__get__

_SCALARS = frozenset((type(None), bool, type(...), int, float, complex, bytes, str))
_CONTAINERS = frozenset((list, tuple, dict, set, frozenset))
_PLAIN = _SCALARS | _CONTAINERS
_SEQUENCE_TAGS: dict[type, bytes] = {list: b"[", tuple: b"(", set: b"<", frozenset: b">"}
_DICT_VALUES = dict.values


def _kinds(*examples: Any) -> frozenset[type]:
    return frozenset(map(type, examples))


_ITERATORS = (
    frozenset((types.GeneratorType, map, filter, zip, enumerate, reversed))
    | _kinds(*map(iter, ([], (), {}, set(), "", "\u0100", b"", bytearray(), range(0), range(1 << 70))))
    | _kinds(iter({}.values()), iter({}.items()), reversed([]), reversed({}), iter(collections.deque()))
    | _kinds({}.values(), collections.OrderedDict().values())
    | frozenset(value for value in vars(itertools).values() if isinstance(value, type))
)
_KEYS_VIEWS = _kinds({}.keys(), collections.OrderedDict().keys())
_ITEMS_VIEWS = _kinds({}.items(), collections.OrderedDict().items())
_DICT_KINDS: dict[type, str] = {
    collections.Counter: "Counter",
    collections.OrderedDict: "OrderedDict",
    collections.defaultdict: "defaultdict",
}
_TUPLE_OVERRIDES = ("__iter__", "__eq__", "__ne__", "__getitem__", "__len__", "__hash__", "__contains__")
_NUMPY_VALUES = frozenset((bool, int, float, complex, str, bytes))


class _TooDeepError(Exception):
    """The value has more nested levels than the format allows."""


def encode(value: object) -> bytes:
    """Return the encoding of any value; what has no meaning as data is written as ``opaque``."""
    if _len_of_sequence(value) > _SLICE_ITEMS:
        return b"".join(encode_chunks(value))
    return _encode_whole(value)


def encode_chunks(value: object) -> Iterator[bytes]:
    """Yield the bytes of ``encode(value)`` in pieces, so that a huge list or tuple never exists twice."""
    count = _len_of_sequence(value)
    if count <= _SLICE_ITEMS:
        yield _encode_whole(value)
        return
    # Whether one item is too deep makes the whole answer opaque, and is known only at its end; a sequence
    # of this size says so in the place of that item instead.
    yield _header(_SEQUENCE_TAGS[type(value)], count)
    for start in range(0, count, _SLICE_ITEMS):
        items = value[start : start + _SLICE_ITEMS]  # type: ignore[index]  # exactly a list or a tuple
        data = _marshalled(items)
        if data is not None:
            yield data[_HEADER_BYTES:]
        else:
            yield b"".join([_encode_whole(item) for item in items])


def digest(value: object) -> tuple[int, bytes] | None:
    """Return a length in bytes and a SHA-256 that equal values with equal types have in common, in bounded memory;
    None where something in the value is opaque, and so equal to nothing.

    A long list or tuple is hashed in slices, each as pickle writes it where that is canonical: three times as fast as
    marshal. Nothing is ever unpickled.
    """
    from hashlib import sha256  # few samples need it, and all would pay for the memory that OpenSSL takes

    count = _len_of_sequence(value)
    if count <= _SLICE_ITEMS:
        return digest_of_encoded(_encode_whole(value))
    length, hashed = 0, sha256(_header(_SEQUENCE_TAGS[type(value)], count))
    for start in range(0, count, _SLICE_ITEMS):
        items = list(value[start : start + _SLICE_ITEMS])  # type: ignore[index]  # exactly a list or a tuple
        pickled = _pickled(items)
        data = encode(items) if pickled is None else pickled
        if pickled is None and _OPAQUE in data:
            return None
        hashed.update(_header(b"M" if pickled is None else b"P", len(data)))
        hashed.update(data)
        length += len(data)
    return length, hashed.digest()


def digest_of_encoded(data: bytes) -> tuple[int, bytes] | None:
    """Return the same of a value that has been encoded, where that is no long sequence.

    An iterator in it has been read to its end: encoded again, it would be empty.
    """
    from hashlib import sha256

    return None if _OPAQUE in data else (len(data), sha256(data).digest())


def has_iterators(data: bytes) -> bool:
    """Whether there may be an iterator in a value that was encoded so."""
    return _ITERATOR in data


def _pickled(items: list[Any]) -> bytes | None:
    """Return pickle's bytes where they depend on values and types alone, else None.

    Without its memo (``fast``) pickle writes equal plain values alike, but sets in any order, and objects of classes
    by naming something to call: then one of these opcodes occurs, or the same byte in a text or number, which costs
    no more than time.
    """
    from _pickle import Pickler

    buffer = _BytesIO()
    pickler = Pickler(buffer, 4)
    pickler.fast = True
    try:
        pickler.dump(items)
    except MemoryError:
        raise
    except Exception:
        return None
    data = buffer.getvalue()
    return None if any(opcode in data for opcode in _UNCLEAR_OPCODES) else data


def _len_of_sequence(value: object) -> int:
    kind = type(value)
    return len(value) if kind is list or kind is tuple else 0  # type: ignore[arg-type]


def _encode_whole(value: object) -> bytes:
    data = _marshalled(value)
    if data is not None:
        return data
    try:
        return _written(value, 0)
    except (_TooDeepError, RecursionError):
        return _opaque("too deep")
    except MemoryError:
        raise
    except Exception:  # user code may run here: a generator's body, a tzinfo's methods
        return _opaque(_name_of(value))


def _marshalled(value: object) -> bytes | None:
    """Return marshal's encoding where it means what we mean, else None."""
    try:
        data = _dumps(value, _FORMAT)  # type: ignore[arg-type]  # raises for what it cannot write
    except MemoryError:
        raise
    except Exception:
        return None
    # marshal writes every object with a buffer (numpy's scalars, bytearray ...) as bytes, and knows code
    # objects and the class StopIteration; without these tags' letters there can be none of them.
    if (b"s" in data or b"c" in data or b"S" in data) and not _is_plain(value):
        return None
    return data


def _is_plain(value: object) -> bool:
    """Whether value consists of exact builtin types only; level by level, because that runs at C speed."""
    level: list[Any] = [(value,)]
    while level:
        mappings = [item for item in level if type(item) is dict]
        if mappings:
            level += map(_DICT_VALUES, mappings)
        kinds = set(map(type, _flatten(level)))
        if kinds <= _SCALARS:
            return True
        if not kinds <= _PLAIN:
            return False
        if kinds <= _CONTAINERS:
            level = list(_flatten(level))
        else:
            level = [item for item in _flatten(level) if type(item) in _CONTAINERS]
    return True


def _written(value: Any, depth: int) -> bytes:
    """Encode in pure Python what marshal cannot."""
    kind = type(value)
    if kind in _SCALARS:
        return _dumps(value, _FORMAT)
    if depth >= MAX_DEPTH:
        raise _TooDeepError
    if kind is list or kind is tuple:
        items = [_written(item, depth + 1) for item in value]
        return _header(_SEQUENCE_TAGS[kind], len(items)) + b"".join(items)
    if kind is dict:
        parts = [_written(part, depth + 1) for pair in value.items() for part in pair]
        return b"{" + b"".join(parts) + b"0"
    if kind is set or kind is frozenset:
        # In the order that marshal gives them, so that equal sets have equal bytes on either path.
        items = sorted([_written(item, depth + 1) for item in value])
        return _header(_SEQUENCE_TAGS[kind], len(items)) + b"".join(items)
    return _foreign(value, kind, depth)


def _foreign(value: Any, kind: type, depth: int) -> bytes:
    for explain in (_collection, _number_or_time, _numpy_value):
        found = explain(value, kind)
        if found is not None:
            name, payload = found
            return _tagged(name) + _written(payload, depth + 1)
    return _opaque(_name_of(value))


def _collection(value: Any, kind: type) -> tuple[str, object] | None:
    if kind in _DICT_KINDS:
        return _DICT_KINDS[kind], dict(value)
    if kind in _ITERATORS:
        items = list(_take(value, MAX_ITERATOR_ITEMS + 1))
        return ("iterator", items) if len(items) <= MAX_ITERATOR_ITEMS else ("opaque", "endless iterator")
    if kind in _KEYS_VIEWS:
        return "dict_keys", list(value)
    if kind in _ITEMS_VIEWS:
        return "dict_items", list(value)
    if kind is collections.deque:
        return "deque", list(_deque_iterator(value))
    if kind is range:
        return "range", (value.start, value.stop, value.step)
    if kind is bytearray:
        return "bytearray", bytes(value)
    if _is_namedtuple(kind):
        return "namedtuple", tuple.__getitem__(value, slice(None))
    return None


def _is_namedtuple(kind: type) -> bool:
    if type.__dict__["__bases__"].__get__(kind) != (tuple,):
        return False
    own = type.__dict__["__dict__"].__get__(kind)
    return "_fields" in own and "_make" in own and not any(name in own for name in _TUPLE_OVERRIDES)


def _number_or_time(value: Any, kind: type) -> tuple[str, object] | None:
    if _is_from("fractions", "Fraction", kind):
        parts = (value.numerator, value.denominator)
        fits = all(type(part) is int and part.bit_length() <= MAX_NUMBER_SIZE for part in parts)
        return ("Fraction", parts) if fits else ("opaque", "Fraction")
    if _is_from("decimal", "Decimal", kind):
        text = str(value)
        return ("Decimal", text) if len(text) <= MAX_NUMBER_SIZE else ("opaque", "Decimal")
    if _is_from("datetime", "timedelta", kind):
        return "timedelta", (value.days, value.seconds, value.microseconds)
    for name in ("date", "time", "datetime"):
        if _is_from("datetime", name, kind):
            return name, value.isoformat()
    return None


def _numpy_value(value: Any, kind: type) -> tuple[str, object] | None:
    numpy = _modules.get("numpy")
    if numpy is None:
        return None
    if kind is getattr(numpy, "ndarray", None):
        return "numpy.array", (value.dtype.str, value.shape, value.tolist())
    generic = getattr(numpy, "generic", None)
    bases = type.__dict__["__mro__"].__get__(kind)
    if generic in bases and _is_from("numpy", _type_name(kind), kind):
        item = value.item()
        if type(item) in _NUMPY_VALUES:
            return "numpy.scalar", (value.dtype.str, item)
    return None


def _is_from(module: str, name: str, kind: type) -> bool:
    """Whether kind is that class of that module. A module nobody imported can have no instances."""
    return getattr(_modules.get(module), name, None) is kind


def _tagged(kind: str) -> bytes:
    name = kind.encode("ascii")
    return b"Q" + bytes((len(name),)) + name


def _opaque(text: str) -> bytes:
    return _tagged("opaque") + _dumps(text, _FORMAT)


def _name_of(value: object) -> str:
    # A class may be named by an instance of a subclass of str; slicing gives the plain string.
    return str.__getitem__(_type_name(type(value)), slice(0, _NAME_CHARACTERS))


def _header(tag: bytes, count: int) -> bytes:
    return tag + count.to_bytes(4, "little")
