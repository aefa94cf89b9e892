"""When containers are started: not too many at once on a machine, and again after the daemon has been restarted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from grader.errors import SandboxError
from grader.sandbox import docker_engine
from grader.sandbox.cell import Cell

_TRY_AGAIN_S = 0.5
_LOOK_S = 0.02


def at_once() -> int:
    """How many containers this machine's workers start at the same time: a start is work for a processor."""
    return max(2, os.cpu_count() or 1)


def patiently(make: Callable[[], Cell], starts: Path | None, patience_s: float) -> Cell:
    """Return what ``make`` makes; waits for up to ``patience_s`` seconds for a daemon that is being restarted.

    ``starts`` is a folder that the workers of this machine share, to start no more than ``at_once`` containers
    together. Raises DaemonAwayError when the daemon does not come back, SandboxError for every other reason at once.
    """
    deadline = time.monotonic() + patience_s
    tries_left = (
        2 if patience_s else 1
    )  # a daemon that shuts down refuses for many reasons, before it goes away
    while True:
        # Nobody waits for the daemon with a slot in hand, or those behind would have to be patient one after the other.
        docker_engine.connect(max(0.0, deadline - time.monotonic())).close()
        try:
            with _slot(starts):
                return make()
        except docker_engine.DaemonAwayError:
            if time.monotonic() >= deadline:
                raise
        except SandboxError:
            tries_left -= 1
            if not tries_left:
                raise
        time.sleep(_TRY_AGAIN_S)


@contextmanager
def _slot(starts: Path | None) -> Iterator[None]:
    """Hold one of the machine's slots. The kernel gives back that of a process that dies."""
    if starts is None:
        yield
        return
    starts.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context((starts / str(number)).open("a")) for number in range(at_once())]
        while not any(_lock(file.fileno()) for file in files):
            time.sleep(_LOOK_S)
        yield


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
