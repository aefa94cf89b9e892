"""Hold a sample's answer stream against the expected one, as it comes.

While the bytes are equal nothing is parsed: one comparison of memory a piece. From the first difference on, frame
by frame. Pure logic: bytes in, decisions out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from grader.sandbox.runner import wire
from grader.sandbox.runner.decoding import DecodeError, decode
from grader.sandbox.runner.driver import TESTS_BROKEN

_MAX_FRAME = 2 * wire.DIGEST_ABOVE  # our own encoder sends no longer one: it sends a digest


class Finding(StrEnum):
    """What was found of one test, where it is not simply right."""

    WRONG = "wrong"
    RAISED = "raised"
    TIMED_OUT = "timed out"
    UNDECIDED = "undecided"  # a long answer whose digest differs: the answer itself must be looked at


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception that the program ended with: type, message, line of the program (0: unknown)."""

    type: str
    message: str
    line: int


class ExpectedBytes(Protocol):
    """A stretch of bytes, in memory or mapped from a file."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> bytes: ...


@dataclass(slots=True)
class Expected:
    """An expected answer stream: LOADED, one frame a test, FINISHED; ``offsets`` has where each test's frame
    begins, and last where FINISHED does."""

    data: ExpectedBytes
    offsets: Sequence[int]

    @property
    def tests(self) -> int:
        """How many tests there are."""
        return len(self.offsets) - 1

    def frame(self, test: int) -> bytes:
        """Return the frame of one test, header and all."""
        return self.data[self.offsets[test] : self.offsets[test + 1]]


@dataclass(slots=True)
class AnswerStream:
    """Judge of one run. ``matches(test, payload)`` decides where an answer's bytes differ from the expected ones;
    it is given the encoded answer and may raise DecodeError. ``from_driver``: a driver of assertion tests sends it, and
    may say that the tests themselves cannot be used: ``broken_tests``."""

    expected: Expected
    matches: Callable[[int, bytes], bool]
    fail_fast: bool
    from_driver: bool = False
    broken_tests: Raised | None = None
    findings: dict[int, Finding] = field(default_factory=dict)
    raised: dict[int, Raised] = field(default_factory=dict)
    long_answers: dict[int, int] = field(default_factory=dict)  # bytes, of those sent as a digest
    load_error: Raised | None = None
    compiled: bool = True
    violation: str | None = None
    _stopped: bool = False
    _aligned: bool = True
    _position: int = 0
    _pending: bytearray = field(default_factory=bytearray)
    _next: int = -1  # the frame that is awaited: -1 is LOADED, then a test's index

    @property
    def answered(self) -> int:
        """How many tests have a whole answer."""
        if self._aligned:
            return max(0, bisect_right(self.expected.offsets, self._position) - 1)
        return min(max(0, self._next), self.expected.tests)

    @property
    def loaded(self) -> bool:
        """Whether the program's top level has run."""
        return self._next >= 0 or (self._aligned and self._position >= wire.HEADER.size)

    def feed(self, data: bytes) -> bool:
        """Take a piece of the stream; returns True when the run should be stopped.

        What comes after that is not looked at: how much it is depends on how fast the process is killed.
        """
        if self._stopped:
            return True
        if self._aligned:
            end = self._position + len(data)
            if end <= len(self.expected.data) and self.expected.data[self._position : end] == data:
                self._position = end
                return False
            self._part_from_expected()
        self._pending += data
        self._stopped = self._parse()
        return self._stopped

    def _part_from_expected(self) -> None:
        self._aligned = False
        offsets = self.expected.offsets
        self._next = bisect_right(offsets, self._position) - 1
        begin = offsets[self._next] if self._next >= 0 else 0
        self._pending += self.expected.data[begin : self._position]

    def _parse(self) -> bool:
        pending, position, stop = self._pending, 0, False
        while not stop and position + wire.HEADER.size <= len(pending):
            length, kind = wire.HEADER.unpack_from(pending, position)
            if length > _MAX_FRAME:
                return self._violate(f"a frame of {length} bytes")
            end = position + wire.HEADER.size + length
            if end > len(pending):
                break
            stop = self._take(kind, bytes(pending[position:end]))
            position = end
        del pending[:position]
        return stop

    def _take(self, kind: int, frame: bytes) -> bool:
        payload = frame[wire.HEADER.size :]
        if self._next < 0:
            return self._take_first(kind, payload)
        test = self._next
        if test >= self.expected.tests:
            self._next += 1
            return (kind != wire.FINISHED or test > self.expected.tests) and self._violate(
                "more answers than tests"
            )
        if frame != self.expected.frame(test):
            finding = self._judge(test, kind, payload)
            if finding is not None:
                self.findings[test] = finding
        if self.violation:
            return True
        self._next += 1
        return self.fail_fast and self.findings.get(test, Finding.UNDECIDED) is not Finding.UNDECIDED

    def _take_first(self, kind: int, payload: bytes) -> bool:
        if kind == wire.LOADED:
            self._next = 0
            return False
        if kind == TESTS_BROKEN and self.from_driver:
            self.broken_tests = read_raised(payload)
            return True
        if kind not in (wire.UNCOMPILABLE, wire.RAISED):
            return self._violate(f"a first frame of kind {kind}")
        self.load_error = read_raised(payload)
        self.compiled = kind != wire.UNCOMPILABLE
        return True

    def _judge(self, test: int, kind: int, payload: bytes) -> Finding | None:
        if kind == wire.RAISED:
            self.raised[test] = read_raised(payload)
            return Finding.RAISED
        if kind not in (wire.VALUE, wire.DIGEST):
            self._violate(f"a frame of kind {kind}")
            return None
        expected_kind = self.expected.frame(test)[wire.HEADER.size - 1]
        if kind == wire.DIGEST or expected_kind == wire.DIGEST:
            if kind == wire.DIGEST:
                if len(payload) != wire.DIGEST_BODY.size:
                    self._violate("a digest of the wrong size")
                    return None
                length = self.long_answers[test] = wire.DIGEST_BODY.unpack(payload)[0]
                if length < wire.LEAST_DIGEST:  # each one costs two more runs
                    self._violate(f"a digest of {length} bytes")
                    return None
            return Finding.UNDECIDED
        try:
            return None if self.matches(test, payload) else Finding.WRONG
        except DecodeError:
            return Finding.WRONG

    def _violate(self, what: str) -> bool:
        self.violation = f"wrote to the answer channel: {what}"
        return True


def read_raised(payload: bytes) -> Raised:
    """Decode what a sample says of an exception; whatever it sent, the result is short plain text."""
    try:
        value = decode(payload, max_values=16)
    except DecodeError:
        value = None
    kinds = [str, str, int]
    if type(value) is not tuple or [type(item) for item in value] != kinds:
        return Raised("UnknownError", "", 0)
    name, message, line = value
    return Raised(_printable(name, 100), _printable(message, 300), line if 0 < line < 10_000_000 else 0)


def _printable(text: str, length: int) -> str:
    """Cut, and without control characters or lone surrogates: it goes into terminals, logs and JSON."""
    kept = (char if char.isprintable() or char == "\n" else "?" for char in text[:length])
    return "".join(kept).encode("utf-8", "replace").decode()
