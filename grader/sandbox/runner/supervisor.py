"""Process 1 of a cell: takes runs from the worker, has the zygote fork their processes, watches and kills them.

It sees programs and inputs only as bytes to pass on, and answers only as lengths to count. It holds no capability.
"""

from __future__ import annotations

import marshal
import os
import select
from collections import deque
from typing import Any, NamedTuple

from . import container, landlock, scratch, uids, wire, zygote
from .host_clock import HostClock
from .run import Limits, Run

ASK_KERNEL = -1
_PIPE_CHUNK = 1 << 18


class Config(NamedTuple):
    """What every sample of this cell gets; set once, before any program is seen.

    ``landlock`` is the version of the kernel's interface to use: 0 for none, ASK_KERNEL for what it has. ``users`` are
    the first of the user ids for samples and their number, where samples are parted by them.
    """

    seccomp: bytes
    landlock: int
    site_packages: str
    users: tuple[int, int] = (0, 0)


class Request(NamedTuple):
    """One run: a sample process, or a candidate and the driver that calls it."""

    run: int
    zygote: str
    limits: tuple[Any, ...]
    group_sizes: tuple[int, ...]
    whole_program: bool
    payloads: tuple[bytes, ...]


class Supervisor:
    """One run at a time; the next ones wait here, so that no time is lost between two."""

    def __init__(self, proc: int, *, by_user: bool) -> None:
        self._proc = proc
        self._by_user = by_user
        self._users: uids.Users | None = None
        self._own_mounts = proc != container.NO_PROC and not by_user
        self._incoming = bytearray()
        self._waiting: deque[Request] = deque()
        self._current: Run | None = None
        self._clock: HostClock | None = None
        self._zygotes: dict[str, zygote.Handle] = {}
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)

    def serve(self) -> None:
        """Work until the worker closes our standard input."""
        while self._receive():
            while True:
                if self._current is None and self._waiting:
                    self._start(self._waiting.popleft())
                if self._current is None:
                    break
                self._step(self._current)
                if not self._pending_input(0):
                    continue
                if not self._receive():
                    return  # with a run going on: our end, as process 1, ends it too
        self._end_zygotes()

    def _end_zygotes(self) -> None:
        """Let the zygotes end by themselves, so that the CPU time of all samples is counted to this process."""
        for handle in self._zygotes.values():
            handle.close()
        os.wait()

    def _step(self, run: Run) -> None:
        events = dict(self._poll.poll(run.next_wake_ms()))
        run.advance(events)
        if run.over:
            self._finish(run)

    def _pending_input(self, timeout_ms: int) -> bool:
        return any(fd == 0 for fd, _ in self._poll.poll(timeout_ms))

    def _receive(self) -> bool:
        data = os.read(0, _PIPE_CHUNK)
        self._incoming += data
        while len(self._incoming) >= wire.HEADER.size:
            length, kind = wire.HEADER.unpack_from(self._incoming)
            end = wire.HEADER.size + length
            if len(self._incoming) < end:
                break
            payload = bytes(self._incoming[wire.HEADER.size : end])
            del self._incoming[:end]
            self._handle(kind, payload)
        return bool(data)

    def _handle(self, kind: int, payload: bytes) -> None:
        if kind == wire.RUN:
            self._waiting.append(Request(*marshal.loads(payload)))  # noqa: S302 - from the worker
        elif kind == wire.TICK:
            self._clock = self._clock or HostClock()
            if self._current is not None:
                self._clock.tick(wire.SECONDS.unpack(payload)[0], self._current.shown_cpu())
        elif kind == wire.PING:
            wire.send(1, wire.PONG, b"")
        elif kind == wire.KILL:
            self._cancel(wire.LENGTH.unpack(payload)[0])
        elif kind == wire.CONFIGURE:
            self._configure(Config(**marshal.loads(payload)))  # noqa: S302 - from the worker

    def _configure(self, config: Config) -> None:
        if config.landlock == ASK_KERNEL:
            config = config._replace(landlock=landlock.abi_version())
        if self._by_user != (config.users != (0, 0)):
            raise ValueError("the cell was made for one kind of isolation and is configured for another")
        self._users = uids.Users(*config.users) if self._by_user else None
        first = zygote.start(self._proc, config)
        self._zygotes["plain"] = first
        wire.send(1, wire.HELLO, zygote.describe(config, own_mounts=self._own_mounts))

    def _cancel(self, number: int) -> None:
        if self._current is not None and self._current.number == number:
            self._current.kill("cancelled")
            return
        for request in self._waiting:
            if request.run == number:
                self._waiting.remove(request)
                wire.send(1, wire.DONE, Run.never_started(number))
                return

    def _start(self, request: Request) -> None:
        chosen = self._zygotes.get(request.zygote)
        if chosen is None:
            chosen = self._zygotes[request.zygote] = self._zygotes["plain"].another(request.zygote)
        self._current = Run(request.run, Limits(*request.limits), request.group_sizes, request.whole_program)
        if self._users:
            chosen.users = self._users.lend(len(request.payloads))
            self._current.can_stop_itself = True
        self._current.start(chosen, request.payloads, self._poll, self._proc, self._clock)

    def _finish(self, run: Run) -> None:
        self._current = None
        wire.send(1, wire.DONE, run.reap(self._poll))
        if self._users:
            self._users.take_back()
        elif not self._own_mounts:
            scratch.empty(wire.SCRATCH)


def main(proc: int, *, by_user: bool = False) -> None:
    """Run the supervisor on standard input and output."""
    try:
        Supervisor(proc, by_user=by_user).serve()
    except zygote.ZygoteDiedError as error:
        wire.send(1, wire.DIED, str(error).encode())
        raise
    except Exception as error:
        wire.send(1, wire.FAULT, f"{type(error).__name__}: {error}".encode()[:2000])
        raise
