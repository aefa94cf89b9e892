"""The engine's stream format, cut into pieces anywhere."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.errors import CellLostError
from grader.sandbox.docker_stream import Demultiplexer

PIECES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=60)), max_size=12)


def packed(pieces):
    return b"".join(struct.pack(">BxxxI", stream, len(data)) + data for stream, data in pieces)


@given(PIECES, st.lists(st.integers(1, 20), max_size=60))
def test_output_comes_through_however_the_stream_is_cut(pieces, cuts):
    stream, found = Demultiplexer(), b""
    data = packed(pieces)
    for cut in cuts:
        found += stream.feed(data[:cut])
        data = data[cut:]
    found += stream.feed(data)
    assert found == b"".join(data for number, data in pieces if number == 1)
    assert stream.errors == b"".join(data for number, data in pieces if number == 2)


def test_only_the_end_of_standard_error_is_kept():
    stream = Demultiplexer()
    for number in range(100):
        assert stream.feed(packed([(2, b"%03d " % number * 250)])) == b""
    assert len(stream.errors) == 4096
    assert stream.errors.endswith(b"099 ")


@pytest.mark.parametrize("header", [b"\0\0\0\0\0\0\0\1", b"HTTP/1.1", b"\1\0\0\0\xff\xff\xff\xff"])
def test_what_is_no_header_loses_the_cell(header):
    with pytest.raises(CellLostError, match="no stream header"):
        Demultiplexer().feed(header)
