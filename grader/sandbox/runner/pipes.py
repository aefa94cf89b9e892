"""The pipes between a supervisor and a sample's process, and what is kept of what comes through them."""

from __future__ import annotations

import os

from .kernel import widen_pipe

PIPE_BYTES = 1 << 20


class Tail:
    """The last bytes of a stream."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._data = b""

    def add(self, data: bytes) -> None:
        """Append, and forget what came too long ago."""
        self._data = (self._data + data)[-self._size :]

    def __bytes__(self) -> bytes:
        return self._data


def make_pipe() -> tuple[int, int]:
    """Return a pipe whose reading end does not block."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    return reader, writer


def widen(writer: int) -> bool:
    """Let a pipe hold PIPE_BYTES, so that a program seldom finds it full; returns whether it may hold them.

    All cells are of one user, whose pipes have a limit together. Beyond it a new pipe holds two pages, or one.
    """
    try:
        widen_pipe(writer, PIPE_BYTES)
    except PermissionError:
        return False
    return True
