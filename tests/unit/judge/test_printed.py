"""Printed text is read a piece at a time: the same tokens and lines as at once, in a fraction of the memory."""

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.judge import printed
from grader.judge.printed import filled_lines, tokens
from grader.judge.stdio import stdout_matches

TEXTS = st.text("ab1 \t\n\r\x0b\x0c\0.", max_size=60).map(str.encode)
COMPARISONS = ("exact", "whitespace", "float", "benchmark", "codecontests")
TEXT = 8 << 20
MOST = 10 << 20  # one line is copied once, however long it is; a list of tokens takes many times as much


@given(st.sampled_from((1, 3, 1 << 16)), TEXTS)
def test_the_tokens_and_lines_are_those_of_the_whole_text(piece, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(printed, "_PIECE", piece)
        assert list(tokens(text)) == text.split()
        assert list(filled_lines(text)) == [line.strip() for line in text.splitlines() if line.strip()]


@given(answer=TEXTS, expected=TEXTS)
def test_exact_is_right_only_where_the_lines_are_the_same(answer, expected):
    lines, wanted = (text.replace(b"\r\n", b"\n").removesuffix(b"\n") for text in (answer, expected))
    assert stdout_matches("exact", answer, expected.decode(), 0.0) is (lines == wanted)


def peak_of(comparison, answer, expected):
    tracemalloc.start()
    try:
        return stdout_matches(comparison, answer, expected, 1e-6), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("answer", [b"11\n", b"7 ", b"\r\n", b"x\x0b"])
def test_a_flood_is_not_taken_apart(comparison, answer):
    assert peak_of(comparison, answer * (TEXT // len(answer)), "7\n") == (
        False,
        pytest.approx(0, abs=MOST),
    )


@pytest.mark.parametrize("comparison", COMPARISONS[1:])
def test_nor_are_blank_lines_before_the_right_answer(comparison):
    flood = itertools.chain.from_iterable(itertools.repeat((b"\n", b" \r"), TEXT // 3))
    answer = b"7" + b"".join(flood) + b"8\n"
    assert peak_of(comparison, answer, "7\n8\n") == (True, pytest.approx(0, abs=MOST))
