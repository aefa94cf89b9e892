"""What the driver of assertion tests makes of answers: nothing may please a test that would not without a sandbox."""

import operator

import pytest

from grader.sandbox.runner.decoding import Foreign
from grader.sandbox.runner.revive import Array, revive


def array(items, *shape, dtype="<i8"):
    return revive(Foreign("numpy.array", (dtype, shape, items)), for_tests=True)


@pytest.mark.parametrize(
    ("value", "truth"),
    [
        (array([False], 1), False),
        (array([True], 1), True),
        (array(0, dtype="|u1"), False),
        (array(7), True),
        (array([[0.0]], 1, 1), False),
        (array([], 0), ValueError),
        (array([1, 1], 2), ValueError),
        (array([[], []], 2, 0), ValueError),
        (array([""], 1, dtype="<U1"), ValueError),
        (array([(0,)], 1, dtype="|V4"), ValueError),
        (array([1, 1], 1), ValueError),  # forged
        (array([[0]], 1), ValueError),  # likewise
        (array([0], "x"), ValueError),  # likewise
    ],
)
def test_an_array_is_as_true_as_numpy_says(value, truth):
    if truth is ValueError:
        with pytest.raises(ValueError, match=r"array"):
            bool(value)
    else:
        assert bool(value) is truth


ONE, TWO = array([3], 1), array([3, 3], 2)


@pytest.mark.parametrize("other", [3, [3], (3.0,), [[3]], ONE, array(3), array([[3]], 1, 1), range(3, 4)])
def test_arrays_of_one_item_compare_by_it(other):
    for left, right in ((ONE, other), (other, ONE)):
        assert operator.eq(left, right)
        assert not operator.ne(left, right)
    assert array([4], 1) != other


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (TWO, [3, 3]),
        (TWO, [4, 4]),
        (TWO, TWO),
        (TWO, None),
        (TWO, ONE),
        (ONE, TWO),
        (ONE, [3, 3]),
        (ONE, []),
        (ONE, range(9)),
        (array([], 0), 3),
        (array([], 0), array([], 0)),
        ([TWO], [[3, 3]]),
    ],
)
@pytest.mark.parametrize("operation", [operator.eq, operator.ne])
def test_other_comparisons_are_neither_true_nor_false(left, right, operation):
    with pytest.raises(ValueError, match="ambiguous"):
        operation(left, right)
    with pytest.raises(ValueError, match="ambiguous"):
        operation(right, left)


def test_of_an_array_there_is_no_more_than_comparison():
    for what in (len, iter, hash, sorted, lambda value: 3 in value, lambda value: value > 2):
        with pytest.raises(TypeError):
            what(ONE)


def test_an_iterator_that_gave_nothing_is_neither_true_nor_false():
    """The views of an empty dict's values are encoded like iterators."""
    with pytest.raises(ValueError, match="not known"):
        bool(revive(Foreign("iterator", []), for_tests=True))
    assert revive(Foreign("iterator", [0]), for_tests=True)


def test_the_judge_is_never_told_that_it_is_ambiguous():
    value = revive(Foreign("numpy.array", ("<i8", (2,), [3, 3])))
    assert type(value) is Array
    assert value != [3, 3]
    assert value == revive(Foreign("numpy.array", ("<i8", (2,), [3, 3])))
