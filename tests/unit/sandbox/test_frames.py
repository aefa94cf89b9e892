"""Where frames begin in an answer stream that is cut anywhere, and which of them the judge does not see."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from grader.sandbox.runner import frames, wire

TESTS = 3
kinds = st.sampled_from([wire.LOADED, wire.VALUE, wire.DIGEST, wire.RAISED, wire.FINISHED, 0, 255])
streams = st.lists(st.builds(wire.frame, kinds, st.binary(max_size=40)), max_size=12)
SLOW, VALUE = wire.frame(wire.SLOW, b""), wire.frame(wire.VALUE, b"x")
slow_streams = st.lists(st.sampled_from([SLOW, VALUE, wire.frame(wire.SLOW, b"more")]), max_size=12)


@st.composite
def split_streams(draw):
    """(number of frames begun, pieces of a stream), the last frame perhaps incomplete."""
    whole = draw(streams)
    stream = b"".join(whole)
    stream = stream[: draw(st.integers(0, len(stream)))] if draw(st.booleans()) else stream
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    begun, at = 0, 0
    for frame in whole:
        begun += at + wire.HEADER.size <= len(stream)
        at += len(frame)
    return begun, pieces


@given(split_streams())
def test_frames_are_counted_however_the_stream_is_cut(stream):
    begun, pieces = stream
    counting = frames.Frames(12)
    for piece in pieces:
        counting.take(piece)
    assert counting.count == begun


@given(streams)
def test_frames_are_counted_byte_by_byte(whole):
    counting = frames.Frames(12)
    for byte in b"".join(whole):
        counting.take(bytes([byte]))
    assert counting.count == len(whole)


def test_a_frame_counts_when_its_header_is_there():
    """The next test's clock begins when the answer before it is being written, however long that is."""
    counting = frames.Frames(12)
    head = wire.HEADER.pack(1 << 29, wire.VALUE)
    counting.take(head[:4])
    assert counting.count == 0
    counting.take(head[4:])
    assert counting.count == 1
    counting.take(b"x" * 1000)
    assert counting.count == 1


def cut(data: st.DataObject, stream: bytes) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(streams, st.data())
def test_whole_headers_are_passed_on_whatever_they_say(whole, data):
    stream = b"".join(whole)
    end = data.draw(st.integers(0, len(stream)))
    counting = frames.Frames(TESTS)
    passed_on = b"".join(map(counting.take, cut(data, stream[:end])))
    assert stream[:end].startswith(passed_on)
    assert end - len(passed_on) < wire.HEADER.size
    assert end < len(stream) or passed_on == stream


@given(slow_streams, st.data())
def test_the_first_slow_of_each_test_is_taken_out_however_the_stream_is_cut(whole, data):
    """What becomes of one that a program forges would else depend on when it is read."""
    kept, begun, taken = [], 0, 0
    for frame in whole:
        if frame == SLOW and taken < begun <= TESTS:
            taken = begun
        else:
            kept.append(frame)
            begun += 1
    counting = frames.Frames(TESTS)
    assert b"".join(map(counting.take, cut(data, b"".join(whole)))) == b"".join(kept)
    assert counting.count == begun


def test_a_test_says_alone_that_it_was_slow():
    counting = frames.Frames(TESTS)
    assert counting.is_slow(SLOW)
    assert not counting.is_slow(SLOW + VALUE)
    counting.take(wire.HEADER.pack(len(SLOW), wire.VALUE))
    assert not counting.is_slow(SLOW)  # it is what an answer has in it
