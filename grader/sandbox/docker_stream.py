"""Docker's multiplexed stream: a container's standard output and standard error over one connection.

Each piece has a header of 8 bytes: the stream (1 output, 2 error), three zero bytes, and the length as a big-endian
uint32 (Docker Engine API, "Attach to a container", stream format).
"""

from __future__ import annotations

import struct

from grader.errors import CellLostError

_HEADER = struct.Struct(">BxxxI")
_STDOUT, _STDERR = 1, 2
_LONGEST = 1 << 20  # the engine copies in pieces of 32 KiB
_ERRORS_KEPT = 4096


class Demultiplexer:
    """Takes the connection's bytes as they come, in pieces of any size; keeps no more than a header's worth."""

    def __init__(self) -> None:
        self.errors = b""
        self._header = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of standard output in ``data``; the end of standard error is kept in ``errors``.

        Raises CellLostError for what is no such stream.
        """
        view = memoryview(data)
        output = bytearray()
        while view:
            if self._left:
                piece, view = view[: self._left], view[self._left :]
                self._left -= len(piece)
                if self._stream == _STDOUT:
                    output += piece
                else:
                    self.errors = (self.errors + piece)[-_ERRORS_KEPT:]
                continue
            missing = _HEADER.size - len(self._header)
            self._header += view[:missing]
            view = view[missing:]
            if len(self._header) == _HEADER.size:
                self._begin()
        return bytes(output)

    def _begin(self) -> None:
        self._stream, self._left = _HEADER.unpack(self._header)
        if self._stream not in (_STDOUT, _STDERR) or self._left > _LONGEST:
            raise CellLostError(f"the engine sent no stream header but {self._header!r}", blamed=True)
        self._header = b""
