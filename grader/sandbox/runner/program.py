"""Load the program under test, and say what it raised."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

from . import wire
from .encoding import encode

FILE_NAME = "<program>"
_MESSAGE_CHARACTERS = 300
_OUT_OF_MEMORY = encode(("MemoryError", "", 0))


class Unusable(Exception):
    """The program did not compile or load; what it raised has been reported."""


def load(source: str, name: str, *, answers: int = wire.ANSWER_FD) -> dict[str, Any]:
    """Compile and run the program's top level in a new module; returns its namespace.

    Raises Unusable after reporting why on ``answers``.
    """
    module = types.ModuleType(name)
    sys.modules[name] = module  # dataclasses and pickle look it up
    try:
        code = compile(source, FILE_NAME, "exec", dont_inherit=True)
    except BaseException as error:
        send(answers, wire.UNCOMPILABLE, describe(error))
        raise Unusable from None
    try:
        exec(code, module.__dict__)  # noqa: S102
    except BaseException as error:
        send(answers, wire.RAISED, describe(error))
        raise Unusable from None
    return module.__dict__


def describe(error: BaseException) -> bytes:
    """Encode (type, message, line of the program) of an exception, whatever its class does."""
    if type(error) is MemoryError:
        return _OUT_OF_MEMORY  # there may be none to say more
    return encode(facts(error))


def facts(error: BaseException) -> tuple[str, str, int]:
    """Return (type, message, line of the program) of an exception."""
    try:
        message = str(error)[:_MESSAGE_CHARACTERS]
        if type(message) is not str:
            message = ""
    except BaseException:
        message = ""
    return type(error).__name__[:100], message, _line_of(error)


def _line_of(error: BaseException) -> int:
    """The line of the program at which the exception passed last; 0 where it passed none."""
    if isinstance(error, SyntaxError) and error.filename == FILE_NAME and type(error.lineno) is int:
        return error.lineno
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE_NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def send(handle: int, kind: int, payload: bytes, write: Any = os.write) -> None:
    """Write one frame of an answer stream."""
    data = memoryview(wire.HEADER.pack(len(payload), kind) + payload)
    while data:
        data = data[write(handle, data) :]


def flush_output() -> None:
    """Push out what the program printed; it may have broken its own streams."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - a with block would cost every sample more than the rest of this
            stream.flush()
        except BaseException:  # noqa: S110
            pass
