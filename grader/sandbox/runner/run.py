"""One run, as the supervisor sees it: clocks, limits, pipes, and the record of why it was killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from . import reports, threads, wire
from .clocks import RunDelay, Span
from .frames import Frames
from .kernel import process_clock
from .pace import WorkClock, is_over
from .pipes import PIPE_BYTES, PIPE_PIECES, Tail, make_pipe, widen

if TYPE_CHECKING:
    from .host_clock import HostClock
    from .pace import Pace
    from .zygote import Handle

_READ = 1 << 16
_STARTED = wire.frame(wire.STARTED, b"")
_SHORTEST_WAKE_S, _LONGEST_WAKE_S = 0.005, 0.025
_LATE_S = 2 * _LONGEST_WAKE_S
_GONE = select.POLLHUP | select.POLLERR
_LONGEST_START_S = 30.0
_LONGEST_IN_KERNEL_S = 5.0  # of what looks idle
_ASLEEP_LOOKS = 3


class Limits(NamedTuple):
    """CPU seconds unless the name says otherwise; ``tests`` has those that differ from ``test_s``."""

    load_s: float
    test_s: float
    tests: dict[int, float]
    group_s: float
    idle_s: float | None
    answer_bytes: int
    stdout_bytes: int


class Watch(NamedTuple):
    """What runs are watched with: a /proc, where there is one; how fast processors are, where that can be seen in it;
    and the host's clock, where a process's own runs too fast."""

    proc: int
    pace: Pace | None
    host_clock: HostClock | None


class Run:
    """The processes of one run: the sample, and for assertion tests the driver that reports for it."""

    def __init__(
        self,
        number: int,
        limits: Limits,
        group_sizes: tuple[int, ...],
        whole_program: bool,
        out: wire.Writer,
    ) -> None:
        self.number = number
        self.over = False
        self.can_stop_itself = False  # and kill: where its processes are not the first of a PID namespace
        self._limits = limits
        self._bounds = _running_sums(group_sizes)
        self._whole_program = whole_program
        self._out = out
        self._frames = Frames(sum(group_sizes))
        self._group = self._answer_bytes = 0
        self._killed: str | None = None
        self._to_start = 0  # bytes of what says that the processes are set up
        self._begun = False  # so that the spans count
        self._listened_to: set[int] = set()  # pipes
        self._hung_up = False
        self._at_its_end = 0  # a process id
        self._shown = self._look_at = 0.0
        self._asleep = 0  # looks in a row
        self._in_kernel_s = 0.0
        self._work = WorkClock(limits.test_s)
        self._pace: Pace | None = None
        self._host_clock: HostClock | None = None
        self._tails = {"stdout": Tail(limits.stdout_bytes), "stderr": Tail(limits.stdout_bytes)}
        self._step, self._whole_group, self._whole_run = self._spans = Span(), Span(), Span()

    def start(
        self,
        zygote: Handle,
        payloads: tuple[bytes, ...],
        poll: select.poll,
        watch: Watch,
    ) -> None:
        """Fork the processes and begin to watch."""
        self._proc, self._pace, self._host_clock = watch
        if self._host_clock:
            self._host_clock.begin()
        self._zygote = zygote
        self._run_delay = RunDelay(self._proc)
        self._began = self._polled = self._arrived = time.monotonic()
        self._answers, answers_end = make_pipe()
        # From a wide one we read when we wake anyway, which is cheaper than to be woken for each answer.
        answer_events = 0 if widen(answers_end) else select.POLLIN
        self._stdout, stdout_end = make_pipe()
        self._stderr, stderr_end = make_pipe() if self._whole_program else (-1, stdout_end)
        self._to_start = len(_STARTED) * len(payloads)  # a driver passes its candidate's on
        self._pids = zygote.fork(payloads, answers_end, stdout_end, stderr_end)
        self._clocks = [process_clock(pid) for pid in self._pids]
        for end in {answers_end, stdout_end, stderr_end}:
            os.close(end)
        self._poll = poll
        self._listen_to(self._answers, answer_events)  # POLLHUP is always reported: the far end is gone
        self._listen_to(self._stdout, select.POLLIN)
        if self._stderr >= 0:
            self._listen_to(self._stderr, select.POLLIN)

    def _listen_to(self, pipe: int, events: int) -> None:
        self._poll.register(pipe, events)
        self._listened_to.add(pipe)

    def _let_go(self, pipe: int) -> None:
        """Listen no more to a pipe whose far end is gone, which would be reported without end."""
        self._poll.unregister(pipe)
        self._listened_to.remove(pipe)

    def next_wake_ms(self) -> float:
        """How long the supervisor may wait: short at first, so that an early wrong answer ends the run early."""
        now = self._polled = time.monotonic()
        self._excuse(now - self._arrived)
        wake_s = min(_LONGEST_WAKE_S, max(_SHORTEST_WAKE_S, (now - self._began) / 16))
        return 1000 * (min(wake_s, self._look_at - now) if self._look_at > now else wake_s)

    def advance(self, events: dict[int, int]) -> None:
        """Take what the processes wrote since the last call, pass it on, and hold the limits."""
        wall = self._arrived = time.monotonic()
        self._excuse(max(0.0, wall - self._polled - _LATE_S))
        for name, pipe in (("stdout", self._stdout), ("stderr", self._stderr)):
            if pipe in events and not self._drain_text(name, pipe) and events[pipe] & _GONE:
                self._let_go(pipe)
        if events.get(self._answers, 0) & _GONE:
            self._let_go(self._answers)
            self._hung_up = True
        starting, frames, received = self._to_start, self._frames.count, self._answer_bytes
        cpu = self._cpu()
        self._drain_answers(cpu)
        # A full pipe can have half of its bytes only: an answer that does not fit behind another begins a new page.
        if self._answer_bytes - received >= PIPE_BYTES // 2:
            self._excuse(min(wall - self._polled, _LATE_S))  # what is longer has been excused
        if self._hung_up and self._has_ended():
            self.over = True
            return
        if wall - self._began > _LONGEST_WAKE_S:
            self._run_delay.begin()
        if starting:
            self._start_up(wall)
            return
        if self._frames.count != frames:
            cpu = self._cpu()  # anew: to pass the answers on can have taken long, and the next test runs
            self._next_step(cpu, wall)
        self._enforce(cpu, wall)

    def _excuse(self, seconds: float) -> None:
        """Count no time as idle that we took for ourselves: stopped, without a processor, or held up by the worker. A
        program that waits for us meanwhile is not idle."""
        for span in self._spans:
            span.wall += seconds

    def _start_up(self, wall: float) -> None:
        """Begin with the load when the processes are set up. Until then no program runs, and none is to blame."""
        if not self._to_start:
            self._begun = True
            cpu = self._cpu()
            for span in self._spans:
                span.begin(cpu, wall, 0.0, self._work.seconds(cpu))
        elif wall - self._began > _LONGEST_START_S:
            self.kill("not_started")

    def _drain_answers(self, cpu: float) -> None:
        for _ in range(PIPE_PIECES):  # not for as long as somebody writes
            try:
                chunk = os.read(self._answers, _READ)
            except BlockingIOError:
                return
            if not chunk:
                return
            if self._to_start:
                chunk, started = chunk[self._to_start :], chunk[: self._to_start]
                self._to_start -= len(started)
            waits = False
            if not self._whole_program:  # one step from its start to its end, whatever it writes here
                waits = self._frames.is_slow(chunk)
                chunk = self._frames.take(chunk)
                if waits:
                    self._hold_limits(self._cpu())  # its clock stands still
            self._answer_bytes += len(chunk)
            if chunk:
                self._out.add(wire.ANSWERS, wire.CHUNK.pack(self.number, cpu), chunk)
            if self._answer_bytes > self._limits.answer_bytes:
                self.kill("output_limit")
                return
            if waits:
                return  # not to be kept here by one that says so again and again

    def _drain_text(self, name: str, pipe: int) -> bool:
        """Take a piece of what was printed; returns whether there was one."""
        try:
            data = os.read(pipe, _READ)
        except BlockingIOError:
            return False
        if not data:
            return False
        if self._whole_program and name == "stdout":
            self._answer_bytes += len(data)
            self._out.add(wire.OUTPUT, wire.CHUNK.pack(self.number, 0.0), data)
            if self._answer_bytes > self._limits.answer_bytes:
                self.kill("output_limit")
        else:
            self._tails[name].add(data)
        return True

    def _next_step(self, cpu: float, wall: float) -> None:
        delay = self._delay() if wall - self._step.wall > _LATE_S else self._step.delay
        work = self._work.seconds(cpu)
        self._step.begin(cpu, wall, delay, work)
        self._asleep = 0
        group = sum(1 for bound in self._bounds if self._frames.count > bound)
        if group != self._group:
            self._group = group
            self._whole_group.begin(cpu, wall, delay, work)

    def _enforce(self, cpu: float, wall: float) -> None:
        limits, step, group = self._limits, self._step, self._whole_group
        if self._pace and self._work.is_due(cpu):
            processor = threads.processor_of(self._pids, self._proc)
            slowness = None if processor is None else self._pace.slowness_of(processor)
            if slowness is not None:
                self._work.note(cpu, slowness)
        if self._hold_limits(cpu):
            return
        idle_s = self._limit() if limits.idle_s is None else limits.idle_s

        def is_idle(delay: float) -> bool:
            return step.idle(cpu, wall, delay) > idle_s or group.idle(cpu, wall, delay) > limits.group_s

        if is_idle(group.delay) and is_idle(
            self._delay()
        ):  # seldom the first, so that the second is seldom asked
            self._end_if_asleep(wall)

    def _limit(self) -> float:
        limits = self._limits
        step = self._frames.count
        return limits.tests.get(step - 1, limits.test_s) if step else limits.load_s

    def _hold_limits(self, cpu: float) -> bool:
        """Kill a run that has used its CPU time up."""
        for span, limit_s in ((self._step, self._limit()), (self._whole_group, self._limits.group_s)):
            if is_over(limit_s, cpu - span.cpu, self._work.seconds(cpu) - span.work):
                self._kill_for_time("cpu_limit")
                return True
        return False

    def note_slowness(self, slowness: float) -> None:
        """Take from outside how slow the run's processor is, where that cannot be seen here."""
        self._work.note(self._cpu(), slowness)

    def _end_if_asleep(self, wall: float) -> None:
        """Kill a run that is idle by its clocks, when it is found asleep a few times in a row.

        Clocks do not show all that keeps a program waiting against its will: not for how long a hypervisor took its
        processor away, nor how long the kernel had it wait for a disk or a lock. Who is kept so is not asleep; but
        there are system calls that only wait inside the kernel, so that this is believed for a while only. We look
        when no program can foresee it, so that none can be awake just then.
        """
        if wall < self._look_at:
            return
        self._look_at = wall + 2 * _LONGEST_WAKE_S * os.urandom(1)[0] / 255
        if self._is_stopped():
            self.kill("stopped")
            return
        states = b"".join(threads.states(pid, self._proc) for pid in self._pids)
        in_kernel = b"R" not in states and b"D" in states and self._in_kernel_s < _LONGEST_IN_KERNEL_S
        if b"R" in states or in_kernel:
            self._excuse(_LONGEST_WAKE_S)  # as long as it is from one look to the next, on average
            self._in_kernel_s += in_kernel * _LONGEST_WAKE_S
            self._asleep = 0
        else:
            self._asleep += 1
            if self._asleep == _ASLEEP_LOOKS:
                self._kill_for_time("idle_limit")

    def shown_cpu(self) -> float:
        """Return the CPU seconds that the clocks of the run's processes show."""
        with contextlib.suppress(OSError):  # a process has ended: what it had used stays
            self._shown = sum(map(time.clock_gettime, self._clocks))
        return self._shown

    def _cpu(self) -> float:
        shown = self.shown_cpu()
        return self._host_clock.corrected(shown) if self._host_clock else shown

    def _delay(self) -> float:
        """Seconds for which the run was ready and waited for a processor."""
        return self._host_clock.waited if self._host_clock else self._run_delay.seconds(self._pids)

    def _is_stopped(self) -> bool:
        """Whether somebody outside has stopped a process; no program can stop itself, as the first of its namespace."""
        return not self.can_stop_itself and any(threads.is_stopped(pid, self._proc) for pid in self._pids)

    def _is_complete(self) -> bool:
        """Whether all has been said: loaded, every test, finished."""
        return bool(self._bounds) and self._frames.count >= self._bounds[-1] + 2

    def _has_ended(self) -> bool:
        """Whether who held the answer pipe is at its end, or nothing is owed any more. A program can also close the
        pipe and go on, and how it ends must not be chance. Where there is no /proc, it ends with its pipe."""
        if self._killed or self._proc < 0 or self._is_complete():
            return True
        if threads.is_exiting(self._pids[-1], self._proc):
            self._at_its_end = self._pids[-1]
        return bool(self._at_its_end)

    def _is_dying(self, pid: int) -> bool:
        """Whether a process that has not said all is at its end already, before we kill it."""
        if self._is_complete() or self.can_stop_itself or self._proc < 0:
            return False
        return pid == self._at_its_end or threads.is_exiting(pid, self._proc)

    def _idle_s(self) -> float:
        """Idle seconds of the whole run; 0 for a short one, of which they are not worth a look."""
        wall = self._arrived
        if not self._begun or wall - self._began <= _LATE_S:
            return 0.0
        return max(0.0, self._whole_run.idle(self._cpu(), wall, self._delay()))

    def _kill_for_time(self, reason: str) -> None:
        """End a run that is beyond a limit of time. Where tests wait for answers and the pipe for them is closed, it is
        as if the program had ended when it closed it."""
        self.kill("signalled" if self._hung_up and not self._whole_program else reason)

    def kill(self, reason: str) -> None:
        """End the run; the first reason counts."""
        self._killed = self._killed or reason
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)

    def reap(self) -> tuple[bytes, ...]:
        """Wait until nothing of the run is left and return the report."""
        for pipe in self._listened_to:
            self._poll.unregister(pipe)
        idle_s = self._idle_s()
        dying = [self._is_dying(pid) for pid in self._pids]
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        pids, self._pids = self._pids, []  # from here on they may be another's
        usage = [self._zygote.wait(pid) for pid in pids]
        for name, pipe in (("stdout", self._stdout), ("stderr", self._stderr)):
            if pipe >= 0:
                self._drain_rest(name, pipe)
                os.close(pipe)
        os.close(self._answers)
        status, _, rss = usage[0]
        used = sum(cpu for _, cpu, _ in usage)
        code = os.waitstatus_to_exitcode(status)
        driver_code = os.waitstatus_to_exitcode(usage[-1][0]) if len(usage) > 1 else 0
        if self._to_start:
            self._killed = self._killed or "not_started"
        report = {
            "run": self.number,
            "ended": self._killed or ("signalled" if code < 0 else "exited"),
            "code": max(code, 0),
            "signal": max(-code, 0),
            "driver_code": driver_code,
            "outside": not self._killed and any(map(reports.killed_already, dying, usage)),
            "cpu_s": self._host_clock.corrected(used) if self._host_clock else used,
            "idle_s": idle_s,
            "wall_s": time.monotonic() - self._began,
            "rss": rss,
            "slowness": self._work.slowness,
        }
        return reports.report(report, bytes(self._tails["stdout"]), bytes(self._tails["stderr"]))

    def _drain_rest(self, name: str, pipe: int) -> None:
        for _ in range(PIPE_PIECES):  # it holds no more
            if not self._drain_text(name, pipe):
                return


def _running_sums(sizes: tuple[int, ...]) -> list[int]:
    """The frame numbers at which each group ends; frame 0 is the load."""
    bounds, total = [], 0
    for size in sizes:
        total += size
        bounds.append(total)
    return bounds
