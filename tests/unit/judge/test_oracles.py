import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.judge.oracles import are_equivalent, digit_distance_nums, sum_div, surface_area


@pytest.mark.parametrize(
    ("args", "answer", "right"),
    [
        ((12345, 9), 14, True),  # 12345 and 00009: 1 + 2 + 3 + 4 + 4
        ((9, 12345), 14, True),
        ((12345, 9), 8, False),  # the reference's answer, which is not this oracle's to give
        ((0, 0), 0, True),
        ((-1, 5), 6, False),
        ((True, 5), 4, False),
        ((10**5000, 1), 2, False),
        ((1,), 1, False),
        ((12345, 9), "14", False),
    ],
)
def test_digit_distance_with_padding(args, answer, right):
    assert digit_distance_nums(answer, None, args, 0.0) is right


@pytest.mark.parametrize(
    ("args", "answer", "tolerance", "right"),
    [
        ((6, 4), 96, 0.0, True),  # the faces are 5 high: 36 + 2 * 6 * 5
        ((6, 4), 96.0, 0.0, True),
        ((6, 4), 96.0000001, 0.0, False),
        ((6, 4), 96.0000001, 1e-6, True),
        ((3, 4), 35, 0.0, True),
        ((3, 4), 34, 0.0, False),
        ((3, 4), 34.6, 0.0, False),
        ((6, 4), float("nan"), 1.0, False),
        ((6, 4), None, 0.0, False),
        ((6, 4), "96", 0.0, False),
        ((10**400, 4), 96, 0.0, False),
        (("a", 4), 96, 0.0, False),
        ((6,), 96, 0.0, False),
    ],
)
def test_surface_area_with_the_pyramids_height(args, answer, tolerance, right):
    assert surface_area(answer, None, args, tolerance) is right


@pytest.mark.parametrize(
    ("args", "same"),
    [
        ((36, 57), False),
        ((2, 4), False),
        ((23, 47), True),
        ((1, 7), False),
        ((4, 9), False),
        ((6, 25), True),
        ((220, 220), True),
        ((10**12, 1), False),
    ],
)
def test_equal_sums_of_proper_divisors(args, same):
    assert are_equivalent(same, None, args, 0.0)
    assert not are_equivalent(not same, None, args, 0.0)
    assert not are_equivalent(int(same), None, args, 0.0)
    assert not are_equivalent(None, None, args, 0.0)


@pytest.mark.parametrize(
    "args", [(0, 1), (-4, 4), (1.0, 1.0), ("a", 1), (10**18, 10**18), (1 << 9999, 1), (1,), (True, 1)]
)
def test_where_divisor_sums_cannot_be_had_only_the_reference_decides(args):
    assert not are_equivalent(True, None, args, 0.0)
    assert not are_equivalent(False, None, args, 0.0)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_divisor_sums_against_plain_counting(left, right):
    def plain(number):
        return sum(factor for factor in range(1, number) if number % factor == 0)

    assert are_equivalent(plain(left) == plain(right), None, (left, right), 0.0)


def test_sum_of_divisors_is_0_only_where_there_are_none():
    assert all(sum_div(0, 1, [number], 0.0) for number in (1, 0, -8))
    assert not any(sum_div(0, 1, [number], 0.0) for number in (2, 7, 8, 10**18, 1.0, "1", True))
    assert not any(sum_div(answer, 1, [1], 0.0) for answer in (1, "0", None, []))
