"""What a program can send to hurt the judge: each is a wrong answer, and none is the grader's error."""

import struct
import threading

import pytest

from grader.judge.compare import matches
from grader.sandbox.runner.decoding import DecodeError, Foreign, decode
from grader.sandbox.runner.encoding import encode
from grader.suites.task import Comparison

KINDS = ("evalplus", "exact", "close", "set", "not_none", "polynomial_root")
MODULUS = 2**61 - 1


def judge(answer, expected, kind="evalplus", tolerance=1e-6):
    return matches(Comparison(kind, atol=tolerance), answer, expected, lambda: [[1, 1]], tolerance)


def nested(levels, leaf=b"N", header=b"[\1\0\0\0"):
    return header * levels + leaf


@pytest.mark.parametrize(
    "header",
    [b"[\1\0\0\0", b"(\1\0\0\0", b">\1\0\0\0", b"{" + encode("k"), b"Q\5deque[\1\0\0\0"],
)
def test_deep_nesting(header):
    with pytest.raises(DecodeError, match="nested"):
        decode(nested(1_000_000, header=header))


@pytest.mark.parametrize("wrap", ["list", "namedtuple"])
@pytest.mark.parametrize("frames", [0, 850])
def test_the_deepest_answers_are_judged_alike_from_any_depth_of_the_callers_stack(wrap, frames):
    header = b"(\1\0\0\0" if wrap == "list" else b"Q\x0anamedtuple(\1\0\0\0"
    levels = 500 if wrap == "list" else 250
    answer, same = (decode(nested(levels, encode(1), header)) for _ in range(2))
    other = decode(nested(levels, encode(2), header))
    found = []

    def below(left):
        if left:
            below(left - 1)
        else:
            found.extend(
                judge(answer, expected, kind)
                for kind in ("exact", "evalplus", "close")
                for expected in (same, other)
            )

    thread = threading.Thread(target=below, args=(frames,))
    thread.start()
    thread.join()
    assert found == [True, False] * 3


def test_recursive_structures_cannot_be_written_and_do_not_stop_the_encoder():
    one, two = [], {}
    one.append(one)
    two["k"] = two
    for value in (one, two, (one, 1), [two]):
        assert isinstance(decode(encode(value)), Foreign | list | tuple)


def test_huge_ints_are_read_without_decimal_conversion_and_compared():
    huge = decode(encode(1 << 999_999))
    for kind in KINDS:
        assert judge(huge, 1.5, kind) is False or kind == "not_none"
        assert judge([huge], [1.5], kind) is False or kind == "not_none"
    with pytest.raises(DecodeError, match="bits"):
        decode(b"l" + struct.pack("<i", 10**7) + b"\1\0" * 10**7)


def test_not_a_number_equals_nothing_and_minus_zero_equals_zero():
    for kind in ("evalplus", "exact", "close", "set"):
        assert not judge([float("nan")], [float("nan")], kind)
        assert not judge([float("nan")], [0.0], kind)
        assert judge([-0.0], [0.0], kind)
        assert not judge([float("inf")], [-float("inf")], kind)
        assert not judge([float("inf")], [1e308], kind)


@pytest.mark.parametrize("text", ["\ud800", "\udfff\ud800", "\0", "a\0b", "\U0010ffff", "\x1b[31m"])
def test_odd_text_is_text(text):
    assert judge(decode(encode(text)), text)
    assert not judge(decode(encode(text)), "a")


@pytest.mark.parametrize("raw", [b"\xff", b"\xc0\x80", b"\xf5\x80\x80\x80", b"\xed\xa0", b"\xc3"])
def test_bytes_that_are_not_utf8_are_refused(raw):
    with pytest.raises(DecodeError, match="UTF-8"):
        decode(b"u" + struct.pack("<I", len(raw)) + raw)


def test_bool_int_and_float_are_equal_and_tuple_and_list_are_not():
    assert judge(True, 1)
    assert judge(1, 1.0)
    assert not judge((1,), [1])
    assert not judge("1", 1)


def test_equal_keys_twice_are_refused_however_they_are_spelt():
    for first, second in ((1, True), (1, 1.0), (0.0, -0.0), ("a", "a"), ((1,), (1.0,)), (1 + 0j, 1)):
        with pytest.raises(DecodeError, match="twice"):
            decode(b"{" + encode(first) + b"N" + encode(second) + b"N0")
        with pytest.raises(DecodeError, match="twice"):
            decode(b"<\2\0\0\0" + encode(first) + encode(second))
    for key in ([], {}, set(), ([],)):
        with pytest.raises(DecodeError, match="unhashable"):
            decode(b"{" + encode(key) + b"N0")


def test_elements_that_collide_in_a_set_comparison_are_a_wrong_answer():
    answer = [number * MODULUS for number in range(1, 200_000)]
    assert not judge(answer, [1], "set")
    assert judge([5] * 200_000, [5], "set")


def test_keys_that_collide_only_after_numpys_scalars_are_unwrapped_are_a_wrong_answer():
    hostile = {Foreign("numpy.scalar", ("<u8", number * MODULUS)) for number in range(1, 200_000)}
    assert not judge(hostile, {1})
    keys = Foreign("dict_keys", [number * MODULUS for number in range(1, 200_000)])
    assert not judge(keys, {1})


def test_every_rule_survives_every_kind_of_answer():
    odd = [
        None,
        ...,
        10**400,
        1j,
        float("nan"),
        "\ud800",
        b"\xff",
        (),
        {},
        {1: []},
        frozenset(),
        Foreign("opaque", "x"),
        Foreign("iterator", [[]]),
        Foreign("numpy.array", ("<f8", (2,), [1.0, 2.0])),
        Foreign("Decimal", "NaN"),
        Foreign("Decimal", "Infinity"),
        Foreign("range", (0, 10**30, 1)),
    ]
    expected = [1.5, [1.5], (2.5, 1.0), "x", {1}, {"a": 1.5}, True, None, Foreign("Fraction", (1, 2))]
    for kind in KINDS:
        for answer in odd:
            for value in expected:
                assert judge(answer, value, kind) in (True, False)
                assert judge([answer], [value], kind) in (True, False)
