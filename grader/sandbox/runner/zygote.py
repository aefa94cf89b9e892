"""The process that forks samples. It imports what programs import most, and never sees a program or an input.

``Handle`` is the supervisor's end. The two speak over a sequenced-packet socket: the supervisor sends the
descriptors of a new sample, the zygote answers with its process id, and later with what it used.
"""

from __future__ import annotations

import _socket
import array
import contextlib
import gc
import importlib
import json
import os
import struct
import sys
from typing import TYPE_CHECKING, NoReturn

from . import container, kernel

if TYPE_CHECKING:
    from .supervisor import Config

_FORK, _WAIT, _ANOTHER = b"F", b"W", b"A"
_OK, _FAILED = b"+", b"!"
_PID = struct.Struct("<q")
_USAGE = struct.Struct("<qdq")
_SCM_RIGHTS = _socket.SCM_RIGHTS

# What programs import most, so that a sample pays for none of it.
_COMMON = (
    "abc", "bisect", "cmath", "collections", "collections.abc", "copy", "datetime", "decimal", "fractions", "functools",
    "hashlib", "heapq", "io", "itertools", "json", "math", "operator", "random", "re", "statistics", "string", "struct",
    "time", "typing",
)  # fmt: skip


def start(proc: int, config: Config) -> Handle:
    """Fork the first zygote from the supervisor."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    if os.fork() == 0:
        ours.close()
        _serve(theirs, proc, config)
    theirs.close()
    return Handle(ours)


def describe(config: Config, *, own_mounts: bool) -> bytes:
    """Return what the cell says of itself when it is ready, as JSON."""
    facts = {
        "python": sys.version.split()[0],
        "landlock": config.landlock,
        "seccomp": len(config.seccomp) // 8,
        "own_mounts": own_mounts,
    }
    return json.dumps(facts).encode()


class ZygoteDiedError(Exception):
    """A zygote is gone. No program can do that: zygotes are out of its sight, and last in line when memory is short."""


class Handle:
    """The supervisor's end of a zygote."""

    def __init__(self, socket: _socket.socket) -> None:
        self._socket = socket
        self.users: list[int] = []  # of the next run's processes, where they have users instead of namespaces

    def fork(self, payloads: tuple[bytes, ...], answers: int, stdout: int, stderr: int) -> list[int]:
        """Fork a process for each payload: the sample, and the driver that calls it if there is one.

        With a driver, the answers are the driver's, and the two have pipes between them.
        """
        quiet = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        opened = [quiet]
        try:
            files = [_memory_file(payload) for payload in payloads]
            opened += files
            if len(payloads) == 1:
                return [self._fork_one([quiet, stdout, stderr, answers, files[0]], 0)]
            to_driver, to_candidate = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
            opened += [*to_driver, *to_candidate]
            candidate = self._fork_one([quiet, stdout, stderr, to_driver[1], files[0], to_candidate[0]], 0)
            driver = self._fork_one(
                [quiet, quiet, quiet, answers, files[1], to_driver[0], to_candidate[1]], 1
            )
            return [candidate, driver]
        finally:
            for handle in opened:
                os.close(handle)

    def _fork_one(self, handles: list[int], process: int) -> int:
        user = self.users[process] if self.users else 0
        return int(_PID.unpack(self._ask(_FORK + _PID.pack(user), handles))[0])

    def wait(self, pid: int) -> tuple[int, float, int]:
        """Wait for a process to be gone; returns (wait status, CPU seconds, peak bytes resident)."""
        return _USAGE.unpack(self._ask(_WAIT + _PID.pack(pid), []))

    def another(self, module: str) -> Handle:
        """Have this zygote fork one that has also imported ``module``."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            self._ask(_ANOTHER + module.encode(), [theirs.fileno()])
        finally:
            theirs.close()
        return Handle(ours)

    def close(self) -> None:
        """Have the zygote end."""
        self._socket.close()

    def _ask(self, message: bytes, handles: list[int]) -> bytes:
        rights = [(_socket.SOL_SOCKET, _SCM_RIGHTS, array.array("i", handles))] if handles else []
        try:
            self._socket.sendmsg([message], rights)
            answer = self._socket.recv(4096)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        if not answer:
            raise ZygoteDiedError("a zygote of this cell has died")
        if answer[:1] == _FAILED:
            raise RuntimeError(answer[1:].decode())
        return answer[1:]


def _memory_file(data: bytes) -> int:
    handle = os.memfd_create("payload", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    return handle


def _serve(socket: _socket.socket, proc: int, config: Config) -> NoReturn:
    """Fork samples for as long as the supervisor lives."""
    kernel.die_with_parent()
    if proc != container.NO_PROC:
        os.set_inheritable(proc, False)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    os.close(null)
    sys.path[:] = [entry for entry in sys.path if entry != "/"]
    sys.path.append(config.site_packages)
    for name in _COMMON:
        importlib.import_module(name)
    from . import sample  # after the imports: what it binds must be there

    gc.collect()
    gc.freeze()
    while True:
        message, rights, _, _ = socket.recvmsg(4096, _socket.CMSG_SPACE(8 * 4))
        if not message:
            _end()
        handles = array.array("i", rights[0][2]) if rights else array.array("i")
        if message.startswith(_FORK):
            _fork(socket, proc, config, list(handles), sample.main, _PID.unpack(message[1:])[0])
        elif message.startswith(_WAIT):
            _, status, usage = os.wait4(_PID.unpack(message[1:])[0], 0)
            used = usage.ru_utime + usage.ru_stime
            socket.send(_OK + _USAGE.pack(status, used, usage.ru_maxrss * 1024))
        elif message.startswith(_ANOTHER):
            socket = _specialise(socket, handles[0], message[1:].decode())


def _end() -> NoReturn:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    os._exit(0)


def _fork(
    socket: _socket.socket, proc: int, config: Config, handles: list[int], main: object, user: int
) -> None:
    namespaces = kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC
    namespaces = 0 if user else namespaces
    try:
        pid = kernel.clone(namespaces)
    except OSError as error:
        socket.send(_FAILED + str(error).encode())
        return
    if pid == 0:
        main(handles, proc, config, user)  # type: ignore[operator]
    for handle in handles:
        os.close(handle)
    socket.send(_OK + _PID.pack(pid))


def _specialise(socket: _socket.socket, theirs: int, module: str) -> _socket.socket:
    """Fork a zygote that has ``module`` too; in it, returns its own socket."""
    pid = os.fork()
    if pid != 0:
        os.close(theirs)
        socket.send(_OK + _PID.pack(pid))
        return socket
    kernel.die_with_parent()
    socket.close()
    gc.unfreeze()
    with contextlib.suppress(ImportError):  # the program will meet the same error when it imports it
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    return _socket.socket(fileno=theirs)
