"""Whether a program printed the right thing: the ways to compare its standard output, in linear time.

The output is compared as bytes: text that is not UTF-8 is a wrong answer and never an error.
"""

from __future__ import annotations

import math
import re
from typing import Final

from grader.judge.benchmark import lines_match, tokens_match
from grader.judge.printed import agree, tokens
from grader.suites.task import StdioComparison

_DECIMAL: Final = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MAX_NUMBER_CHARACTERS: Final = 400


def stdout_matches(comparison: StdioComparison, answer: bytes, expected: str, atol: float) -> bool:
    """Return whether the printed bytes are the expected text.

    ``exact``: the same bytes, but for the line ends (``\\r\\n`` is ``\\n``) and one newline at the end.
    ``whitespace``: the same tokens, split at any ASCII white space. ``float``: the same number of tokens,
    each the same, or both finite decimal numbers that differ by at most ``atol``, absolutely or relative to
    the expected one. ``benchmark`` and ``codecontests``: see ``grader.judge.benchmark``.
    """
    wanted = expected.encode("utf-8", "surrogatepass")
    if comparison == "exact":
        return _same_lines(answer, wanted)
    if len(answer) <= _longest_copied(wanted) and answer.strip() == wanted.strip():
        return True
    if comparison == "benchmark":
        return lines_match(answer, wanted)
    if comparison == "codecontests":
        return tokens_match(answer, wanted)
    if comparison == "whitespace":
        return agree(tokens(answer), tokens(wanted))
    return agree(tokens(answer), tokens(wanted), lambda token, other: _is_near(token, other, atol))


def _same_lines(answer: bytes, expected: bytes) -> bool:
    return len(answer) <= _longest_copied(expected) and _lines(answer) == _lines(expected)


def _longest_copied(expected: bytes) -> int:
    """Of what is longer, no copy is made. A line end takes two bytes at the most: no text with the same lines is."""
    return 2 * len(expected) + 2


def _lines(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").removesuffix(b"\n")


def _is_near(token: bytes, expected_token: bytes, atol: float) -> bool:
    answer, expected = _number(token), _number(expected_token)
    if answer is None or expected is None:
        return False
    return abs(answer - expected) <= atol * max(1.0, abs(expected))


def _number(token: bytes) -> float | None:
    # Longer tokens are no floating-point output, and are compared as text.
    if len(token) > _MAX_NUMBER_CHARACTERS or _DECIMAL.fullmatch(token) is None:
        return None
    value = float(token)
    return value if math.isfinite(value) else None
