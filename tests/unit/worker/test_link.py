"""The pipe between engine and worker."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.worker.link import Link


@pytest.fixture
def ends():
    """(our end, their end), each reading what the other writes."""
    there, back = os.pipe(), os.pipe()
    handles = {*there, *back}
    yield Link(back[0], there[1]), Link(there[0], back[1])
    for handle in handles:
        os.close(handle)


def shut(handle: int) -> None:
    """Close an end of a pipe and keep its number, which the fixture will close."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, handle)
    os.close(null)


def test_objects_arrive_as_they_were_sent_and_in_order(ends):
    ours, theirs = ends
    messages = [1, "two", {"three": [b"\x00", None]}, (4.0,)]
    for message in messages:
        ours.send(message)
    assert theirs.receive() == messages
    assert not theirs.closed


def test_both_ways_work_at_once(ends):
    ours, theirs = ends
    ours.send("there")
    theirs.send("back")
    assert theirs.receive() == ["there"]
    assert ours.receive() == ["back"]


def test_a_long_message_comes_in_pieces_and_is_handed_out_whole(ends):
    ours, theirs = ends
    message = os.urandom(5 << 20)
    sender = threading.Thread(target=lambda: [ours.send(message), ours.send("end")])
    sender.start()
    received = []
    while len(received) < 2:
        received += theirs.receive()
    sender.join()
    assert not theirs.ready
    assert received == [message, "end"]


def test_two_that_send_at_the_same_time_do_not_wait_for_each_other(ends):
    """An engine sends a long program while its worker sends a verdict with much output."""
    message = os.urandom(3 << 20)
    received: list[list[object]] = [[], []]

    def talk(index):
        ends[index].send(message)
        ends[index].send("end")
        while len(received[index]) < 2:
            received[index] += ends[index].receive()

    talkers = [threading.Thread(target=talk, args=(index,)) for index in (0, 1)]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join()
    assert received == [[message, "end"]] * 2
    assert not any(end.ready for end in ends)


def test_the_end_is_noticed_after_what_was_sent_before_it(ends):
    ours, theirs = ends
    ours.send("last words")
    shut(ours.writer)
    received = theirs.receive()
    while not theirs.closed:
        received += theirs.receive()
    assert received == ["last words"]


def test_half_a_message_is_none(ends):
    ours, theirs = ends
    os.write(ours.writer, b"\x10\x00\x00\x00\x00\x00\x00\x00half")
    shut(ours.writer)
    assert theirs.receive() == []
    assert theirs.receive() == []
    assert theirs.closed


def test_sending_to_nobody_is_an_error(ends):
    ours, theirs = ends
    shut(theirs.reader)
    with pytest.raises(BrokenPipeError):
        ours.send("anybody?")


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_messages_survive_any_pieces(messages, lengths):
    source, sink = os.pipe(), os.pipe()
    try:
        writing, reading = Link(sink[0], source[1]), Link(sink[0], sink[1])
        for message in messages:
            writing.send(message)
        os.close(source[1])
        data = b""
        while piece := os.read(source[0], 1 << 16):
            data += piece
        received, at, turn = [], 0, 0
        while at < len(data):
            size = lengths[turn % len(lengths)]
            os.write(sink[1], data[at : at + size])
            received += reading.receive()
            at, turn = at + size, turn + 1
        assert received == messages
    finally:
        for handle in (source[0], *sink):
            os.close(handle)
