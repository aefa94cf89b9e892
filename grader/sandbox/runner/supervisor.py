"""Process 1 of a cell: takes runs from the worker, has the zygote fork their processes, watches and kills them.

It sees programs and inputs only as bytes to pass on, and answers only as lengths to count. It holds no capability.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
from collections import deque
from typing import Any, NamedTuple

from . import container, kernel, landlock, reports, scratch, uids, wire, zygote
from .host_clock import HostClock
from .pace import Pace
from .run import Limits, Run, Watch

ASK_KERNEL = -1
_PIPE_CHUNK = 1 << 16  # what a pipe holds


class Config(NamedTuple):
    """What every sample of this cell gets; set once, before any program is seen.

    ``limits`` are those that most samples will have: threads, bytes of /tmp, and address space (0: as it is).
    ``seccomp`` has the filter for zygotes, and the one for samples on top of it. ``landlock`` is the version of the
    kernel's interface to use: 0 for none, ASK_KERNEL for what it has. ``users`` are the first of the user ids for
    samples and their number, where samples are parted by them.
    """

    seccomp: tuple[bytes, bytes]
    landlock: int
    site_packages: str
    limits: tuple[int, int, int] = (0, 0, 0)
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
        self._pace = Pace() if proc != container.NO_PROC else None
        self._zygotes: dict[tuple[str, bool], zygote.Handle] = {}
        self._out = wire.Writer(1)
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN)

    def serve(self) -> None:
        """Work until the worker closes our standard input."""
        while self._receive():
            while self._current is not None or self._waiting:
                if self._current is None:
                    self._current = self._start(self._waiting.popleft())
                if not self._step(self._current):
                    return  # with a run going on: our end, as process 1, ends it too
        self._end_zygotes()

    def _end_zygotes(self) -> None:
        """Let the zygotes end by themselves, so that the CPU time of all samples is counted to this process."""
        for handle in self._zygotes.values():
            handle.close()
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()

    def _step(self, run: Run) -> bool:
        """Wait for something to do for the run, and do it; returns whether the worker is still there."""
        events = dict(self._poll.poll(run.next_wake_ms()))
        run.advance(events)
        if run.over:
            self._finish(run)
        self._out.flush()
        return self._receive() if 0 in events else True

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
                host, slowness = wire.TICK_BODY.unpack(payload)
                self._clock.tick(host, self._current.shown_cpu())
                self._current.note_slowness(slowness)
        elif kind == wire.PING:
            self._out.add(wire.PONG)
            self._out.flush()
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
        if self._proc != container.NO_PROC:
            kernel.lock_code(self._proc)
        self._plain = self._zygotes["plain", False] = zygote.start(self._proc, config)
        self._out.add(wire.HELLO, zygote.describe(config, own_mounts=self._own_mounts))
        self._out.flush()

    def _cancel(self, number: int) -> None:
        if self._current is not None and self._current.number == number:
            self._current.kill("cancelled")
            return
        for request in self._waiting:
            if request.run == number:
                self._waiting.remove(request)
                self._out.add(wire.DONE, *reports.never_started(number))
                self._out.flush()
                return

    def _start(self, request: Request) -> Run:
        chosen = self._zygote(request.zygote, calls=len(request.payloads) > 1)
        run = Run(request.run, Limits(*request.limits), request.group_sizes, request.whole_program, self._out)
        if self._users:
            chosen.users = self._users.lend(len(request.payloads))
            run.can_stop_itself = True
        run.start(chosen, request.payloads, self._poll, Watch(self._proc, self._pace, self._clock))
        return run

    def _zygote(self, name: str, *, calls: bool) -> zygote.Handle:
        """The zygote of that name ("plain", or one of zygote.MODULES), and for assertion tests both sides of a call."""
        found = self._zygotes.get((name, calls))
        if found is None:
            found = (
                self._zygote(name, calls=False).another(zygote.CALLS)
                if calls
                else self._plain.another(zygote.MODULES[name])
            )
            self._zygotes[name, calls] = found
        return found

    def _finish(self, run: Run) -> None:
        self._current = None
        self._out.add(wire.DONE, *run.reap())
        if self._users:
            self._users.take_back()
        elif not self._own_mounts:
            try:
                scratch.empty(wire.SCRATCH)
            except scratch.TooMuchError as error:
                self._out.add(wire.SPENT, str(error).encode())
                self._out.flush()
                raise SystemExit(0) from None


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
