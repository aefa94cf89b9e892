"""The pipe between an engine's process and a worker's: objects, pickled. Both ends are trusted; no cell is on it."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import struct
from typing import Any

_LENGTH = struct.Struct("<Q")
# What a pipe holds. The kernel would map more room than that for each read, which takes ten times as long as reading.
_READ_BYTES = 1 << 16


class Link:
    """One end. ``closed`` is True when the other end is gone."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        self.closed = False
        self._incoming = bytearray()
        self._outgoing = bytearray()
        os.set_blocking(writer, False)

    @property
    def ready(self) -> bool:
        """Whether ``receive`` would return at once: ask before waiting for ``reader``, which ``send`` reads too."""
        return self.closed or self._end_of_first() <= len(self._incoming)

    def send(self, message: Any) -> None:
        """Send an object; takes in what the other end sends meanwhile, or two that send would wait for each other.

        Raises BrokenPipeError when the other end is gone.
        """
        data = pickle.dumps(message)
        view = memoryview(_LENGTH.pack(len(data)) + data)
        while view:
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(self.writer, view) :]
                continue
            readable, _, _ = select.select([] if self.closed else [self.reader], [self.writer], [])
            if readable:
                self._read()

    def post(self, message: Any) -> None:
        """Send an object without waiting: what the other end does not take yet is kept for ``flush``.

        For an end that always reads what comes; the other may then use ``send``.
        """
        data = pickle.dumps(message)
        self._outgoing += _LENGTH.pack(len(data)) + data
        self.flush()

    @property
    def unsent(self) -> bool:
        """Whether there is something for ``flush`` to write once ``writer`` takes it."""
        return bool(self._outgoing)

    def flush(self) -> None:
        """Write what the other end takes now; nothing more is written to one that is gone."""
        try:
            while self._outgoing:
                del self._outgoing[: os.write(self.writer, self._outgoing)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._outgoing.clear()

    def receive(self) -> list[Any]:
        """Wait until something has come, and return the whole messages in it; [] if it was only a part of one."""
        if not self.ready:
            self._read()
        messages = []
        while (end := self._end_of_first()) <= len(self._incoming):
            messages.append(pickle.loads(self._incoming[_LENGTH.size : end]))  # noqa: S301 - trusted
            del self._incoming[:end]
        return messages

    def _end_of_first(self) -> int:
        if len(self._incoming) < _LENGTH.size:
            return _LENGTH.size
        return _LENGTH.size + int(_LENGTH.unpack_from(self._incoming)[0])

    def _read(self) -> None:
        data = os.read(self.reader, _READ_BYTES)
        self.closed = not data
        self._incoming += data
