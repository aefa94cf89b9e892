"""How the graders of APPS, TACO, LiveCodeBench and CodeContests compare, restated without what lets wrong answers pass.

Sources: ``eval/testing_util.py`` of hendrycks/apps, ``lcb_runner/evaluation/testing_util.py`` of LiveCodeBench, and
``execution/tester_sandboxer.cc`` of google-deepmind/code_contests. ``docs/inline-tests.md`` lists the differences.
Every comparison takes linear time.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from grader.judge.printed import agree, filled_lines, tokens
from grader.sandbox.runner.revive import Array

APPS_RTOL: Final = 1e-5
APPS_ATOL: Final = 1e-8
"""``numpy.allclose``'s own tolerances, with which APPS compares lines of numbers."""
CODECONTESTS_ATOL: Final = 1e-5
VALUE_TOLERANCE: Final = 1e-6
"""For floats that functions return, absolutely or relative to the expected one; those graders have none."""

_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
_MAX_NUMBER_CHARACTERS = 400
_MAX_KEY_BITS: Final = 13_000


def lines_match(answer: bytes, expected: bytes) -> bool:
    """Compare printed text as APPS, TACO and LiveCodeBench do: line by line.

    White space around lines, and blank lines, do not count. Two lines match if they have the same tokens, where numbers
    are equal by value (``5`` and ``5.0``), or, where the expected one is written with a point or an exponent, within
    APPS's tolerances.
    """
    return agree(filled_lines(answer), filled_lines(expected), _line_is_near)


def tokens_match(answer: bytes, expected: bytes) -> bool:
    """Compare printed text as CodeContests does: token by token, lines and the case of ASCII letters aside.

    Numbers match within 1e-5.
    """
    return agree(map(bytes.lower, tokens(answer)), map(bytes.lower, tokens(expected)), _within)


def values_match(answer: Any, expected: Any) -> bool:
    """Compare what a function returned with an expected value that came from JSON.

    A tuple is a list; a list of one element stands for the element (APPS wraps expected values so); keys of dicts that
    JSON had to write as strings match the numbers that they say; where a float is expected, a float or an int matches
    within ``VALUE_TOLERANCE``.
    """
    if _is_same(answer, expected):
        return True
    return isinstance(expected, list) and len(expected) == 1 and _is_same(answer, expected[0])


def _line_is_near(line: bytes, expected: bytes) -> bool:
    return agree(tokens(line), tokens(expected), _is_near)


def _is_near(token: bytes, expected: bytes) -> bool:
    answer, wanted = _decimal(token), _decimal(expected)
    if answer is None or wanted is None:
        return False
    if answer == wanted:
        return True
    if not re.search(rb"[.eE]", expected):
        return False  # to a float, 50000000000000000 and 50000000000000001 are the same
    near, size = float(answer), float(wanted)
    return math.isfinite(size) and abs(near - size) <= APPS_ATOL + APPS_RTOL * abs(size)


def _within(token: bytes, expected: bytes) -> bool:
    answer, wanted = _decimal(token), _decimal(expected)
    if answer is None or wanted is None:
        return False
    if answer == wanted:
        return True
    if not re.search(rb"[.e]", token + expected):
        return False  # its grader takes whole numbers for doubles as well, by which large ones that differ are the same
    return abs(float(answer) - float(wanted)) < CODECONTESTS_ATOL


def _decimal(token: bytes) -> Decimal | None:
    """The number that a token says; None where it says none, or is longer than any number that is printed."""
    if len(token) > _MAX_NUMBER_CHARACTERS or _NUMBER.fullmatch(token) is None:
        return None
    try:
        return Decimal(token.decode("ascii"))
    except InvalidOperation:
        return None


def _is_same(answer: Any, expected: Any) -> bool:
    pending = [(answer, expected)]
    while pending:
        mine, theirs = (side.items if isinstance(side, Array) else side for side in pending.pop())
        if isinstance(mine, list | tuple) and isinstance(theirs, list | tuple):
            if len(mine) != len(theirs):
                return False
            pending.extend(zip(mine, theirs, strict=True))
        elif isinstance(mine, dict) and isinstance(theirs, dict):
            by_text = {_key(key): value for key, value in mine.items()}
            if len(by_text) != len(mine) or by_text.keys() != {_key(key) for key in theirs}:
                return False
            pending.extend((by_text[_key(key)], value) for key, value in theirs.items())
        elif isinstance(theirs, float) and isinstance(mine, int | float) and not isinstance(mine, bool):
            if not _floats_near(mine, theirs):
                return False
        elif mine != theirs:
            return False
    return True


def _key(key: object) -> object:
    """The key as JSON writes it; an int that Python does not write in digits (CVE-2020-10735) is left as it is."""
    if type(key) is int and key.bit_length() > _MAX_KEY_BITS:
        return key
    return str(key) if type(key) in (int, float) else key


def _floats_near(answer: float, expected: float) -> bool:
    if answer == expected:
        return True
    try:
        return math.isfinite(expected) and abs(answer - expected) <= VALUE_TOLERANCE * max(1.0, abs(expected))
    except OverflowError:
        return False
