"""The candidate's side of assertion tests: answers the driver's calls, with data only.

A call is a marshalled tuple: (name or handle of what to call, arguments, keyword arguments). Objects of the
program's own classes do not travel; the driver gets a handle, and may call, pass on or read attributes of it.
"""

from __future__ import annotations

import marshal
import os
from typing import Any

from . import wire
from .encoding import encode
from .program import Unusable, describe, flush_output, load, send

HANDLE_KEY = "\x00handle"
_ATTRIBUTE = "\x00attribute"


def run(payload: dict[str, Any]) -> int:
    """Load the program, then serve calls until the driver hangs up."""
    try:
        namespace = load(payload["source"], "solution")
    except Unusable:
        flush_output()
        return 1
    send(wire.ANSWER_FD, wire.LOADED, b"")
    serve(namespace)
    flush_output()
    return 0


def serve(namespace: dict[str, Any]) -> None:
    """Answer each call with a VALUE or RAISED frame."""
    objects: list[object] = []
    while (request := read_frame(wire.FROM_PEER_FD)) is not None:
        target, arguments, keywords = marshal.loads(request)  # noqa: S302 - from the driver
        try:
            arguments = _with_objects(arguments, objects)
            keywords = {name: _with_objects(value, objects) for name, value in keywords.items()}
            if target == _ATTRIBUTE:
                result = getattr(*arguments)
            else:
                function = objects[target] if isinstance(target, int) else namespace[target]
                result = function(*arguments, **keywords)
            answer = encode(result)
            if b"opaque" in answer:
                objects.append(result)
                answer = encode({HANDLE_KEY: len(objects) - 1}) if answer[:1] == b"Q" else answer
        except BaseException as error:
            send(wire.ANSWER_FD, wire.RAISED, describe(error))
        else:
            send(wire.ANSWER_FD, wire.VALUE, answer)


def _with_objects(value: Any, objects: list[object]) -> Any:
    """Put the program's own objects where the driver sent handles."""
    if type(value) is dict:
        if len(value) == 1 and HANDLE_KEY in value:
            return objects[value[HANDLE_KEY]]
        return {key: _with_objects(item, objects) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_with_objects(item, objects) for item in value)
    return value


def read_frame(handle: int) -> bytes | None:
    """Read a length-framed message; None at the end of the stream."""
    head = _read_exactly(handle, wire.LENGTH.size)
    return _read_exactly(handle, wire.LENGTH.unpack(head)[0]) if head else None


def _read_exactly(handle: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = os.read(handle, size - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)
