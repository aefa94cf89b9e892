"""Whether an answer is right: the rules of docs/comparison.md, over inert decoded values.

The rules for ``evalplus``, ``set``, ``not_none``, ``polynomial_root`` and ``alternative`` are facts about
EvalPlus (its main branch, ``evalplus/eval/__init__.py``), restated; where its rule lets a wrong answer pass,
ours does not.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from grader.judge.benchmark import values_match
from grader.judge.oracles import ORACLES
from grader.sandbox.runner.decoding import DecodeError, Foreign
from grader.sandbox.runner.revive import Array, distinct, revive
from grader.suites.task import Comparison

FLOAT_ATOL: Final = 1e-6
"""The absolute tolerance that EvalPlus puts in force at the first expected value that is made of floats."""

EVALPLUS_RTOL: Final = 1e-7
"""The relative tolerance beside it, that of ``numpy.testing.assert_allclose``."""

_STICKY_KINDS: Final = frozenset(("evalplus", "set", "alternative"))
_NUMBERS: Final = frozenset((bool, int, float, complex, Fraction))
_FLOAT_DTYPES: Final = frozenset(("f8", "f4"))
_LEAST_INT: Final = -(1 << 63)
_MOST_INT: Final = (1 << 64) - 1
"""Of a sequence with an int beyond these numpy makes no array of numbers, and finds nothing close to it."""

Arguments = Callable[[], Sequence[Any]]


def matches(
    comparison: Comparison, answer: object, expected: object, args: Arguments, tolerance: float
) -> bool:
    """Return whether the answer is right; never raise for what an answer may hold.

    ``answer`` and ``expected`` come from ``decode``; ``args`` gives the test's arguments, and is called
    only by the rules that need them; ``tolerance`` is the test's own, from ``tolerances``.
    """
    try:
        return _judged_or_unlike(comparison, answer, expected, args, tolerance)
    except RecursionError:
        # Deep answers need a deep stack, and how much of it the caller has used must not decide a verdict.
        with ThreadPoolExecutor(1) as fresh_stack:
            found = fresh_stack.submit(_judged_or_unlike, comparison, answer, expected, args, tolerance)
            try:
                return found.result()
            except RecursionError:
                return False


def tolerances(comparison: Comparison, expected_values: Iterable[object]) -> Iterator[float]:
    """Yield the absolute tolerance in force for each test of one group, 0.0 where there is none.

    EvalPlus keeps one tolerance for a group: the task's own, or, if that is 0, 1e-6 from the first test whose
    expected value is made of floats to the group's last test.
    """
    atol = comparison.atol
    for expected in expected_values:
        if atol == 0 and comparison.kind in _STICKY_KINDS and is_floats(expected):
            atol = FLOAT_ATOL
        yield atol


def is_floats(expected: object) -> bool:
    """Return whether the value is a float, or a list or tuple of floats only, or an array of float32 or 64.

    An empty list is not (EvalPlus, ``is_floats``). ``numpy.float64`` is a kind of float, ``float32`` is not.
    """
    if isinstance(expected, Foreign):
        if expected.kind == "numpy.array":
            return _dtype_of(expected) in _FLOAT_DTYPES
        if expected.kind == "namedtuple":
            return is_floats(expected.value)
    if isinstance(expected, list | tuple):
        return bool(expected) and all(map(_is_float, expected))
    return _is_float(expected)


def _is_float(value: object) -> bool:
    if isinstance(value, Foreign):
        return value.kind == "numpy.scalar" and _dtype_of(value) == "f8"
    return type(value) is float


def _dtype_of(value: Foreign) -> str:
    """Return numpy's dtype without its byte order, e.g. ``f8``; "" where a forged value has none."""
    dtype = value.value[0] if value.value else None
    return dtype.lstrip("<>=|") if isinstance(dtype, str) else ""


def _judged_or_unlike(
    comparison: Comparison, answer: object, expected: object, args: Arguments, tolerance: float
) -> bool:
    """``_judged``, but what cannot be compared is not equal: ``{1: []}.items() == {(1, 2)}`` raises TypeError."""
    try:
        return _judged(comparison, answer, expected, args, tolerance)
    except (TypeError, ValueError, ArithmeticError):
        return False


def _judged(
    comparison: Comparison, answer: object, expected: object, args: Arguments, tolerance: float
) -> bool:
    kind = comparison.kind
    if kind == "not_none":
        return answer == expected if isinstance(answer, bool) else (answer is not None) == expected
    try:
        mine, theirs = revive(answer), revive(expected)
    except DecodeError:
        return False
    if kind == "exact":
        return mine == theirs
    if kind == "close":
        return _is_close_deep(mine, theirs, tolerance, comparison.rtol)
    if kind == "benchmark":
        return values_match(mine, theirs)
    if kind == "polynomial_root":
        return _is_root(_real_part(answer, mine), args, comparison.atol)
    if kind == "set":
        same = _same_elements(mine, theirs)
        if same is None:
            return False
    else:
        same = mine == theirs or _equal_as_float64(answer, mine, theirs)
    if same:
        return True
    if tolerance != 0 and _same_type(answer, expected) and _all_close(mine, theirs, tolerance):
        return True
    return kind == "alternative" and _oracle_accepts(comparison, mine, theirs, args, tolerance)


def _same_elements(answer: Any, expected: Any) -> bool | None:
    """Compare as sets; None where one of them cannot be a set, which EvalPlus never forgives."""
    if isinstance(answer, Array):
        if not answer.shape:
            return None  # numpy iterates over no array of zero dimensions, whatever its one item is
        answer = answer.items
    try:
        return distinct(answer) == distinct(expected)
    except (TypeError, DecodeError):
        return None


def _equal_as_float64(answer: object, mine: Any, expected: Any) -> bool:
    """Return whether a numpy float64 is what an int of more than 53 bits is rounded to: numpy finds them equal."""
    if not isinstance(answer, Foreign) or answer.kind != "numpy.scalar" or _dtype_of(answer) != "f8":
        return False
    try:
        return type(expected) is int and bool(mine == float(expected))
    except OverflowError:
        return False


def _oracle_accepts(
    comparison: Comparison, answer: object, expected: object, args: Arguments, tolerance: float
) -> bool:
    oracle = ORACLES.get(comparison.oracle or "")
    if oracle is None:
        raise LookupError(f"no oracle is called {comparison.oracle!r}; there are {sorted(ORACLES)}")
    return oracle(answer, expected, args(), tolerance)


def _same_type(answer: object, expected: object) -> bool:
    """Return whether both were of one type: a numpy scalar is no float, a namedtuple no tuple."""
    if isinstance(answer, Foreign) and isinstance(expected, Foreign):
        if answer.kind != expected.kind:
            return False
        return answer.kind != "numpy.scalar" or _dtype_of(answer) == _dtype_of(expected)
    return type(answer) is type(expected)


def _all_close(answer: Any, expected: Any, atol: float) -> bool:
    """``numpy.allclose`` over numbers, or nested lists and tuples of numbers that make one regular array."""
    level, nested = [(answer, expected)], False
    while level:
        level = [(_array_items(mine), _array_items(theirs)) for mine, theirs in level]
        if all(type(mine) in _NUMBERS and type(theirs) in _NUMBERS for mine, theirs in level):
            if nested and not all(_fits_array(theirs) for _, theirs in level):
                return False
            return all(_is_near(mine, theirs, atol, EVALPLUS_RTOL) for mine, theirs in level)
        if not all(_is_sequence(mine) and _is_sequence(theirs) for mine, theirs in level):
            return False
        if len({len(side) for pair in level for side in pair}) != 1:
            return False
        level, nested = [pair for mine, theirs in level for pair in zip(mine, theirs, strict=True)], True
    return True


def _fits_array(number: Any) -> bool:
    return type(number) is not int or _LEAST_INT <= number <= _MOST_INT


def _array_items(value: Any) -> Any:
    return value.items if isinstance(value, Array) else value


def _is_sequence(value: object) -> bool:
    return type(value) is list or type(value) is tuple


def _is_near(answer: Any, expected: Any, atol: float, rtol: float) -> bool:
    """``numpy.isclose``: NaN is near nothing, an infinity only to itself, all else within the tolerances."""
    if answer == expected:
        return True
    try:
        size = abs(expected)
        return math.isfinite(size) and abs(answer - expected) <= atol + rtol * size
    except OverflowError:
        return False


def _is_close_deep(answer: Any, expected: Any, atol: float, rtol: float) -> bool:
    """Numbers within the tolerances wherever they stand, everything else equal in Python's sense."""
    pending = [(answer, expected)]
    while pending:
        mine, theirs = pending.pop()
        if isinstance(mine, Array) and isinstance(theirs, Array) and mine.shape == theirs.shape:
            mine, theirs = mine.items, theirs.items
        if type(mine) in _NUMBERS and type(theirs) in _NUMBERS:
            if not _is_near(mine, theirs, atol, rtol):
                return False
        elif _is_sequence(mine) and type(mine) is type(theirs):
            if len(mine) != len(theirs):
                return False
            pending.extend(zip(mine, theirs, strict=True))
        elif isinstance(mine, dict) and isinstance(theirs, dict):
            if not _same_keys(mine, theirs):
                return False
            pending.extend((value, theirs[key]) for key, value in mine.items())
        elif mine != theirs:
            return False
    return True


def _same_keys(answer: dict[Any, Any], expected: dict[Any, Any]) -> bool:
    if type(answer) is OrderedDict and type(expected) is OrderedDict:
        return list(answer) == list(expected)
    return answer.keys() == expected.keys()


def _real_part(answer: object, mine: Any) -> Any:
    """What ``math.pow`` takes one of ``numpy.roots`` for, which is complex; Python's own complex numbers it refuses."""
    is_numpys = isinstance(answer, Foreign) and answer.kind == "numpy.scalar"
    return mine.real if is_numpys and isinstance(mine, complex) and mine.imag == 0 else mine


def _is_root(answer: Any, args: Arguments, atol: float) -> bool:
    """Return whether the answer is a root of the polynomial with the first argument's coefficients.

    The lowest power comes first: ``sum(c * x**i)``, in floating point as in EvalPlus's ``_poly``.
    """
    if isinstance(answer, Array) and not answer.shape:
        answer = answer.items
    if type(answer) not in (int, float, Fraction, Decimal):
        return False
    try:
        total = sum(factor * math.pow(answer, power) for power, factor in enumerate(args()[0]))
        return bool(abs(total) <= atol)
    except (ArithmeticError, ValueError, TypeError, LookupError):
        return False
