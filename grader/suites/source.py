"""Reading Python source that a suite brings along, without running it."""

from __future__ import annotations

import ast
import contextlib
import re
import threading
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Final

MAX_CHARACTERS: Final = 1 << 17
"""Of one source: a syntax tree takes up to 700 times as much memory as its text, and no other thread runs meanwhile."""

_MAX_MARKS: Final = 256
_MARKS = re.compile(r"[^\w\x00-\u02ff]{257,}")  # and what else is no letter; they are counted then

_WARNINGS_LOCK = threading.Lock()


def parse_source(source: str) -> ast.Module:
    """Parse Python source, without the warnings that old code gives for its escape sequences.

    Raises:
        ValueError: it is not Python, or too long; the text says why and on which of its lines.

    """
    if len(source) > MAX_CHARACTERS:
        raise ValueError(
            f"{len(source)} characters of Python; at most {MAX_CHARACTERS} are read as one source"
        )
    if has_endless_name(source):
        raise ValueError(f"not usable Python: a name has more than {_MAX_MARKS} combining marks in a row")
    try:
        with unwarned():
            return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"not Python: {error.msg} (its line {error.lineno})") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError("not usable Python: nested too deeply") from error


def unparsed(tree: ast.AST) -> str:
    """Write a syntax tree as source.

    Raises:
        ValueError: it is nested too deeply, or has a number of more digits than Python writes in decimal.

    """
    try:
        return ast.unparse(tree)
    except RecursionError as error:
        raise ValueError("not usable Python: nested too deeply") from error
    except ValueError as error:
        raise ValueError("not usable Python: it has a number of too many digits") from error


def has_endless_name(source: str) -> bool:
    """Whether there are hundreds of combining marks in a row. The parser brings those of a name into an order, which
    takes time that grows with their square, while no other thread runs."""
    return any(
        sum(map(bool, map(unicodedata.combining, run[0]))) > _MAX_MARKS for run in _MARKS.finditer(source)
    )


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Parse without warnings: "invalid escape sequence" is the program's affair, not our log's."""
    # What is swapped is the whole process's: two threads at once would put it back crosswise.
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
