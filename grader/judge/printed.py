"""Printed text a piece at a time: no more of it is taken apart than is needed to see that it is another text.

A program may print 64 MiB of short tokens, which as a list would take gigabytes of the worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, zip_longest
from typing import Final

_PIECE: Final = 1 << 16
_WHITE: Final = re.compile(rb"\s")
_LINE_END: Final = re.compile(rb"[\r\n]")
_LINE_BREAK: Final = re.compile(rb"[\r\n]\s*")  # with all blank lines after it, as one


def tokens(text: bytes) -> Iterator[bytes]:
    """Yield what ``text.split()`` has."""
    return chain.from_iterable(map(bytes.split, _pieces(text, _WHITE)))


def filled_lines(text: bytes) -> Iterator[bytes]:
    """Yield the lines that are not blank, without the white space around them."""
    for piece in _pieces(text, _LINE_END):
        yield from filter(None, map(bytes.strip, _LINE_BREAK.split(piece)))


def agree(
    answer: Iterable[bytes], expected: Iterable[bytes], near: Callable[[bytes, bytes], bool] | None = None
) -> bool:
    """Return whether there are as many of both, and each is the same as its partner, or near it."""
    return all(
        mine == wanted
        or (near is not None and mine is not None and wanted is not None and near(mine, wanted))
        for mine, wanted in zip_longest(answer, expected)
    )


def _pieces(text: bytes, border: re.Pattern[bytes]) -> Iterator[bytes]:
    """Cut the text before a border, about every ``_PIECE`` bytes."""
    begin = 0
    while begin < len(text):
        found = border.search(text, begin + _PIECE)
        end = found.start() if found else len(text)
        yield text[begin:end]
        begin = end
