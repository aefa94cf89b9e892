"""The pipes between a supervisor and a sample's process, and what is kept of what comes through them."""

from __future__ import annotations

import os

from .kernel import widen_pipe

PIPE_BYTES = 1 << 20
_MOST_PIECES = 1000
PIPE_PIECES = PIPE_BYTES // 4096  # pages, each of which has bytes of one write or of several


class Tail:
    """The last bytes of a stream."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pieces: list[bytes] = []
        self._length = 0

    def add(self, data: bytes) -> None:
        """Append, and forget what came too long ago. A small piece costs little: it is joined with many others."""
        self._pieces.append(data)
        self._length += len(data)
        if self._length >= 2 * self._size or len(self._pieces) > _MOST_PIECES:
            self._keep(data if len(data) >= self._size else b"".join(self._pieces))

    def __bytes__(self) -> bytes:
        self._keep(b"".join(self._pieces))
        return self._pieces[0]

    def _keep(self, data: bytes) -> None:
        self._pieces = [data[-self._size :]]
        self._length = len(self._pieces[0])


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
