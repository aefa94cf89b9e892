"""Tasks whose wording has more than one right answer: functions that know the others.

Each gets the answer, the reference's answer, the test's arguments and the tolerance in force, and says
whether the answer is right by the other reading. For two of these tasks EvalPlus accepts more than any
reading allows (its ``_special_oracle.py`` and ``eval/__init__.py``): docs/comparison.md has the differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, Final

Oracle = Callable[[Any, Any, Sequence[Any], float], bool]

_MAX_TRIAL_DIVISIONS: Final = 1_000_000
_MAX_DIGITS_BITS: Final = 13_000
_NUMBERS: Final = frozenset((bool, int, float))


def digit_distance_nums(answer: Any, _expected: Any, args: Sequence[Any], _tolerance: float) -> bool:
    """Mbpp/558: the numbers are padded with zeros to one length before their digits are subtracted.

    The reference drops the digits of the longer number that have no partner.
    """
    if len(args) != 2 or not all(type(number) is int and number >= 0 for number in args):
        return False
    if any(number.bit_length() > _MAX_DIGITS_BITS for number in args):
        return False  # str() refuses ints of more than 4300 digits
    pairs = zip_longest(*(reversed(str(number)) for number in args), fillvalue="0")
    return bool(answer == sum(abs(int(a) - int(b)) for a, b in pairs))


def surface_area(answer: Any, _expected: Any, args: Sequence[Any], tolerance: float) -> bool:
    """Mbpp/581: the height is that of the pyramid, not of its faces; the area is rounded."""
    if type(answer) not in _NUMBERS or len(args) != 2:
        return False
    base, height = args
    try:
        slant_height = math.sqrt((base / 2) ** 2 + height**2)
        area = round(base**2 + 2 * base * slant_height)
        return bool(abs(answer - area) <= tolerance)
    except (ArithmeticError, ValueError, TypeError):
        return False


def are_equivalent(answer: Any, _expected: Any, args: Sequence[Any], _tolerance: float) -> bool:
    """Mbpp/164: the divisors of each number without the number itself have the same sum.

    The task's examples rule out counting the number itself: 23 and 47 are equivalent. The reference counts
    the root of a square twice and gives 1 for 1, so a program that adds correctly differs from it.
    EvalPlus accepts every answer.
    """
    if type(answer) is not bool or len(args) != 2:
        return False
    sums = [_proper_divisor_sum(number) for number in args]
    return None not in sums and answer == (sums[0] == sums[1])


def sum_div(answer: Any, _expected: Any, args: Sequence[Any], _tolerance: float) -> bool:
    """Mbpp/295: 0 is right where a number has no divisors but itself to add, which is for 1 and below.

    The reference gives 1 there. EvalPlus accepts 0 for every number.
    """
    return type(answer) in _NUMBERS and answer == 0 and len(args) == 1 and _is_int_up_to_1(args[0])


ORACLES: Final[dict[str, Oracle]] = {
    oracle.__name__: oracle for oracle in (digit_distance_nums, surface_area, are_equivalent, sum_div)
}
"""The oracles by the name that ``Comparison.oracle`` gives."""


def _is_int_up_to_1(number: object) -> bool:
    return type(number) is int and number <= 1


def _proper_divisor_sum(number: object) -> int | None:
    """Return the sum of a positive number's divisors without itself; None where it cannot be had quickly."""
    if type(number) is not int or not 1 <= number <= _MAX_TRIAL_DIVISIONS**2:
        return None
    total, rest, factor = 1, number, 2
    while factor * factor <= rest:
        powers = 1
        while rest % factor == 0:
            rest //= factor
            powers = powers * factor + 1
        total *= powers
        factor += 1
    if rest > 1:
        total *= rest + 1
    return total - number
