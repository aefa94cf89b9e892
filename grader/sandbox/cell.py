"""What every kind of cell offers a worker, and the conversation with its supervisor.

A cell is a byte stream in and a byte stream out; ``Cell`` frames them. It never blocks in a write while the
supervisor may be blocked in one: reading and writing go on at the same time.
"""

from __future__ import annotations

import json
import marshal
import os
import select
import struct
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Any

from grader.errors import CellLostError
from grader.sandbox import liveness
from grader.sandbox.runner import wire

_READ_BYTES = 1 << 16  # what a pipe holds; see grader.worker.link
_START_TIMEOUT_S = 60.0
_PING_AFTER_S = 0.5  # of silence
_LATE_S = 1.5  # for an answer to a ping: time to look whether the cell has been stopped
_LOST_S = 30.0  # even a supervisor that waits for a processor with a thousand others has its turn by then
_LONGEST_STEP_S = (
    2.0  # between two checks; what is longer is this process's own absence, not the cell's silence
)


class CellSpentError(CellLostError):
    """A cell takes no more runs. Everything that it has not told the end of was not begun, and is to run in another."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A piece of a run's answer stream (or of a whole program's output), and the CPU seconds used so far."""

    run: int
    cpu_s: float
    data: bytes
    is_output: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """A run is over and nothing of it is left. ``ended`` is a ``Termination`` value or "signalled"/"exited"."""

    run: int
    ended: str
    code: int
    signal: int
    driver_code: int
    cpu_s: float
    wall_s: float
    peak_memory_bytes: int
    stdout_tail: bytes
    stderr_tail: bytes
    memory_kill: bool
    # Of its processor on average, where it ran long enough for that to be measured: see ``runner.pace``.
    slowness: float = 1.0
    idle_s: float = 0.0


Event = Answers | Done


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The limits of one run; see ``grader.sandbox.runner.run.Limits``."""

    load_s: float
    test_s: float
    tests: dict[int, float]
    group_s: float
    idle_s: float | None
    answer_bytes: int
    stdout_bytes: int


class Cell(ABC):
    """One long-lived sandbox that samples run in, one after the other."""

    backend: str
    layers: tuple[str, ...]
    wake_s: float | None = None  # how long its owner may wait at the most before the next ``receive``
    exact_clocks: bool = True  # whether a process's CPU clock counts the time that it ran, and nothing else
    address_space: int = 0  # bytes a sample may map; 0: any number
    first_process: int = 0  # as this machine numbers it; 0 where it is not known

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self._incoming = bytearray()
        self._outgoing: deque[memoryview] = deque()
        self._runs = self._kills_seen = 0
        self._checked_at, self._silent_s, self._pinged = time.monotonic(), 0.0, False
        self._stopped = False
        self._spent = ""
        self.hello: dict[str, Any] = {}

    @abstractmethod
    def close(self) -> None:
        """Destroy the cell and everything in it; may be called twice."""

    @abstractmethod
    def set_memory_limit(self, size: int) -> None:
        """Let the samples of this cell use ``size`` bytes."""

    @abstractmethod
    def memory_kills(self) -> int:
        """How many processes of this cell the kernel has killed for want of memory."""

    @abstractmethod
    def why_it_ended(self) -> str:
        """Say what is known of the end of a lost cell, for the error text."""

    @abstractmethod
    def ended_from_outside(self) -> bool:
        """Whether a lost cell was ended by somebody else: killed, and not by the kernel for want of memory, or not
        ended at all but out of reach."""

    @property
    def reader(self) -> int:
        """The descriptor to wait on for what the cell says."""
        return self._reader

    @property
    def writers(self) -> list[int]:
        """The descriptor to wait on while something is still to be written; [] otherwise."""
        return [self._writer] if self._outgoing else []

    def configure(self, config: dict[str, Any]) -> None:
        """Send the cell its configuration and wait until it is ready. Raises CellLostError."""
        self._send(wire.CONFIGURE, marshal.dumps(config))
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.hello:
            if time.monotonic() > deadline:
                raise CellLostError(f"the cell was not ready within {_START_TIMEOUT_S:.0f} s")
            for event in self.receive(timeout_s=1.0):
                raise self._broken(f"spoke of a run before it was ready: {event!r:.200}")
            self.check_alive()

    def check_alive(self) -> None:
        """Have the supervisor say that it is there, and look after it if it does not. To be called about once a second.

        Raises CellLostError within 4 s when the cell has been stopped (SIGSTOP, a freezer), and after 30 s without a
        word from it. A cell on a busy machine is only slow: its processes are runnable, and have their turn.
        """
        now = time.monotonic()
        passed = min(now - self._checked_at, _LONGEST_STEP_S)
        self._checked_at = now
        if select.select([self._reader], [], [], 0)[0]:
            self._silent_s = 0.0  # there is a word from it that has not been read
            return
        self._silent_s += passed
        if not self._pinged:
            if self._silent_s >= _PING_AFTER_S:
                self._pinged, self._silent_s = True, 0.0
                self._send(wire.PING, b"")
        elif self._silent_s >= _LATE_S:
            why = self._why_stopped()
            if why or self._silent_s >= _LOST_S:
                self._stopped = True
                raise CellLostError(
                    f"the {self.backend} cell does not answer: {why or f'no word for {_LOST_S:.0f} s'}"
                )

    def _why_stopped(self) -> str:
        """Say how this cell has been stopped from outside; "" if it is not known to have been."""
        return liveness.why_stopped(self.first_process) if self.first_process else ""

    def start_run(
        self,
        payloads: tuple[bytes, ...],
        limits: RunLimits,
        *,
        group_sizes: tuple[int, ...],
        zygote: str = "plain",
        whole_program: bool = False,
    ) -> int:
        """Queue a run; returns its number. ``payloads`` are marshalled for the sample process, and for the driver."""
        self._runs += 1
        wanted = (limits.load_s, limits.test_s, limits.tests, limits.group_s, limits.idle_s, limits.answer_bytes,
                  limits.stdout_bytes)  # fmt: skip
        request = (self._runs, zygote, wanted, group_sizes, whole_program, payloads)
        self._send(wire.RUN, marshal.dumps(request))
        return self._runs

    def kill_run(self, run: int) -> None:
        """End a run before its time; its ``Done`` still comes."""
        self._send(wire.KILL, wire.LENGTH.pack(run))

    def receive(self, timeout_s: float | None) -> list[Event]:
        """Wait for events; [] when the time is over.

        Raises CellLostError when the cell is gone, and CellSpentError when it takes no more runs.
        """
        events = self._parse()
        if events:
            return events
        if self._spent:
            raise CellSpentError(f"the {self.backend} cell takes no more runs: {self._spent}")
        readable, writable, _ = select.select([self._reader], self.writers, [], timeout_s)
        if writable:
            self._flush()
        if readable:
            self._read()
        return self._parse()

    def _send(self, kind: int, payload: bytes) -> None:
        self._outgoing.append(memoryview(wire.frame(kind, payload)))
        self._flush()

    def _flush(self) -> None:
        while self._outgoing:
            try:
                written = os.write(self._writer, self._outgoing[0])
            except BlockingIOError:
                return
            except OSError as error:
                raise self._lost() from error
            if written < len(self._outgoing[0]):
                self._outgoing[0] = self._outgoing[0][written:]
            else:
                self._outgoing.popleft()

    def _read(self) -> None:
        try:
            data = os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._lost() from error
        if not data:
            raise self._lost()
        self._silent_s = 0.0
        self._incoming += self._unwrap(data)

    def _unwrap(self, data: bytes) -> bytes:
        """Return what the supervisor wrote, where a cell's transport wraps it."""
        return data

    def _lost(self) -> CellLostError:
        text = f"the {self.backend} cell ended: {self.why_it_ended()}"
        return CellLostError(text, blamed=not self.ended_from_outside())

    def _broken(self, what: str) -> CellLostError:
        return CellLostError(f"the {self.backend} cell {what}", blamed=True)

    def _parse(self) -> list[Event]:
        events: list[Event] = []
        position, data = 0, self._incoming
        while position + wire.HEADER.size <= len(data):
            length, kind = wire.HEADER.unpack_from(data, position)
            if length > wire.MAX_FRAME:
                raise self._broken(f"sent a frame of {length} bytes")
            end = position + wire.HEADER.size + length
            if end > len(data):
                break
            try:
                event = self._event(kind, bytes(data[position + wire.HEADER.size : end]))
            except (ValueError, TypeError, LookupError, struct.error, RecursionError) as error:
                raise self._broken(f"sent a malformed frame {kind}: {error!r:.200}") from error
            if event is not None:
                events.append(event)
            position = end
        del data[:position]
        return events

    def _event(self, kind: int, payload: bytes) -> Event | None:
        if kind in (wire.ANSWERS, wire.OUTPUT):
            run, cpu = wire.CHUNK.unpack_from(payload)
            return Answers(run, cpu, payload[wire.CHUNK.size :], kind == wire.OUTPUT)
        if kind == wire.DONE:
            return self._done(payload)
        if kind == wire.HELLO:
            self.hello = json.loads(payload)
            return None
        if kind == wire.PONG:
            self._pinged = False
            return None
        if kind == wire.SPENT:
            self._spent = payload[:500].decode(errors="replace")
            return None
        text = payload[:500].decode(errors="replace")
        if kind == wire.FAULT:
            raise self._broken(f"failed: {text}")
        if kind == wire.DIED:
            raise CellLostError(f"the {self.backend} cell failed: {text}", blamed=self._memory_killed_since())
        raise self._broken(f"sent an unknown frame {kind}")

    def _done(self, payload: bytes) -> Done:
        start = wire.LENGTH.size
        end = start + wire.LENGTH.unpack_from(payload)[0]
        facts = json.loads(payload[start:end])
        middle = end + facts["stdout"]
        if facts["ended"] == "stopped":
            raise CellLostError(f"a sample's process in the {self.backend} cell was stopped from outside")
        # Asked whatever else ended the run, or a kill that came with it would be taken for the next run's.
        unclean = facts["ended"] != "exited" or facts["driver_code"] != 0
        killed_by_kernel = unclean and self._memory_killed_since()
        # A candidate can see that the driver was killed, and end by itself before we end it; and a program of many
        # megabytes can need more for its own text than its limit is.
        is_its_end = facts["ended"] in ("signalled", "exited", "not_started") and 9 in (
            facts["signal"],
            -facts["driver_code"],
        )
        memory_kill = killed_by_kernel and is_its_end
        if facts["ended"] == "not_started" and not memory_kill:
            text = payload[end:][-400:].decode(errors="replace") or "no message"
            raise CellLostError(f"the {self.backend} cell could not set up a sample's process: {text}")
        if facts["outside"] and not memory_kill:
            raise CellLostError(f"a sample's process in the {self.backend} cell was killed from outside")
        return Done(
            run=facts["run"],
            ended=facts["ended"],
            code=facts["code"],
            signal=facts["signal"],
            driver_code=facts["driver_code"],
            cpu_s=facts["cpu_s"],
            wall_s=facts["wall_s"],
            peak_memory_bytes=facts["rss"],
            slowness=facts["slowness"],
            idle_s=facts["idle_s"],
            stdout_tail=payload[end:middle],
            stderr_tail=payload[middle:],
            memory_kill=memory_kill,
        )

    def _memory_killed_since(self) -> bool:
        kills = self.memory_kills()
        before, self._kills_seen = self._kills_seen, kills
        return kills > before
