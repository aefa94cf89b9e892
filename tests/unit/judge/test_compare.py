import datetime
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.judge.compare import is_floats, matches, tolerances
from grader.sandbox.runner.decoding import Foreign, decode
from grader.sandbox.runner.encoding import encode
from grader.suites.task import Comparison

Point = namedtuple("Point", "x y")
NAN, INF = float("nan"), float("inf")


def no_arguments():
    raise AssertionError("this rule does not need the arguments")


def judge(kind, answer, expected, *, tolerance=0.0, args=None, **rule):
    comparison = Comparison(kind, **rule)
    get = no_arguments if args is None else lambda: args
    return matches(comparison, decode(encode(answer)), decode(encode(expected)), get, tolerance)


def scalar(dtype, value):
    return Foreign("numpy.scalar", (dtype, value))


def array(dtype, shape, items):
    return Foreign("numpy.array", (dtype, shape, items))


def judge_foreign(answer, expected, tolerance=0.0, kind="evalplus"):
    return matches(Comparison(kind), answer, expected, no_arguments, tolerance)


@pytest.mark.parametrize("kind", ["exact", "evalplus", "close"])
@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        (1, 1.0, True),
        (True, 1, True),
        (0, False, True),
        (-0.0, 0.0, True),
        ([1, 2], (1, 2), False),
        ((1, 2), (1, 2), True),
        ("1", 1, False),
        (b"a", "a", False),
        (None, None, True),
        (None, 0, False),
        ([], (), False),
        (INF, INF, True),
        (NAN, NAN, False),
        ([NAN], [NAN], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({1, 2}, frozenset({2, 1}), True),
        (Counter("aab"), {"a": 2, "b": 1}, True),
        (defaultdict(int, a=1), {"a": 1}, True),
        (OrderedDict(a=1, b=2), {"b": 2, "a": 1}, True),
        (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), False),
        (Point(1, 2), (1, 2), True),
        ([Point(1, 2)], [(1, 2)], True),
        (deque([1]), deque([1]), True),
        (deque([1]), [1], False),
        ({1: 2}.keys(), {1}, True),
        ({1: 2}.keys(), [1], False),
        ({1: 2}.items(), {(1, 2)}, True),
        ({1: 2}.values(), [2], False),
        (map(abs, [-1]), [1], False),
        (map(abs, [-1]), iter([1.0]), True),
        (range(0), range(5, 5), True),
        (range(3), [0, 1, 2], False),
        (Fraction(1, 2), 0.5, True),
        (Decimal("0.5"), Fraction(1, 2), True),
        (Decimal("1E+4000"), 10**4000, True),
        (bytearray(b"a"), b"a", True),
        (datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1), False),
        (datetime.timedelta(1), datetime.timedelta(hours=24), True),
        (object(), object(), False),
        (10**4200, 10**4200 + 1, False),
        ({Fraction(1, 2): [Point(1, 2)]}, {0.5: [(1, 2)]}, True),
    ],
)
def test_equality_is_pythons(kind, answer, expected, right):
    assert judge(kind, answer, expected) is right


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        (scalar("<f8", 1.5), 1.5, True),
        ([scalar("<i8", 1)], [1], True),
        ({scalar("<i8", 1)}, {1}, True),
        ({scalar("<i8", 1): "a"}, {1: "a"}, True),
        (scalar("|b1", True), True, True),
        (scalar("<f8", [1]), [1], False),
        (array("<i8", (2,), [1, 2]), [1, 2], False),
        (array("<i8", (1,), [1]), [1], True),
        (array("<i8", (), 1), 1, True),
        ([array("<i8", (1, 1), [[1]])], [[1]], True),
        (array("<i8", (2,), [1, 2]), array("<f8", (2,), [1.0, 2.0]), True),
        (array("<i8", (2,), [1, 2]), array("<i8", (2, 1), [[1], [2]]), False),
        (array("<f8", (0,), []), [], False),
    ],
)
def test_numpy_values_compare_as_numpys_do(answer, expected, right):
    assert judge_foreign(answer, expected) is right


@pytest.mark.parametrize(
    "forged",
    [
        Foreign("numpy.scalar", ()),
        Foreign("numpy.array", (1,)),
        Foreign("numpy.array", ("<f8", 5, [1])),
        Foreign("Fraction", (1, 0)),
        Foreign("Fraction", (1.5, 2)),
        Foreign("Fraction", (2**9999, 1)),
        Foreign("Decimal", "sNaN"),
        Foreign("Decimal", "pear"),
        Foreign("Decimal", "1E+999999999"),
        Foreign("range", (1, 2, 0)),
        Foreign("range", ("a",)),
        Foreign("date", "yesterday"),
        Foreign("datetime", "\0"),
        Foreign("time", "99:99"),
        Foreign("timedelta", (10**30, 0, 0)),
        Foreign("timedelta", (NAN, 0, 0)),
        Foreign("dict_items", [1, 2]),
        Foreign("dict_keys", [[]]),
        Foreign("opaque", "x"),
    ],
    ids=lambda foreign: f"{foreign.kind}-{foreign.value!r}"[:30],
)
@pytest.mark.parametrize("kind", ["exact", "evalplus", "close", "set"])
def test_a_forged_payload_equals_nothing_and_raises_nothing(forged, kind):
    for expected in (0, [0], 1.5, "x", {1}, {1: 2}, Foreign("opaque", "x")):
        assert judge_foreign(forged, expected, 1e-6, kind) is False
        assert judge_foreign([forged], [expected], 1e-6, kind) is False


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        (1.0 + 9e-7, 1.0, True),
        (1.0 + 3e-6, 1.0, False),
        (1e9 + 99, 1e9, True),
        (1e9 + 101, 1e9, False),
        (1, 1.0000001, False),
        ([1.0], (1.0000001,), False),
        ([1.0, 2], [1.0000001, 2], True),
        ([1.0], [1.0000001, 2.0], False),
        ([[1.0], [2.0]], [[1.0000001], [2.0]], True),
        ([[1.0, 1.0]], [1.0000001], False),
        ([[1.0], [1.0, 2.0]], [[1.0000001], [1.0, 2.0]], False),
        ([(1.0,), [2.0]], [[1.0000001], [2.0]], True),
        ([[]], [1.0], False),
        ([1.0, INF, -INF], [1.0000001, INF, -INF], True),
        ([1.0, INF], [1.0000001, -INF], False),
        (INF, 1.0, False),
        (1.0, INF, False),
        ([1.0, NAN], [1.0000001, NAN], False),
        ([1.0, "a"], [1.0000001, "a"], False),
        ([1.0, None], [1.0000001, None], False),
        ({"a": 1.0}, {"a": 1.0000001}, False),
        ({1.0}, {1.0000001}, False),
        ("1.0", "1.0000001", False),
        (1 + 1j, 1 + 1.0000001j, True),
        (10**400, 1.5, False),
        ([10**400], [1.5], False),
        ([Fraction(1, 3)], [0.3333333], True),
        (Point(1.0, 2.0), (1.0000001, 2.0), False),
        (Point(1.0, 2.0), Point(1.0000001, 2.0), True),
        (10**18, 10**18 + 1, True),
        ([], [], True),
    ],
)
def test_a_tolerance_is_numpys_allclose_over_the_same_type(answer, expected, right):
    assert judge("evalplus", answer, expected, tolerance=1e-6) is right
    if answer != expected:
        assert judge("evalplus", answer, expected) is False


def test_a_numpy_scalar_is_not_of_pythons_type_under_a_tolerance():
    assert not judge_foreign(scalar("<f8", 1.0), 1.0000001, 1e-6)
    assert not judge_foreign(scalar("<f4", 1.0), scalar("<f8", 1.0000001), 1e-6)
    assert judge_foreign(scalar("<f8", 1.0), scalar("<f8", 1.0000001), 1e-6)
    assert judge_foreign([scalar("<f8", 1.0)], [1.0000001], 1e-6)
    assert judge_foreign(array("<f8", (1,), [1.0]), array("<f8", (1,), [1.0000001]), 1e-6)


@pytest.mark.parametrize(
    ("value", "floats"),
    [
        (1.0, True),
        (1, False),
        (True, False),
        ([1.0], True),
        ((1.0, NAN), True),
        ([1.0, 1], False),
        ([], False),
        ({1.0}, False),
        ("1.0", False),
        (scalar("<f8", 1.0), True),
        (scalar("<f4", 1.0), False),
        ([1.0, scalar("<f8", 1.0)], True),
        (array("<f4", (0,), []), True),
        (array("<i8", (1,), [1]), False),
        (Foreign("namedtuple", (1.0,)), True),
        (Foreign("numpy.array", ()), False),
        (Foreign("deque", [1.0]), False),
    ],
)
def test_what_counts_as_floats(value, floats):
    assert is_floats(value) is floats


def test_a_tolerance_once_in_force_stays_for_the_group():
    values = [1, [], 2.0, "x", 3]
    assert list(tolerances(Comparison("evalplus"), values)) == [0, 0, 1e-6, 1e-6, 1e-6]
    assert list(tolerances(Comparison("set"), values)) == [0, 0, 1e-6, 1e-6, 1e-6]
    assert list(tolerances(Comparison("evalplus", atol=1e-4), values)) == [1e-4] * 5
    assert list(tolerances(Comparison("exact"), values)) == [0] * 5
    assert list(tolerances(Comparison("close", atol=0.5), values)) == [0.5] * 5


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ([1, 1, 2], (2, 1), True),
        ("ab", ["b", "a"], True),
        ({1: "x"}, (1,), True),
        (iter([1, 2]), (2, 1.0), True),
        (deque([1]), (1,), True),
        ({1: 2}.keys(), (1,), True),
        (range(3), (2, 1, 0), True),
        (Foreign("numpy.array", ("<i8", (2,), [1, 2])), (2, 1), True),
        (Foreign("numpy.array", ("|O", (), {1, 2})), (2, 1), False),
        (None, (), False),
        (0, (), False),
        ([[1]], ([1],), False),
        ([1], (1, 2), False),
        (range(10**12), (1,), False),
        (range(0, 10**30, 1), (1,), False),
    ],
)
def test_set_comparison_takes_any_iterable_of_hashable_elements(answer, expected, right):
    if not isinstance(answer, Foreign):
        answer = decode(encode(answer))
    assert judge_foreign(answer, expected, kind="set") is right


def test_no_tolerance_for_a_sequence_that_numpy_makes_no_numbers_of():
    """EvalPlus's comparison ends there with a TypeError of ``numpy.isfinite``; a single int is no such sequence."""
    assert judge("evalplus", [0.5 + 1e-9, 2**64 - 1], [0.5, 2**64 - 1], tolerance=1e-6)
    for large in (2**64, -(2**63) - 1):
        assert not judge("evalplus", [0.5 + 1e-9, large], [0.5, large], tolerance=1e-6)
        assert judge("evalplus", [0.5, large], [0.5, large], tolerance=1e-6)
        assert judge("evalplus", large + 1, large, tolerance=1e-6)


def test_a_float64_of_numpy_equals_the_int_that_rounds_to_it():
    large = 2**53 + 1
    assert judge_foreign(scalar("<f8", float(large)), large)
    assert not judge_foreign(float(large), large)
    assert not judge_foreign(scalar("<f4", float(large)), large)
    assert not judge_foreign(scalar("<f8", float(large) + 4), large)
    assert not judge_foreign(scalar("<f8", 1e308), 10**400)
    assert not judge_foreign(scalar("<f8", float(large)), large, kind="exact")


def test_set_comparison_has_the_tolerance_too():
    assert judge("set", (1.0, 2.0), (1.0000001, 2.0), tolerance=1e-6)
    assert not judge("set", (2.0, 1.0), (1.0000001, 2.0), tolerance=1e-6)
    assert not judge("set", ([1.0],), ([1.0000001],), tolerance=1e-6)


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        (True, True, True),
        (False, True, False),
        (False, False, True),
        (True, False, False),
        (None, False, True),
        (None, True, False),
        (object(), True, True),
        (object(), False, False),
        (0, True, True),
        ("", False, False),
    ],
)
def test_not_none(answer, expected, right):
    assert judge("not_none", answer, expected) is right


def root(answer, coefficients, atol=1e-4):
    comparison = Comparison("polynomial_root", atol=atol)
    return matches(comparison, answer, 0.0, lambda: [coefficients], atol)


def test_polynomial_root_accepts_any_root():
    cubic = [-6, 11, -6, 1]
    assert all(root(x, cubic) for x in (1, 2.0, 3.00001, Fraction(2), Decimal("3.0"), scalar("<f8", 1.0)))
    assert root(scalar("<c16", 2 + 0j), cubic)  # numpy.roots(...)[0]
    assert not root(scalar("<c16", 2 + 1j), cubic)
    assert root(array("<f8", (), 2.0), cubic)
    assert not root(array("<f8", (1,), [2.0]), cubic)
    assert not root(1.5, cubic)
    assert not root(-1000.0, [1, 1])
    for answer in (
        None,
        NAN,
        INF,
        True,
        "1",
        1j,
        10**400,
        [1.0],
        scalar("|b1", True),
        Foreign("opaque", "x"),
    ):
        assert not root(answer, [-1, 1])
    assert not root(1.0, None)
    assert not root(1.0, ["a"])
    assert root(0.0, [])


def test_close_reaches_into_containers():
    assert judge("close", {"a": [1.0, {"b": (2,)}]}, {"a": [1.01, {"b": (2.01,)}]}, tolerance=0.1)
    assert not judge("close", {"a": [1.0]}, {"b": [1.0]}, tolerance=0.1)
    assert not judge("close", [1.0], (1.0,), tolerance=0.1)
    assert not judge("close", ["a", 1.0], ["b", 1.0], tolerance=0.1)
    assert judge("close", [100.0], [101.0], rtol=0.01)


def test_an_unknown_oracle_is_the_suites_mistake():
    with pytest.raises(LookupError, match="no oracle"):
        judge("alternative", 1, 2, args=(), oracle="nonsense")


def test_alternative_asks_the_oracle_only_when_the_answer_differs():
    assert judge("alternative", 7, 7, oracle="sum_div")
    assert judge("alternative", 0, 1, args=[1], oracle="sum_div")
    assert not judge("alternative", 0, 7, args=[8], oracle="sum_div")


numbers = st.integers(-1000, 1000) | st.floats(-1000, 1000)
values = st.recursive(
    numbers | st.text(max_size=3) | st.none(), lambda inner: st.lists(inner) | st.lists(inner).map(tuple)
)


@given(values, values)
def test_exact_is_pythons_equality(left, right):
    assert judge("exact", left, right) is (left == right)
    assert judge("exact", left, left)
    assert judge("evalplus", left, left, tolerance=1e-6)
