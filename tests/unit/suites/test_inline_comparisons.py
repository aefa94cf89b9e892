"""The comparisons of other benchmarks, held against restatements of what their graders accept."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.extraction.ambient import with_ambient_imports
from grader.judge.benchmark import values_match
from grader.judge.compare import matches
from grader.judge.stdio import stdout_matches
from grader.suites.task import Comparison


def printed(comparison, answer, expected):
    return stdout_matches(comparison, answer.encode("utf-8", "surrogatepass"), expected, 0.0)


@pytest.mark.parametrize(
    ("answer", "expected", "lines", "tokens"),
    [
        ("1 2\n3\n", "1 2\n3\n", True, True),
        ("1 2 \n 3", "1 2\n3\n", True, True),
        ("1   2\n3\n", "1 2\n3\n", True, True),
        ("\n1 2\n\n3\n\n\n", "1 2\n3", True, True),
        ("1 2\r\n3\r\n", "1 2\n3\n", True, True),
        ("1\n2\n3\n", "1 2\n3\n", False, True),
        ("YES\n", "Yes\n", False, True),
        ("5.0\n", "5\n", True, True),
        ("5\n", "5.000\n", True, True),
        ("0.3333333\n", "0.333333\n", True, True),
        ("0.33334\n", "0.33333\n", False, False),
        ("0.333334\n", "0.33333\n", False, True),
        ("1e3\n", "1000\n", True, True),
        ("50000000000000000\n", "50000000000000001\n", False, False),
        ("3 2 1\n", "1 2 3\n", False, False),
        ("1\n", "2\n", False, False),
        ("", "0\n", False, False),
        ("", "\n", True, True),
        ("nan\n", "1.0\n", False, False),
        ("inf\n", "inf\n", True, True),
        ("1e999999999\n", "1.0\n", False, False),
        ("1e999\n", "1.0\n", False, False),
    ],
)  # fmt: skip
def test_what_programs_print(answer, expected, lines, tokens):
    assert printed("benchmark", answer, expected) is lines
    assert printed("codecontests", answer, expected) is tokens


def livecodebench_accepts(answer, expected):
    """Its rule for standard output, in our words."""
    mine, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (answer, expected))
    if len(mine) != len(theirs):
        return False
    for line, wanted in zip(mine, theirs, strict=True):
        if line == wanted:
            continue
        try:
            numbers, others = ([Decimal(token) for token in text.split()] for text in (line, wanted))
            if numbers != others:
                return False
        except (InvalidOperation, ValueError):
            return False
    return True


NUMBERS = st.sampled_from(["1", "1.0", "01", "2", "-0", "0", "0.5", ".5", "1e2", "100", "x"])
TEXT = st.lists(st.lists(NUMBERS, max_size=3).map(" ".join), max_size=3).map("\n".join)


@given(TEXT, TEXT, st.sampled_from(["", "\n", " \n\n"]))
def test_what_livecodebench_accepts_is_accepted(answer, expected, ending):
    if livecodebench_accepts(answer, expected):
        assert printed("benchmark", answer + ending, expected)


@given(st.text(), st.text())
def test_no_output_makes_a_comparison_raise(answer, expected):
    for comparison in ("benchmark", "codecontests"):
        assert printed(comparison, answer, expected) in (True, False)
        assert printed(comparison, answer, answer)


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ([0, 1], [0, 1], True),
        ((0, 1), [0, 1], True),
        ([(0, 1)], [[0, 1]], True),
        (5, [5], True),
        ((1, 2), [[1, 2]], True),
        (1, [1, 2], False),
        ([5], 5, False),
        ({1: "a"}, {"1": "a"}, True),
        ({1: [(2,)]}, {"1": [[2]]}, True),
        ({1: "a", "1": "b"}, {"1": "a"}, False),
        (0.1 + 0.2, 0.3, True),
        (3, 3.0, True),
        (3.0000001, 3, False),
        (True, 1.5, False),
        (True, 1, True),
        ("1", 1, False),
        (None, None, True),
        (None, [None], True),
        ([], [], True),
        ([1, 2], [2, 1], False),
        (float("inf"), 1.0, False),
        (10**400, 1.5, False),
        ({1, 2}, [1, 2], False),
    ],
)  # fmt: skip
def test_what_functions_return(answer, expected, right):
    assert values_match(answer, expected) is right
    assert matches(Comparison("benchmark"), answer, expected, list, 0.0) is right


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["1", "k"]), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(VALUES, VALUES)
def test_what_livecodebench_accepts_of_functions_is_accepted(answer, expected):
    mine = tuple(answer) if isinstance(answer, list) else answer
    for one in (answer, mine):
        if (list(one) if isinstance(one, tuple) else one) == expected:
            assert values_match(one, expected)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("def f(x: List[int]): return deque(x)", "from typing import List; from collections import deque\n"),
        ("print(math.inf, sqrt(2))", "import math; from math import sqrt\n"),
        ("print(stdin.readline())", "from sys import stdin\n"),
        ("print(np.zeros(3))", "import numpy as np\n"),
        ("from typing import List\nx: List[int] = []", ""),
        ("def gcd(a, b): return gcd(b, a)", ""),
        ("print(pow(2, 3), sum([1]))", ""),
        ("x = unknown", ""),
        ("no python", ""),
    ],
)  # fmt: skip
def test_the_imports_that_benchmarks_put_before_programs(source, wanted):
    assert with_ambient_imports(source) == wanted + source


def test_lines_keep_their_numbers_where_the_first_is_free():
    assert with_ambient_imports("# solution\nx: List = []") == "from typing import List\nx: List = []"
    future = "from __future__ import annotations\nx: List = []"
    assert with_ambient_imports(future) == future


@given(st.text())
def test_no_program_makes_the_imports_raise(source):
    assert with_ambient_imports(source).endswith(source) or "\n" in source
