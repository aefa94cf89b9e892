"""A wall clock that a test sets for the processes that it starts, and for those that they start.

libfaketime would be the tool for it, but its version 0.9.10 makes Python's ``time.sleep`` fail: it takes the time until
which ``clock_nanosleep`` sleeps for one of the clock that it changes, although that is the monotonic clock.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOUR_S = 3600
_SOURCE = Path(__file__).with_name("settable_clock.c")
_OFFSET = struct.Struct("=q")


class SettableClock:
    """``environment`` is what a process has to be started with. Cells are made without it, and have the true time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "offset"
        self._file.write_bytes(_OFFSET.pack(0))
        library = folder / "settable_clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "SETTABLE_CLOCK": str(self._file)}

    def set(self, offset_s: int) -> None:
        """Set the clock so many seconds off the true time, at this moment and everywhere."""
        with self._file.open("r+b") as file:
            file.write(_OFFSET.pack(offset_s))


@contextmanager
def settable_clock() -> Iterator[SettableClock]:
    """Make a clock; where there is no compiler, the test is skipped, but in CI it fails."""
    if shutil.which("cc") is None:
        reason = "needs a C compiler: install the packages gcc and libc6-dev"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    # Not in the folder of pytest, which other users, such as PostgreSQL's, cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="grader-clock-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        yield SettableClock(folder)
    finally:
        shutil.rmtree(folder)
