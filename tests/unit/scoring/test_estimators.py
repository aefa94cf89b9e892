import math
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.scoring import pass_at_k, pass_hat_k


@st.composite
def draws(draw, largest=300):
    n = draw(st.integers(1, largest))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


def product(n, c, k):
    """1 - pass@k as Chen et al. write it in figure 3: a product of n's below the failing ones."""
    missed = Fraction(1)
    for i in range(n - c + 1, n + 1):
        missed *= 1 - Fraction(k, i)
    return missed if n - c >= k else Fraction(0)


@given(draws())
def test_pass_at_k_is_the_float_nearest_to_the_exact_value(ncks):
    n, c, k = ncks
    assert pass_at_k(n, c, k) == float(1 - product(n, c, k))


@given(draws())
def test_pass_hat_k_is_the_chance_of_drawing_only_passed_ones(ncks):
    n, c, k = ncks
    exact = Fraction(1)
    for i in range(k):
        exact *= Fraction(max(c - i, 0), n - i)
    assert pass_hat_k(n, c, k) == float(exact)


@given(draws(largest=7))
def test_both_count_subsets(ncks):
    n, c, k = ncks
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    assert pass_hat_k(n, c, k) == pytest.approx(sum(map(all, subsets)) / len(subsets))


@given(draws())
def test_bounds_and_order(ncks):
    n, c, k = ncks
    assert 0 <= pass_hat_k(n, c, k) <= c / n <= pass_at_k(n, c, k) <= 1


def test_values_that_cancel_are_still_exact():
    assert pass_at_k(10**6, 1, 1) == 1e-6
    assert pass_at_k(1, 1, 1) == 1.0
    assert pass_at_k(200, 0, 100) == 0.0


@pytest.mark.parametrize("function", [pass_at_k, pass_hat_k])
@pytest.mark.parametrize(
    ("n", "c", "k"),
    [
        (0, 0, 1),
        (-1, 0, 1),
        (5, 6, 1),
        (5, -1, 1),
        (5, 2, 0),
        (5, 2, -3),
        (5, 2, 6),
        (5.0, 2, 1),
        (5, math.nan, 1),
    ],
)
def test_senseless_arguments_are_refused(function, n, c, k):
    with pytest.raises(ValueError, match=r"n|c|k"):
        function(n, c, k)
