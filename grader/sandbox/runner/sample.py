"""The sample process: shuts the last doors behind itself, then runs the program and writes each answer at once.

Everything from ``main`` on happens after the clone. The names that are used after untrusted code has run are bound
before, not for safety (a program can only spoil its own answers) but so that honest patches do not break us.
"""

from __future__ import annotations

import marshal
import os
import random
import resource
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from . import candidate, container, driver, function, kernel, landlock, uids, whole_program, wire

if TYPE_CHECKING:
    from .supervisor import Config

_STACK_BYTES = 64 << 20
_MODES = {
    "function": function.run,
    "program": whole_program.run,
    "candidate": candidate.run,
    "driver": driver.run,
}


def main(handles: list[int], proc: int, config: Config, user: int) -> NoReturn:
    """Confine this process and run its payload. ``handles`` become descriptors 0, 1, 2 and so on. ``user`` is whom to
    become where samples are parted by user ids, else 0."""
    status = 70
    try:
        os.setsid()  # kill(0) reaches a process group, whatever the namespace: ours has the supervisor in it
        payload = _read_payload(handles[wire.PAYLOAD_FD])
        _confine_files(proc, payload["limits"]["tmp_bytes"], user)
        _place(handles)
        os.close(wire.PAYLOAD_FD)  # it has been read, and is no business of the program's
        _limit(payload["limits"])
        kernel.drop_bounding_capabilities()  # a new user namespace has them all again
        kernel.drop_capabilities()
        if config.landlock:
            # Where nothing could be covered, Landlock alone keeps what the engine mounted from being read.
            landlock.restrict(config.landlock, wire.SCRATCH, landlock.INTERPRETER if user else ("/",))
        kernel.install_seccomp_filter(config.seccomp)
        os.write(wire.ANSWER_FD, wire.frame(wire.STARTED, b""))
        status = _run(payload)
    except BaseException:
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _confine_files(proc: int, tmp_bytes: int, user: int) -> None:
    if user:
        kernel.write_at(proc, "self/oom_score_adj", "1000")
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
        uids.become(user)
        os.chdir(wire.SCRATCH)
        return
    if proc == container.NO_PROC:
        os.chdir(wire.SCRATCH)  # the cell's own, which the supervisor empties after every run
        return
    kernel.map_user(proc, wire.CELL_USER, wire.CELL_USER, wire.CELL_USER)
    kernel.write_at(proc, "self/oom_score_adj", "1000")
    options = f"size={tmp_bytes},nr_inodes=4096,mode=700"
    kernel.mount("tmp", wire.SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, options)
    os.chdir(wire.SCRATCH)
    resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))  # message queues are files too; gVisor has none


def _place(handles: list[int]) -> None:
    """Put the descriptors where the program expects them and close everything else."""
    spare = [os.dup2(handle, 100 + index, inheritable=False) for index, handle in enumerate(handles)]
    for index, handle in enumerate(spare):
        os.dup2(handle, index)
    kernel.close_from(len(handles))


def _read_payload(handle: int) -> dict[str, Any]:
    data = os.pread(handle, os.fstat(handle).st_size, 0)
    payload: dict[str, Any] = marshal.loads(data)  # noqa: S302 - from the worker
    return payload


def _limit(limits: dict[str, int]) -> None:
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_NPROC, limits["threads"]),
        (resource.RLIMIT_FSIZE, limits["tmp_bytes"]),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(name, (value, value))
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = _STACK_BYTES if hard == resource.RLIM_INFINITY else min(hard, _STACK_BYTES)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, stack))
    if limits["address_space"]:
        space = limits["address_space"]
        resource.setrlimit(resource.RLIMIT_AS, (space, space))


def _run(payload: dict[str, Any]) -> int:
    random.seed(0)  # every sample begins with the same state: the verdict must not depend on it
    sys.argv = ["program.py"]
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    return _MODES[payload["mode"]](payload)
