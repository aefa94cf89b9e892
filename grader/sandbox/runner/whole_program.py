"""Whole programs: run as ``python program.py`` would, with the test's text on standard input."""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
import contextlib
import os
import sys
import types
from typing import Any

from . import wire
from .program import FILE_NAME, describe, flush_output, send

_print_exception = sys.__excepthook__


def run(payload: dict[str, Any]) -> int:
    """Run the program as ``__main__``; returns the exit status that the interpreter would give."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    _put_on_standard_input(payload["stdin"])
    sys.argv = [FILE_NAME, *payload.get("args", ())]
    _write_files(payload.get("files", {}))
    if payload.get("files"):
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as python does with the program's folder
    for name in ("exit", "quit"):  # what the module site adds: the cell's interpreter runs without it
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    try:
        code = compile(payload["source"], FILE_NAME, "exec", dont_inherit=True)
    except BaseException as error:
        send(wire.ANSWER_FD, wire.UNCOMPILABLE, describe(error))
        _print_traceback(error)
        flush_output()
        return 1
    status = 0
    try:
        exec(code, module.__dict__)  # noqa: S102
    except SystemExit as error:
        status = _exit_status(error.code)
    except BaseException as error:
        status = 1
        send(wire.ANSWER_FD, wire.RAISED, describe(error))
        _print_traceback(error)
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    flush_output()
    _send_files(payload.get("fetch", ()))
    return status


def _put_on_standard_input(text: bytes) -> None:
    """Give the program a file to read, which no folder shows: a pipe would need somebody to fill it."""
    name = f"{wire.SCRATCH}/.stdin"
    handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(name)  # noqa: PTH108 - pathlib is not imported in a cell
    view = memoryview(text)
    while view:
        view = view[os.write(handle, view) :]
    os.lseek(handle, 0, os.SEEK_SET)
    os.dup2(handle, 0)
    os.close(handle)


def _write_files(files: dict[str, bytes]) -> None:
    """Put files into the working folder, which is empty; the worker has checked that the paths stay in it."""
    for name, data in files.items():
        folder = os.path.dirname(name)  # noqa: PTH120 - pathlib is not imported in a cell
        if folder:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(data)


def _send_files(names: tuple[str, ...]) -> None:
    """Send the files that were asked for, as far as they are there."""
    for number, name in enumerate(names):
        with contextlib.suppress(OSError), open(name, "rb") as file:  # noqa: PTH123
            send(wire.ANSWER_FD, wire.FILE, wire.LENGTH.pack(number) + file.read())


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return int(code) & 0xFF
    print(code, file=sys.stderr)
    return 1


def _print_traceback(error: BaseException) -> None:
    """Have the interpreter print what it would, without the frames of this file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != FILE_NAME:
        trace = trace.tb_next
    facts = (type(error), error.with_traceback(trace), trace)
    try:
        sys.excepthook(*facts)
    except BaseException:  # the program's own
        with contextlib.suppress(BaseException):
            _print_exception(*facts)
