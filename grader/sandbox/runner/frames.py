"""A sample's answer stream as the supervisor reads it: where frames begin, and which of them no judge sees."""

from __future__ import annotations

from . import wire

_SLOW = wire.frame(wire.SLOW, b"")


class Frames:
    """Counts the frames that have begun: each begins the next step."""

    __slots__ = ("_carry", "_last_test", "_skip", "_slow", "count")

    def __init__(self, tests: int) -> None:
        self.count = 0
        self._last_test = tests  # what the count is while the last test runs: frame 0 is the load
        self._skip = 0  # bytes of the stream that belong to the frame that has begun
        self._carry = b""  # the first bytes of a header; they are passed on when it is whole
        self._slow = 0  # the last test that has said that it was slow

    def is_slow(self, chunk: bytes) -> bool:
        """Whether this piece of the stream is what an honest test says when it was slow: that frame and no more, since
        it then waits."""
        return chunk == _SLOW and not (self._skip or self._carry)

    def take(self, chunk: bytes) -> bytes:
        """Count what begins in this piece of the stream; returns what is to be passed on.

        That is all but the first SLOW of each test, wherever it is and however the stream is cut: of one that the
        program has written itself, no timing may decide what becomes. It begins no step. The judge sees any further.
        """
        data = self._carry + chunk if self._carry else chunk
        position, end, count = self._skip, len(data), self.count
        unpack, size, slow = wire.HEADER.unpack_from, wire.HEADER.size, wire.SLOW
        kept: list[bytes] = []
        begin = 0
        while (body := position + size) <= end:
            length, kind = unpack(data, position)
            if kind == slow and not length and self._slow < count <= self._last_test:
                self._slow = count
                kept.append(data[begin:position])
                begin = position = body
                continue
            position = body + length
            count += 1
        self.count = count
        self._carry = data[position:]
        self._skip = max(0, position - end)
        if begin or self._carry:
            return b"".join((*kept, data[begin:position]))
        return data
