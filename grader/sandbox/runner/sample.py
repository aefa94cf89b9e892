"""The sample process: shuts the last doors behind itself, then runs the program and writes each answer at once.

Everything from ``main`` on happens after the clone. The names that are used after untrusted code has run are bound
before, not for safety (a program can only spoil its own answers) but so that honest patches do not break us.
"""

from __future__ import annotations

import marshal
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from . import function, whole_program, wire

if TYPE_CHECKING:
    from .confine import Confinement

_READ_BYTES = 1 << 16


def main(confinement: Confinement, user: int) -> NoReturn:
    """Confine this process and run its payload. ``user`` is whom to become where samples are parted by user ids."""
    status = 70
    try:
        data = os.pread(wire.PAYLOAD_FD, _READ_BYTES, 0)
        if len(data) == _READ_BYTES:
            data = os.pread(wire.PAYLOAD_FD, os.fstat(wire.PAYLOAD_FD).st_size, 0)
        payload: dict[str, Any] = marshal.loads(data)  # noqa: S302 - from the worker
        confinement.apply(payload["limits"], user)
        status = function.run(payload) if payload["mode"] == "function" else _run(payload)
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _run(payload: dict[str, Any]) -> int:
    if payload["mode"] == "program":
        return whole_program.run(payload)
    from . import candidate, driver  # a zygote for assertion tests has them already

    return candidate.run(payload) if payload["mode"] == "candidate" else driver.run(payload)


def open_streams() -> None:
    """Open what a program finds in ``sys``, on descriptors that are of the kind that it will get."""
    sys.argv = ["program.py"]
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
