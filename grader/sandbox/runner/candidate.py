"""The candidate's side of assertion tests: answers the driver's calls, with data only.

A call is an encoded tuple: (what to call, arguments, keyword arguments). What to call is a name of the program, the
number of an object that an earlier call returned, or GET_ATTRIBUTE or SET_ATTRIBUTE. Objects of the program's own
classes do not travel: the driver gets their number, and may call them, read attributes, and pass them on.
"""

from __future__ import annotations

import builtins
import os
from typing import Any

from . import wire
from .decoding import decode
from .encoding import encode
from .program import Unusable, facts, flush_output, load, send
from .raising import builtin_classes
from .revive import revive

# Keys of dicts that stand for something else; no test passes such strings as keys of its own.
OBJECT_NUMBER = "\x00object"
BUILTIN_TYPE = "\x00builtin type"
INSTANCE_OF = "\x00instance of"
INSTANCE_FIELDS = "\x00fields"
GET_ATTRIBUTE, SET_ATTRIBUTE = "\x00get", "\x00set"
_LONGEST_FRAME = 64 << 20
_OPAQUE = b"Q\x06opaque"
_OUT_OF_MEMORY = encode(("MemoryError", "", 0, builtin_classes(MemoryError())))


def run(payload: dict[str, Any]) -> int:
    """Load the program, then serve calls until the driver hangs up."""
    try:
        namespace = load(payload["source"], "solution")
    except Unusable:
        flush_output()
        return 1
    classes = [
        name for name, value in list(namespace.items()) if isinstance(value, type) and type(name) is str
    ]
    send(wire.ANSWER_FD, wire.LOADED, encode(classes))
    serve(namespace)
    flush_output()
    return 0


def serve(namespace: dict[str, Any]) -> None:
    """Answer each call with a VALUE or RAISED frame."""
    objects: list[object] = []
    while (request := read_frame(wire.FROM_PEER_FD)) is not None:
        call: Any = decode(request[1])
        try:
            target, arguments, keywords = _with_objects(revive(call), objects, namespace)
            if target == GET_ATTRIBUTE:
                result = getattr(*arguments)
            elif target == SET_ATTRIBUTE:
                result = None
                setattr(*arguments)
            else:
                function: Any = objects[target] if isinstance(target, int) else namespace[target]
                result = function(*arguments, **keywords)
            answer = encode(result)
            if answer.startswith(_OPAQUE):
                objects.append(result)
                answer = encode({OBJECT_NUMBER: len(objects) - 1})
        except BaseException as error:
            send(wire.ANSWER_FD, wire.RAISED, _described(error))
        else:
            send(wire.ANSWER_FD, wire.VALUE, answer)


def _described(error: BaseException) -> bytes:
    """Encode (type, message, line of the program, names of its built-in classes) of an exception."""
    if type(error) is MemoryError:
        return _OUT_OF_MEMORY  # there may be none to say more
    return encode((*facts(error), builtin_classes(error)))


def _with_objects(value: Any, objects: list[object], namespace: dict[str, Any]) -> Any:
    """Put the program's own objects where the driver sent their numbers, and instances where it sent fields."""
    if type(value) is dict:
        if OBJECT_NUMBER in value:
            return objects[value[OBJECT_NUMBER]]
        if BUILTIN_TYPE in value:
            return getattr(builtins, value[BUILTIN_TYPE])
        inside = {key: _with_objects(item, objects, namespace) for key, item in value.items()}
        return _instance(inside, namespace) if INSTANCE_OF in value else inside
    if type(value) in (list, tuple):
        return type(value)(_with_objects(item, objects, namespace) for item in value)
    return value


def _instance(value: dict[str, Any], namespace: dict[str, Any]) -> object:
    """An instance of the program's class of that name, or of an empty one, with the given fields."""
    name = value[INSTANCE_OF]
    known = namespace.get(name)
    kind: Any = known if isinstance(known, type) else type(name, (), {})
    instance = kind.__new__(kind)
    instance.__dict__.update(value[INSTANCE_FIELDS])
    return instance


def read_frame(handle: int) -> tuple[int, bytes] | None:
    """Read a frame: its kind and payload; None at the end of the stream, and at a frame that no honest peer sends."""
    head = _read_exactly(handle, wire.HEADER.size)
    if head is None:
        return None
    length, kind = wire.HEADER.unpack(head)
    if length > _LONGEST_FRAME:
        return None
    payload = _read_exactly(handle, length)
    return None if payload is None else (kind, payload)


def _read_exactly(handle: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = os.read(handle, min(size - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)
