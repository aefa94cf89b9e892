"""How many values JSON text has, told before it is parsed: two bytes of it can become a hundred of memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MAX_VALUES: Final = 4_000_000
"""Of one body or text: its values and its fields' names together. Parsing them takes seconds, in which no other thread
runs, and several hundred MiB."""

_SLICE_BYTES = 1 << 20
_MARKS = b",:[{"


def has_too_many_values(text: bytes) -> bool:
    """Whether JSON text in UTF-8 has more than ``MAX_VALUES`` values and names, without parsing it.

    Each but the first has a mark of its own before it: one of ``, : [ {``. An empty array or object counts twice. What
    is no JSON may be told either way.
    """
    if len(text) <= MAX_VALUES or _marks(text) <= MAX_VALUES:
        return False
    return _marks_outside_strings(text) > MAX_VALUES


def _marks(text: bytes) -> int:
    return sum(_marks_of(piece) for piece in _slices(text))


def _marks_outside_strings(text: bytes) -> int:
    unescaped = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = inside = 0
    for piece in _slices(unescaped):
        parts = piece.split(b'"')
        marks += _marks_of(b"".join(parts[inside::2]))
        if marks > MAX_VALUES:
            break
        inside = (inside + len(parts) - 1) % 2
    return marks


def _slices(text: bytes) -> Iterator[bytes]:
    """The text in pieces: no other thread runs during one step over one of them."""
    return (text[at : at + _SLICE_BYTES] for at in range(0, len(text), _SLICE_BYTES))


def _marks_of(piece: bytes) -> int:
    return len(piece) - len(piece.translate(None, _MARKS))
