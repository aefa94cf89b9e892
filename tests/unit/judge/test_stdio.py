import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.judge.stdio import stdout_matches


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        (b"a\nb\n", "a\nb", True),
        (b"a\r\nb\r\n", "a\nb\n", True),
        (b"a\nb", "a\nb\n", True),
        (b"a\n\n", "a", False),
        (b"a \n", "a\n", False),
        (b"a\rb", "a\nb", False),
        (b"", "\n", True),
        ("ü€".encode(), "ü€", True),
        (b"\xff", "\ufffd", False),
    ],
)
def test_exact_forgives_line_ends_and_one_last_newline(answer, expected, right):
    assert stdout_matches("exact", answer, expected, 0.0) is right


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        (b" 1  2\t3\n\n", "1 2\n3", True),
        (b"1 2 3", "12 3", False),
        (b"1 2", "1 2 3", False),
        (b"A", "a", False),
        (b"1.0", "1", False),
        ("a\u00a0b".encode(), "a b", False),
        (b"", " \n", True),
        (b"\xff\x00", "x", False),
    ],
)
def test_whitespace_compares_tokens(answer, expected, right):
    assert stdout_matches("whitespace", answer, expected, 1.0) is right


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        (b"0.3333333", "0.333333333", True),
        (b"1e-7", "0", True),
        (b"1", "1.0000001", True),
        (b".5 5.", "0.5 5", True),
        (b"1000000.9", "1000000", True),
        (b"1000001.1", "1000000", False),
        (b"2.1 a", "2.1000001 a", True),
        (b"2.1 A", "2.1000001 a", False),
        (b"nan", "nan", True),
        (b"nan", "1", False),
        (b"inf", "Infinity", False),
        (b"1e999", "2e999", False),
        (b"1e999", "1e999", True),
        (b"1_0", "10", False),
        (b"0x10", "16", False),
        ("١".encode(), "1", False),
        (b"1 1", "1", False),
        (b"\xff 1", "\udcff 1", False),
    ],
)
def test_float_compares_numbers_within_the_tolerance(answer, expected, right):
    assert stdout_matches("float", answer, expected, 1e-6) is right


def test_huge_numbers_are_compared_as_text():
    digits = "9" * 1_000_000
    assert stdout_matches("float", digits.encode(), digits, 1e-6)
    assert not stdout_matches("float", b"1" + digits.encode(), digits, 1e-6)
    assert not stdout_matches("float", b"1e" + b"9" * 1000, digits, 1e-6)


@given(st.sampled_from(["exact", "whitespace", "float"]), st.binary(), st.text(st.characters(codec=None)))
def test_any_output_is_judged_without_an_error(comparison, answer, expected):
    assert stdout_matches(comparison, answer, expected, 1e-6) in (True, False)
    printed = expected.encode("utf-8", "surrogatepass")
    assert stdout_matches(comparison, printed, expected, 1e-6)
