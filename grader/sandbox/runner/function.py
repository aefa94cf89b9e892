"""Function tests: call the entry point on each input and write each answer before the next call."""

from __future__ import annotations

import fcntl
import marshal
import os
import struct
import time
from collections.abc import Callable
from typing import Any

from . import wire
from .encoding import digest, digest_of_encoded, encode, has_iterators
from .program import Unusable, describe, flush_output, load, send

_LONG = 2000  # items
_FIONREAD = 0x541B  # ioctl_tty(2): how many bytes can be read


def run(payload: dict[str, Any]) -> int:
    """Answer every test of the payload; returns the exit status."""
    try:
        namespace = load(payload["source"], "solution")
    except Unusable:
        flush_output()
        return 1
    try:
        entry_point = _find(namespace, payload["entry_point"])
    except BaseException as error:
        send(wire.ANSWER_FD, wire.RAISED, describe(error))
        flush_output()
        return 1
    send(wire.ANSWER_FD, wire.LOADED, b"")
    answer_all(entry_point, payload)
    flush_output()
    return 0


def _find(namespace: dict[str, Any], name: str) -> Callable[..., object]:
    """The function of that name. ``Solution.name`` is a method of one object of that class for all tests or, where
    there is no such class, the function ``name``: the graders of APPS and LiveCodeBench take both.
    """
    owner, _, last = name.rpartition(".")
    found = getattr(namespace[owner](), last, None) if owner in namespace else namespace.get(last)
    if found is None:
        raise NameError(f"name {name!r} is not defined")
    function: Callable[..., object] = found
    return function


def answer_all(
    entry_point: Callable[..., object],
    payload: dict[str, Any],
    # Bound here, so that a program that patches os or marshal for its own reasons does not patch us.
    loads: Callable[[Any], Any] = marshal.loads,
    clock: Callable[[], float] = time.process_time,
    write: Callable[[int, Any], int] = os.write,
    unpack: Callable[..., tuple[Any, ...]] = wire.LENGTH.unpack_from,
    header: Callable[..., bytes] = wire.HEADER.pack,
) -> None:
    """Call the entry point on each input (uint32 length, marshalled list of arguments; one after the other).

    The supervisor holds the limits from outside, whatever a program does here; but it may look late when the machine is
    busy, and an honest program's verdict must not depend on that. So a test that used more CPU time than its limit
    waits until the supervisor has looked, which ends the process if that was too much.
    """
    view, position = memoryview(payload["inputs"]), 0
    end, index = len(view), -1
    longest = 1 << 62 if payload["full"] else wire.DIGEST_ABOVE
    limit_s, own_limits_s, stop_at_error = payload["test_s"], payload["tests_s"], payload["stop_at_error"]
    times: list[float] | None = [] if payload["timing"] else None
    began = clock()
    while position < end:
        size = unpack(view, position)[0]
        index += 1
        try:
            result = entry_point(*loads(view[position + 4 : position + 4 + size]))
            kind, answer = encode_bounded(result, longest)
        except BaseException as error:
            kind, answer = wire.RAISED, describe(error)
        result = None
        position += 4 + size
        now = clock()
        if now - began > own_limits_s.get(index, limit_s):
            wait_until_read()
            write(wire.ANSWER_FD, header(0, wire.SLOW))
            wait_until_read()
            now = clock()
        frame = header(len(answer), kind) + answer
        written = write(3, frame)
        while written < len(frame):
            written += write(3, frame[written:])
        if kind == wire.RAISED and stop_at_error:
            return
        if times is not None:
            times.append(now - began)
        began = now
    send(wire.ANSWER_FD, wire.FINISHED, struct.pack(f"<{len(times)}d", *times) if times else b"", write)


def wait_until_read(
    waiting: Callable[..., Any] = fcntl.ioctl,
    sleep: Callable[[float], None] = time.sleep,
    nothing: bytes = bytes(4),
) -> None:
    """Wait until the supervisor has read all that was written: what is written next comes to it alone, at once."""
    while waiting(wire.ANSWER_FD, _FIONREAD, nothing) != nothing:
        sleep(0.001)


def encode_bounded(value: object, limit: int) -> tuple[int, bytes]:
    """Return the frame kind and payload of an answer: its encoding, or where that is longer than ``limit`` its
    digest. A long list is hashed piece by piece: its encoding may need more memory than a sample has."""
    if (type(value) is list or type(value) is tuple) and len(value) > _LONG:
        found = digest(value)
        if found is None:
            return wire.VALUE, encode(object())
        if found[0] > limit:
            return wire.DIGEST, wire.DIGEST_BODY.pack(*found)
    encoded = encode(value)
    if len(encoded) <= limit:
        return wire.VALUE, encoded
    is_sequence = type(value) is list or type(value) is tuple
    found = digest(value) if is_sequence and not has_iterators(encoded) else digest_of_encoded(encoded)
    return (wire.VALUE, encode(object())) if found is None else (wire.DIGEST, wire.DIGEST_BODY.pack(*found))
