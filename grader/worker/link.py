"""The pipe between an engine's process and a worker's: objects, pickled. Both ends are trusted; no cell is on it."""

from __future__ import annotations

import os
import pickle
import struct
from typing import Any

_LENGTH = struct.Struct("<Q")
_READ_BYTES = 1 << 20


class Link:
    """One end. ``closed`` is True when the other end is gone."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        self.closed = False
        self._incoming = bytearray()

    def send(self, message: Any) -> None:
        """Send an object; blocks while the other end is busy. Raises BrokenPipeError when it is gone."""
        data = pickle.dumps(message)
        view = memoryview(_LENGTH.pack(len(data)) + data)
        while view:
            view = view[os.write(self.writer, view) :]

    def receive(self) -> list[Any]:
        """Read what has come, at least once, and return the whole messages in it."""
        data = os.read(self.reader, _READ_BYTES)
        if not data:
            self.closed = True
        self._incoming += data
        messages, position = [], 0
        while position + _LENGTH.size <= len(self._incoming):
            end = position + _LENGTH.size + _LENGTH.unpack_from(self._incoming, position)[0]
            if end > len(self._incoming):
                break
            messages.append(pickle.loads(self._incoming[position + _LENGTH.size : end]))  # noqa: S301 - trusted
            position = end
        del self._incoming[:position]
        return messages
