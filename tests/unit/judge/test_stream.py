"""The answer stream: however it is cut into pieces, and whatever is in it, the same is found."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.judge.stream import AnswerStream, Expected, Finding, Raised, read_raised
from grader.sandbox.runner import wire
from grader.sandbox.runner.decoding import DecodeError
from grader.sandbox.runner.encoding import encode

LOADED = wire.frame(wire.LOADED, b"")
FINISHED = wire.frame(wire.FINISHED, b"")
MAX_ANSWER = 2 * wire.DIGEST_ABOVE


def value(payload: bytes) -> bytes:
    return wire.frame(wire.VALUE, payload)


def digest(fill: bytes) -> bytes:
    return wire.frame(wire.DIGEST, wire.DIGEST_BODY.pack(1 << 20, fill * 32))


def raised(name="ValueError", message="no", line=3) -> bytes:
    return wire.frame(wire.RAISED, encode((name, message, line)))


def expect(frames: list[bytes]) -> Expected:
    offsets = array("Q", [len(LOADED)])
    for frame in frames:
        offsets.append(offsets[-1] + len(frame))
    return Expected(LOADED + b"".join(frames) + FINISHED, offsets)


def matches(_test: int, payload: bytes) -> bool:
    """Stands for a comparison: an answer with "=" in front is as good as the expected one."""
    if payload[:1] == b"!":
        raise DecodeError("not an answer")
    return payload[:1] == b"="


def judge(expected_frames: list[bytes], *, fail_fast: bool = False) -> AnswerStream:
    return AnswerStream(expect(expected_frames), matches, fail_fast)


def found(stream: AnswerStream) -> tuple[object, ...]:
    return (stream.findings, stream.raised, stream.load_error, stream.compiled, stream.violation,
            stream.answered, stream.loaded)  # fmt: skip


EXPECTED_FRAMES = st.one_of(st.builds(value, st.binary(max_size=12)), st.just(digest(b"e")))
ANSWERS = st.sampled_from(
    ["same", "same", "same", "as good", "wrong", "undecodable", "digest", "raised", "empty", "finished",
     "unknown kind", "too long", "too long error"]
)  # fmt: skip
FIRST = st.sampled_from([*[LOADED] * 8, raised(), wire.frame(wire.UNCOMPILABLE, encode(("SyntaxError", "", 1))), b"",
                         value(b"early"), wire.frame(wire.LOADED, b"with something")])  # fmt: skip


def answer(kind: str, expected_frame: bytes) -> bytes:
    return {
        "same": expected_frame,
        "as good": value(b"= another form"),
        "wrong": value(b"wrong"),
        "undecodable": value(b"!"),
        "digest": digest(b"a"),
        "raised": raised(),
        "empty": value(b""),
        "finished": FINISHED,
        "unknown kind": wire.frame(1, b"?"),
        "too long": wire.HEADER.pack(MAX_ANSWER + 1, wire.VALUE),
        "too long error": wire.HEADER.pack(1 << 20, wire.RAISED),
    }[kind]


@st.composite
def conversations(draw):
    """(frames expected, stream that came)."""
    expected_frames = draw(st.lists(EXPECTED_FRAMES, max_size=6))
    kinds = draw(st.lists(ANSWERS, min_size=len(expected_frames), max_size=len(expected_frames)))
    came = draw(FIRST)
    came += b"".join(answer(kind, frame) for kind, frame in zip(kinds, expected_frames, strict=True))
    came += draw(st.sampled_from([FINISHED, FINISHED, b"", value(b"one more"), FINISHED + value(b"late")]))
    return expected_frames, came[: draw(st.integers(0, len(came)))] if draw(st.booleans()) else came


@st.composite
def cuts(draw, data: bytes):
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[low:high] for low, high in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.data(), conversations(), st.booleans())
def test_any_way_of_cutting_a_stream_finds_the_same(data, conversation, fail_fast):
    expected_frames, came = conversation
    whole = judge(expected_frames, fail_fast=fail_fast)
    stopped = whole.feed(came)
    pieces = judge(expected_frames, fail_fast=fail_fast)
    # All of the pieces are fed, also those that come between the decision to stop and the end of the process.
    stops = [pieces.feed(piece) for piece in data.draw(cuts(came))]
    assert found(pieces) == found(whole)
    assert any(stops) == stopped


@given(conversations(), st.booleans())
def test_byte_by_byte_finds_the_same(conversation, fail_fast):
    expected_frames, came = conversation
    whole = judge(expected_frames, fail_fast=fail_fast)
    whole.feed(came)
    bytewise = judge(expected_frames, fail_fast=fail_fast)
    for index in range(len(came)):
        bytewise.feed(came[index : index + 1])
    assert found(bytewise) == found(whole)


@given(st.data(), conversations(), st.booleans())
def test_comparing_memory_and_comparing_frames_find_the_same(data, conversation, fail_fast):
    """A judge that never takes the short way, because it has parted from the expected stream at the start."""
    expected_frames, came = conversation
    short, long = (judge(expected_frames, fail_fast=fail_fast) for _ in range(2))
    long._part_from_expected()
    for piece in data.draw(cuts(came)):
        assert short.feed(piece) == long.feed(piece)
    assert found(short) == found(long)


def model(expected_frames: list[bytes], came: bytes) -> dict[int, Finding]:
    """What each test of a well-formed stream comes to, in the simplest words."""
    findings, at = {}, len(LOADED)
    for test, frame in enumerate(expected_frames):
        length, kind = wire.HEADER.unpack_from(came, at)
        theirs = came[at : at + wire.HEADER.size + length]
        at += len(theirs)
        if theirs == frame:
            continue
        if kind == wire.RAISED:
            findings[test] = Finding.RAISED
        elif wire.DIGEST in (kind, frame[4]):
            findings[test] = Finding.UNDECIDED
        elif theirs[5:6] != b"=":
            findings[test] = Finding.WRONG
    return findings


@given(st.data(), st.lists(EXPECTED_FRAMES, max_size=6))
def test_what_is_found_of_each_test(data, expected_frames):
    kinds = st.sampled_from(["same", "as good", "wrong", "undecodable", "digest", "raised", "empty"])
    came = LOADED + b"".join(answer(data.draw(kinds), frame) for frame in expected_frames) + FINISHED
    stream = judge(expected_frames)
    for piece in data.draw(cuts(came)):
        assert not stream.feed(piece)
    assert stream.findings == model(expected_frames, came)
    assert stream.answered == len(expected_frames)
    assert stream.loaded
    assert stream.violation is None


RIGHT = [value(b"one"), value(b"two"), value(b"three")]


@pytest.mark.parametrize("answered", range(4))
def test_right_answers_are_counted_as_they_come(answered):
    stream = judge(RIGHT)
    assert not stream.feed(LOADED + b"".join(RIGHT[:answered]))
    assert stream.answered == answered
    assert stream.findings == {}


def test_half_an_answer_is_none():
    stream = judge(RIGHT)
    stream.feed(LOADED + RIGHT[0] + RIGHT[1][:-1])
    assert stream.answered == 1
    stream.feed(b"?")
    assert stream.answered == 2
    assert stream.findings == {1: Finding.WRONG}


def test_with_fail_fast_the_first_failure_stops_the_run():
    stream = judge(RIGHT, fail_fast=True)
    assert not stream.feed(LOADED + RIGHT[0])
    assert stream.feed(value(b"wrong") + value(b"wrong too"))
    assert stream.findings == {1: Finding.WRONG}


def test_what_comes_after_the_stop_counts_for_nothing():
    """How much a program still writes before it is killed is a matter of luck."""
    stream = judge(RIGHT, fail_fast=True)
    assert stream.feed(LOADED + value(b"wrong"))
    assert stream.feed(RIGHT[1] + RIGHT[2] + FINISHED)
    assert stream.answered == 1
    assert stream.findings == {0: Finding.WRONG}


def test_without_fail_fast_every_test_is_judged():
    stream = judge(RIGHT)
    assert not stream.feed(LOADED + value(b"wrong") + raised() + RIGHT[2] + FINISHED)
    assert stream.findings == {0: Finding.WRONG, 1: Finding.RAISED}
    assert stream.raised == {1: Raised("ValueError", "no", 3)}


@pytest.mark.parametrize("fail_fast", [True, False])
def test_a_digest_that_differs_decides_nothing_and_stops_nothing(fail_fast):
    stream = judge([digest(b"e"), value(b"short"), digest(b"e")], fail_fast=fail_fast)
    assert not stream.feed(LOADED + digest(b"a") + digest(b"a") + value(b"short") + FINISHED)
    assert set(stream.findings.values()) == {Finding.UNDECIDED}
    assert stream.answered == 3


def test_a_digest_that_is_equal_is_right():
    stream = judge([digest(b"e")])
    stream.feed(LOADED)
    stream.feed(digest(b"e") + FINISHED)
    assert stream.findings == {}
    assert stream.answered == 1


@pytest.mark.parametrize(
    ("came", "what"),
    [
        (LOADED + b"".join(RIGHT) + value(b"four"), "more answers than tests"),
        (LOADED + b"".join(RIGHT) + FINISHED + raised(), "more answers than tests"),
        (LOADED + LOADED, "kind 76"),
        (LOADED + FINISHED, "kind 90"),
        (LOADED + RIGHT[0] + FINISHED, "kind 90"),
        (LOADED + wire.frame(0, b""), "kind 0"),
        (FINISHED, "first frame of kind 90"),
        (value(b"one"), "first frame of kind 86"),
        (LOADED + wire.HEADER.pack(MAX_ANSWER + 1, wire.VALUE), f"frame of {MAX_ANSWER + 1} bytes"),
        (LOADED + wire.HEADER.pack(0xFFFFFFFF, wire.RAISED), "frame of 4294967295 bytes"),
        (wire.HEADER.pack(0xFFFFFFFF, wire.UNCOMPILABLE), "frame of 4294967295 bytes"),
    ],
)
@pytest.mark.parametrize("fail_fast", [True, False])
def test_a_stream_that_no_honest_process_writes_is_a_violation(came, what, fail_fast):
    stream = judge(RIGHT, fail_fast=fail_fast)
    assert stream.feed(came)
    assert what in stream.violation
    answered = stream.answered
    assert stream.feed(LOADED + b"".join(RIGHT) + FINISHED), "nothing mends it"
    assert stream.answered == answered


def test_a_program_that_does_not_compile():
    stream = judge(RIGHT)
    assert stream.feed(wire.frame(wire.UNCOMPILABLE, encode(("SyntaxError", "invalid syntax", 2))))
    assert not stream.compiled
    assert stream.load_error == Raised("SyntaxError", "invalid syntax", 2)
    assert stream.answered == 0


def test_a_program_that_fails_at_its_top_level():
    stream = judge(RIGHT)
    assert stream.feed(raised("NameError", "name 'x' is not defined", 1))
    assert stream.compiled
    assert not stream.loaded
    assert stream.load_error == Raised("NameError", "name 'x' is not defined", 1)


def test_a_suite_without_tests_expects_none():
    stream = judge([])
    assert not stream.feed(LOADED + FINISHED)
    assert stream.answered == 0
    assert stream.feed(value(b"forged"))


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(noise):
    for fail_fast in (True, False):
        judge(RIGHT, fail_fast=fail_fast).feed(noise)
        stream = judge(RIGHT, fail_fast=fail_fast)
        stream.feed(LOADED)
        stream.feed(noise)
        assert 0 <= stream.answered <= len(RIGHT)


@given(st.text(max_size=500), st.text(max_size=500), st.integers(-(2**40), 2**40))
def test_what_a_program_says_of_an_exception_is_cut_and_cleaned(name, message, line):
    told = read_raised(encode((name, message, line)))
    assert len(told.type) <= 100
    assert len(told.message) <= 300
    assert 0 <= told.line < 10_000_000
    for text in (told.type, told.message):
        assert all(char.isprintable() or char == "\n" for char in text)
        text.encode("utf-8")


@pytest.mark.parametrize(
    "payload",
    [b"", b"rubbish", encode(None), encode(("E", "m")), encode(["E", "m", 1]), encode(("E", "m", True)),
     encode((1, "m", 1)), encode(("E", b"m", 1)), encode(("E", "m", 1.0)), encode(("E", "m", 1)) + b"N"],
)  # fmt: skip
def test_an_exception_that_is_told_wrongly_is_unknown(payload):
    assert read_raised(payload) == Raised("UnknownError", "", 0)


def test_control_characters_and_lone_surrogates_do_not_reach_a_terminal():
    told = read_raised(encode(("E\x1b[2J", "a\x00b\ud800\u202ec\nd", 1)))
    assert told.type == "E?[2J"
    assert told.message == "a?b??c\nd"
