"""The pipes between a supervisor and a sample's process, and what is kept of what comes through them."""

from __future__ import annotations

import contextlib
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


def make_pipe(*, wide: bool = False) -> tuple[int, int]:
    """Return a pipe whose reading end does not block, and that a program seldom finds full if it is ``wide``."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    if wide:
        with contextlib.suppress(PermissionError):  # over the user's soft limit: it is slower, not different
            widen_pipe(writer, PIPE_BYTES)
    return reader, writer
