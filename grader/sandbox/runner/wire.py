"""The words that worker, supervisor and sample exchange; docs/protocol.md describes them.

Worker and supervisor speak in frames: uint32 length of the payload, one byte that says what it is, the payload.
A sample's answers come in frames of the same form, on a pipe of their own. All numbers are little-endian.
"""

from __future__ import annotations

import os
import struct

HEADER = struct.Struct("<IB")
LENGTH = struct.Struct("<I")
MAX_FRAME = 1 << 30
_GATHERED = 1 << 16  # bytes

# Worker to supervisor. Payloads are marshalled: they come from trusted code.
CONFIGURE = ord("C")  # dict: see supervisor.Config
RUN = ord("R")  # tuple: see supervisor.Request
TICK = ord("T")  # TICK_BODY
KILL = ord("K")  # uint32: the run to stop
PING = ord("P")  # empty: to be answered with PONG

# Supervisor to worker. Nothing here is unmarshalled by the worker.
HELLO = ord("H")  # JSON: what the cell is
ANSWERS = ord("A")  # CHUNK header, then a piece of the sample's answer stream
OUTPUT = ord("O")  # CHUNK header, then a piece of a whole program's standard output
DONE = ord("D")  # uint32 length, JSON of that length, then the tails of standard output and standard error
FAULT = ord("F")  # text: why this cell cannot go on
DIED = ord("Z")  # text: which other process of this cell has died
PONG = ord("P")  # empty
SPENT = ord("G")  # text: why this cell takes no more runs; what came after the last DONE was not begun

# CPU seconds of the whole cell by the host's count, and how slow its processor is: see host_clock and pace
TICK_BODY = struct.Struct("<dd")
CHUNK = struct.Struct("<Id")  # run, CPU seconds it has used so far

# Frames in a sample's answer stream.
STARTED = ord(
    "S"
)  # the process is set up; the supervisor takes it out. What fails before it is not the program's doing
LOADED = ord("L")  # the program's top level has run
VALUE = ord("V")  # an encoded answer
DIGEST = ord("D")  # DIGEST_BODY of an answer too long to send
RAISED = ord("X")  # encoded (type, message, line) of an exception
UNCOMPILABLE = ord("C")  # the same, for a program that does not compile
SLOW = ord(
    "W"
)  # empty: this test used more CPU time than its limit; the supervisor says whether it is too late
FILE = ord("F")  # LENGTH number of a file asked for, then its bytes: only where a program is run, not judged
FINISHED = ord("Z")  # every test was answered; the payload has CPU seconds a test (float64) if asked for

DIGEST_BODY = struct.Struct("<Q32s")  # length, sha256
DIGEST_ABOVE = 32 * 1024  # bytes of the encoding
# What is hashed can be shorter than the encoding: at most by five for lists of empty tuples.
LEAST_DIGEST = DIGEST_ABOVE // 8

# Descriptors of a sample process.
ANSWER_FD, PAYLOAD_FD, FROM_PEER_FD, TO_PEER_FD = 3, 4, 5, 6

CELL_USER = 65534
SCRATCH = "/tmp"  # noqa: S108 - inside the cell
SITE_PACKAGES = "/python/site-packages"


def frame(kind: int, payload: bytes) -> bytes:
    """Return a whole frame."""
    return HEADER.pack(len(payload), kind) + payload


def json(facts: dict[str, object]) -> bytes:
    """Return numbers, truth values and plain words as a JSON object, without the module: it would be in every cell."""
    texts = {
        name: f'"{value}"' if isinstance(value, str) else str(value).lower() for name, value in facts.items()
    }
    return ("{" + ", ".join(f'"{name}": {text}' for name, text in texts.items()) + "}").encode()


class Writer:
    """Frames on their way to a descriptor, which is written to as seldom as may be."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, kind: int, *pieces: bytes) -> None:
        """Add a frame whose payload is in pieces; writes if much has gathered."""
        size = sum(map(len, pieces))
        self._pieces += (HEADER.pack(size, kind), *pieces)
        self._size += size
        if self._size >= _GATHERED:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered; blocks while the reader is busy."""
        if not self._pieces:
            return
        data = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        written = os.write(self._handle, data)
        while written < len(data):
            data = data[written:]
            written = os.write(self._handle, data)


def send(handle: int, kind: int, payload: bytes) -> None:
    """Write a frame whole; blocks while the reader is busy."""
    data = memoryview(frame(kind, payload))
    while data:
        data = data[os.write(handle, data) :]
