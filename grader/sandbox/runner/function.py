"""Function tests: call the entry point on each input and write each answer before the next call."""

from __future__ import annotations

import marshal
import os
import time
from array import array
from collections.abc import Callable
from typing import Any

from . import wire
from .encoding import digest, encode
from .program import Unusable, describe, flush_output, load, send

_LONG = 2000  # items


def run(payload: dict[str, Any]) -> int:
    """Answer every test of the payload; returns the exit status."""
    try:
        namespace = load(payload["source"], "solution")
    except Unusable:
        flush_output()
        return 1
    entry_point = namespace.get(payload["entry_point"])
    if entry_point is None:
        error = NameError(f"name {payload['entry_point']!r} is not defined")
        send(wire.ANSWER_FD, wire.RAISED, describe(error))
        flush_output()
        return 1
    send(wire.ANSWER_FD, wire.LOADED, b"")
    times = array("d") if payload["timing"] else None
    answer_all(
        entry_point, payload["inputs"], payload["tests"], payload["stop_at_error"], payload["full"], times
    )
    flush_output()
    return 0


def answer_all(
    entry_point: Callable[..., object],
    inputs: bytes,
    tests: tuple[int, ...] | None,
    stop_at_error: bool,
    full: bool,
    times: array[float] | None,
    # Bound here, so that a program that patches os or marshal for its own reasons does not patch us.
    loads: Callable[[Any], Any] = marshal.loads,
    clock: Callable[[], float] = time.process_time,
    write: Callable[[int, Any], int] = os.write,
    unpack: Callable[..., tuple[Any, ...]] = wire.LENGTH.unpack_from,
    header: Callable[..., bytes] = wire.HEADER.pack,
) -> None:
    """Call the entry point on each input (uint32 length, marshalled list of arguments; one after the other).

    ``tests`` picks some by index. ``full`` sends long answers whole instead of their digest. ``times``, if given,
    receives the CPU seconds of each call.
    """
    view = memoryview(inputs)
    position, end, index = 0, len(view), -1
    limit = 1 << 62 if full else wire.DIGEST_ABOVE
    while position < end:
        size = unpack(view, position)[0]
        position += 4
        index += 1
        if tests is not None and index not in tests:
            position += size
            continue
        arguments = loads(view[position : position + size])
        position += size
        began = clock() if times is not None else 0.0
        try:
            result = entry_point(*arguments)
            kind, answer = encode_bounded(result, limit)
            if times is not None:
                times.append(clock() - began)  # with the encoding, which a sample's limit covers too
        except BaseException as error:
            send(wire.ANSWER_FD, wire.RAISED, describe(error), write)
            if stop_at_error:
                return
            continue
        finally:
            result = arguments = None
        frame = header(len(answer), kind) + answer
        written = write(3, frame)
        while written < len(frame):
            written += write(3, frame[written:])
    final = times.tobytes() if times is not None else b""
    send(wire.ANSWER_FD, wire.FINISHED, final, write)


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
    found = digest(value)
    return (wire.VALUE, encode(object())) if found is None else (wire.DIGEST, wire.DIGEST_BODY.pack(*found))
