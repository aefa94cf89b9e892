"""The process that forks samples. It imports what programs import most, and never sees a program or an input.

``Handle`` is the supervisor's end. The two speak over a sequenced-packet socket: the supervisor sends the
descriptors of a new sample, the zygote answers with its process id, and later with what it used.
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import importlib
import os
import struct
import sys
from typing import TYPE_CHECKING, NoReturn

from . import container, forks, huge_pages, kernel, landlock, wire

if TYPE_CHECKING:
    from .confine import Confinement, Places
    from .supervisor import Config

CALLS = f"{__package__}.driver"
MODULES = {"numpy": "numpy.random", "library": f"{__package__}.library"}  # that a zygote of this name imports
_WAIT, _ANOTHER = b"W", b"A"
_FAILED = b"!"
_USAGE = struct.Struct("<qdq")
_SCM_RIGHTS = _socket.SCM_RIGHTS
_NAMESPACES = kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC

# A sample's descriptors come over the socket, and get the lowest numbers that are free: those that they are to have.
_MOST_HANDLES = 7
_SOCKET, _PROC, _NULL, _ERRORS, _READABLE = range(10, 15)

# What programs import most, so that a sample does not pay for it. Every other sample pays for what it does not use: a
# page costs it 0.2 µs, an extension module 5 µs. By that, what fewer than one in a hundred imports is left out.
_COMMON = (
    "abc", "bisect", "collections", "collections.abc", "functools", "heapq", "io", "itertools", "math", "operator",
    "random", "re", "string", "struct", "time", "typing",
)  # fmt: skip


def start(proc: int, config: Config) -> Handle:
    """Fork the first zygote from the supervisor."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    if os.fork() == 0:
        _become_zygote(theirs, proc, config)
    theirs.close()
    return Handle(ours, siblings=proc != container.NO_PROC)


def describe(config: Config, *, own_mounts: bool) -> bytes:
    """Return what the cell says of itself when it is ready, as JSON."""
    facts = {
        "python": sys.version.split()[0],
        "landlock": config.landlock,
        "seccomp": sum(map(len, config.seccomp)) // 8,
        "own_mounts": own_mounts,
    }
    return wire.json(facts)


class ZygoteDiedError(Exception):
    """A zygote is gone. No program can do that: zygotes are out of its sight, and last in line when memory is short."""


class Handle:
    """The supervisor's end of a zygote. ``siblings``: whether what it forks is a child of the supervisor; gVisor knows
    no such clone."""

    def __init__(self, socket: _socket.socket, *, siblings: bool) -> None:
        self._socket = socket
        self._siblings = siblings
        self.users: list[int] = []  # of the next run's processes, where they have users instead of namespaces

    def fork(self, payloads: tuple[bytes, ...], answers: int, stdout: int, stderr: int) -> list[int]:
        """Fork a process for each payload: the sample, and the driver that calls it if there is one.

        With a driver, the answers are the driver's, and the two have pipes between them.
        """
        # Anew: its flags are the sample's to change. Reading it fails, as in EvalPlus: function tests have no input.
        quiet = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
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
        return int(forks.PID.unpack(self._ask(forks.request(len(handles), user), handles))[0])

    def wait(self, pid: int) -> tuple[int, float, int]:
        """Wait for a process to be gone; returns (wait status, CPU seconds, peak bytes resident)."""
        return _waited(pid) if self._siblings else _USAGE.unpack(self._ask(_WAIT + forks.PID.pack(pid), []))

    def another(self, module: str) -> Handle:
        """Have this zygote fork one that has also imported ``module``."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            self._ask(_ANOTHER + module.encode(), [theirs.fileno()])
        finally:
            theirs.close()
        return Handle(ours, siblings=self._siblings)

    def close(self) -> None:
        """Have the zygote end."""
        self._socket.close()

    def _ask(self, message: bytes, handles: list[int]) -> bytes:
        rights = (
            [(_socket.SOL_SOCKET, _SCM_RIGHTS, struct.pack(f"{len(handles)}i", *handles))] if handles else []
        )
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


def _waited(pid: int) -> tuple[int, float, int]:
    _, status, usage = os.wait4(pid, 0)
    return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def _memory_file(data: bytes) -> int:
    handle = os.memfd_create("payload", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    return handle


def _become_zygote(socket: _socket.socket, proc: int, config: Config) -> NoReturn:
    """Fork samples for as long as the supervisor lives."""
    status = 1
    try:
        from . import confine  # what only a zygote needs

        kernel.die_with_parent()
        readable = _move_descriptors(socket, proc, landlock.INTERPRETER if config.users != (0, 0) else ("/",))
        sys.path[:] = [entry for entry in sys.path if entry != "/"]
        sys.path.append(config.site_packages)
        for name in _COMMON:
            importlib.import_module(name)
        kernel.install_seccomp_filter(config.seccomp[0])
        proc = proc if proc == container.NO_PROC else _PROC
        places = confine.Places(proc, _NULL, readable)
        requests = forks.Forks(_SOCKET, _MOST_HANDLES, 0 if config.users != (0, 0) else _NAMESPACES)
        status = _serve(requests, _prepared(places, config), _socket.socket(fileno=_SOCKET), proc)
    except BaseException:
        import traceback

        os.write(_ERRORS, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _move_descriptors(
    socket: _socket.socket, proc: int, readable: tuple[str, ...]
) -> tuple[landlock.Readable, ...]:
    """Give this process's own descriptors their numbers, and close all others; opens what samples may read."""
    own = {_SOCKET: socket.detach(), _NULL: os.open("/dev/null", os.O_RDWR), _ERRORS: 2}
    if proc != container.NO_PROC:
        own[_PROC] = proc
    own |= {_READABLE + number: os.open(path, os.O_PATH) for number, path in enumerate(readable)}
    last = max(own)
    beyond = max(last, *own.values()) + 1
    for number, handle in own.items():
        os.dup2(handle, beyond + number)
    for number in own:
        os.dup2(beyond + number, number, inheritable=False)
    os.closerange(last + 1, beyond + last + 1)
    _fill_descriptors()
    kinds = [os.path.isdir(path) for path in readable]  # noqa: PTH112 - pathlib costs 10 ms at each start
    return tuple(landlock.Readable(_READABLE + number, folder) for number, folder in enumerate(kinds))


def _fill_descriptors() -> None:
    """Put /dev/null where the samples' descriptors will be: what is imported may open and print."""
    for number in range(_SOCKET):
        os.dup2(_NULL, number)


def _prepared(places: Places, config: Config) -> dict[int, Confinement]:
    """Make ready what samples need, by the number of descriptors that they get."""
    from . import confine, rehearsal

    ways = {number: confine.Confinement(places, config, number) for number in range(5, _MOST_HANDLES + 1)}
    for way in ways.values():
        way.expect(*config.limits)
    rehearsal.rehearse()
    return ways


def _serve(requests: forks.Forks, ways: dict[int, Confinement], socket: _socket.socket, proc: int) -> int:
    from .sample import main

    os.closerange(0, _SOCKET)
    _settle(proc)
    while True:
        try:
            message = requests.serve(main, ways)
        except OSError as error:
            socket.send(_FAILED + str(error).encode())
        else:
            if not message:
                return 0
            if message[:1] == _WAIT:
                socket.send(forks.DONE + _USAGE.pack(*_waited(forks.PID.unpack_from(message, 1)[0])))
            elif message[:1] == _ANOTHER:
                _specialise(socket, message[1:].decode(), proc)
        os.closerange(0, _MOST_HANDLES)


def _settle(proc: int) -> None:
    """Make clones of this process cheap, now that it has imported all."""
    gc.collect()
    gc.freeze()  # what it shares with the zygote that it was cloned from is not looked at, or it would be copied
    if proc != container.NO_PROC:
        huge_pages.move_in(proc)


def _specialise(socket: _socket.socket, module: str, proc: int) -> None:
    """Clone a zygote that has ``module`` too, on the socket that is descriptor 0."""
    pid = kernel.clone_sibling()
    if pid != 0:
        socket.send(forks.DONE + forks.PID.pack(pid))
        return
    kernel.die_with_parent()
    os.dup2(0, _SOCKET, inheritable=False)
    _fill_descriptors()
    with contextlib.suppress(ImportError):  # the program will meet the same error when it imports it
        imported = importlib.import_module(module)
        if module == MODULES["numpy"]:
            imported.seed(0)  # as rehearsal does with the module random, and for the same reason
    os.closerange(0, _SOCKET)
    if module == CALLS:
        gc.freeze()  # it has hardly anything of its own
    else:
        _settle(proc)
