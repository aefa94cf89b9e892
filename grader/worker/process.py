"""A worker process: owns one cell, keeps it busy, and judges what comes out of it."""

from __future__ import annotations

import contextlib
import select
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from grader.errors import CellLostError, GraderError, InfrastructureError, SuiteError
from grader.limits import Limits
from grader.sandbox.cell import Answers, Cell, CellSpentError, Done
from grader.worker.bundle import BundleStore
from grader.worker.execution import Executed, execute
from grader.worker.grading import BROKEN_TESTS, VerdictFields, grade, infrastructure_error
from grader.worker.link import Link
from grader.worker.messages import (
    Alive,
    Cancel,
    Execute,
    Failed,
    Grade,
    Graded,
    Job,
    Lost,
    Prepare,
    Prepared,
    Ran,
    Ready,
    Report,
    Setup,
)
from grader.worker.prepare import prepare
from grader.worker.requests import Conversation, RunRequest

_IN_FLIGHT = 2  # one runs, one is ready to: the cell never waits for the worker
_SIGN_OF_LIFE_S = 1.0


@dataclass(slots=True)
class _Active:
    """A job whose conversation with the cell is going on."""

    job: Job
    conversation: Conversation[Any]
    request: RunRequest
    wanted: bool = True


class Worker:
    """The loop: jobs in, runs to the cell, verdicts out."""

    def __init__(self, link: Link, setup: Setup) -> None:
        self._link = link
        self._setup = setup
        self._stores: dict[str, BundleStore] = {}
        self._cell = self._new_cell()
        self._stamp = {"backend": self._cell.backend, "layers": self._cell.layers}
        self._memory = setup.limits.memory_bytes
        self._waiting: deque[Job] = deque()
        self._active: dict[int, _Active] = {}  # by run, in the order in which the cell runs them
        self._held: deque[_Active] = (
            deque()
        )  # until the runs in flight, which have another memory limit, have ended
        self._reports: list[Report] = [Ready(self._stamp)]
        self._spoke_at = time.monotonic()

    def serve(self, messages: list[Job | Cancel]) -> None:
        """Do these jobs and those that come, until the engine closes the link; then destroy the cell."""
        try:
            self._obey(messages)
            self._guarded(self._start_waiting)
            while not self._link.closed:
                self._report()
                self._wait()
        finally:
            self._cell.close()

    def _new_cell(self) -> Cell:
        return self._setup.cells.make(self._setup.limits)

    def _report(self) -> None:
        """Say what there is to be said, or at times that there is nothing."""
        now = time.monotonic()
        if now - self._spoke_at >= _SIGN_OF_LIFE_S:
            self._guarded(self._cell.check_alive)
            self._reports = self._reports or [Alive()]
        if self._reports:
            reports, self._reports = self._reports, []
            self._link.send(reports)
            self._spoke_at = now

    def _wait(self) -> None:
        timeout = min(self._cell.wake_s or _SIGN_OF_LIFE_S, _SIGN_OF_LIFE_S)
        readable, _, _ = select.select(
            [self._link.reader, self._cell.reader],
            self._cell.writers,
            [],
            0 if self._link.ready else timeout,
        )
        if self._link.ready or self._link.reader in readable:
            for messages in self._link.receive():
                self._obey(messages)
        self._guarded(self._hear_cell)

    def _hear_cell(self) -> None:
        for event in self._cell.receive(0):
            self._take(event)
        while self._held and self._may_start(self._held[0]):
            active = self._held.popleft()
            if active.wanted:
                self._start(active)
        self._start_waiting()

    def _obey(self, messages: list[Job | Cancel]) -> None:
        for message in messages:
            if isinstance(message, Cancel):
                self._cancel(frozenset(message.numbers))
            else:
                self._waiting.append(message)

    def _cancel(self, numbers: frozenset[int]) -> None:
        self._waiting = deque(job for job in self._waiting if job.number not in numbers)
        for active in self._held:
            active.wanted = active.wanted and active.job.number not in numbers
        for run, active in self._active.items():
            if active.job.number in numbers and active.wanted:
                active.wanted = False
                with contextlib.suppress(CellLostError):  # we hear of it where we hear of the cell
                    self._cell.kill_run(run)

    def _start_waiting(self) -> None:
        while self._waiting and len(self._active) + len(self._held) < _IN_FLIGHT:
            job = self._waiting.popleft()
            self._advance(job, self._converse(job), None)

    def _converse(self, job: Job) -> Conversation[Any]:
        if isinstance(job, Execute):
            return execute(job.execution, job.limits)
        store = self._stores.get(job.suite_sha256)
        if store is None:
            store = BundleStore(self._setup.cache, job.suite_sha256, self._setup.cells.key)
            self._stores[job.suite_sha256] = store
        if isinstance(job, Prepare):
            return prepare(job.task, store, job.limits)
        return grade(job.program, job.task, store, job.policy, self._stamp, job.attempts, job.part)

    def _advance(self, job: Job, conversation: Conversation[Any], done: Done | None) -> None:
        """Go on with a conversation until it asks for a run or ends."""
        try:
            request = conversation.send(done) if done is not None else next(conversation)
        except StopIteration as end:
            self._finish(job, end.value)
        except (SuiteError, InfrastructureError) as error:
            if isinstance(error, CellLostError):
                raise
            self._refuse(job, error)
        except Exception:
            self._give_up(job)
        else:
            active = _Active(job, conversation, request)
            if self._held or not self._may_start(active):
                self._held.append(active)
            else:
                self._start(active)

    def _may_start(self, active: _Active) -> bool:
        """Whether the cell's memory limit does not change under the runs in flight."""
        return not self._active or active.request.memory_bytes == self._memory

    def _start(self, active: _Active) -> None:
        try:
            self._start_run(active)
        except CellLostError:
            self._waiting.appendleft(active.job)  # the cell had not begun it
            raise

    def _start_run(self, active: _Active) -> None:
        request = active.request
        if request.memory_bytes != self._memory:
            self._cell.set_memory_limit(request.memory_bytes)
            self._memory = request.memory_bytes
        limits = self._limits_of(active.job)
        run = self._cell.start_run(
            request.encoded(limits, self._cell.address_space, exact_clocks=self._cell.exact_clocks),
            request.limits,
            group_sizes=request.group_sizes,
            zygote=request.zygote,
            whole_program=request.whole_program,
        )
        self._active[run] = active

    def _limits_of(self, job: Job) -> Limits:
        if isinstance(job, Execute):
            return job.limits
        return job.policy.limits if isinstance(job, Grade) else self._setup.limits

    def _take(self, event: Answers | Done) -> None:
        active = self._active.get(event.run)
        if active is None:
            raise CellLostError(f"the cell spoke of run {event.run}, which does not exist", blamed=True)
        if isinstance(event, Answers):
            if active.wanted and self._listen(active, event):
                self._cell.kill_run(event.run)
            return
        del self._active[event.run]
        if active.wanted:
            self._advance(active.job, active.conversation, event)

    def _listen(self, active: _Active, event: Answers) -> bool:
        """Let a conversation have what its run says; returns whether the run is to be stopped."""
        try:
            if event.is_output:
                active.request.on_output(event.data)
                return False
            return active.request.on_data(event.data)
        except Exception:
            active.wanted = False
            self._give_up(active.job)
            return True

    def _give_up(self, job: Job) -> None:
        """A mistake of ours that one job's data has brought to light: it must not end the worker, and with it the
        engine and everybody else's jobs."""
        traceback.print_exc()
        self._reports.append(Lost(job.number, False, f"a worker failed: {traceback.format_exc(limit=-4)}"))

    def _finish(self, job: Job, result: VerdictFields | Executed | None) -> None:
        if isinstance(job, Prepare):
            self._reports.append(Prepared(job.number))
        elif isinstance(result, Executed):
            self._reports.append(Ran(job.number, result))
        else:
            assert result is not None
            self._reports.append(Graded(job.number, result))

    def _refuse(self, job: Job, error: GraderError) -> None:
        if isinstance(job, Prepare):
            self._reports.append(Prepared(job.number, str(error)))
        else:
            assert isinstance(job, Grade)  # to execute a program, nothing is read that could be damaged
            kind = BROKEN_TESTS if isinstance(error, SuiteError) else "InfrastructureError"
            result = infrastructure_error(
                job.program, job.task, job.policy, self._stamp, job.attempts, str(error), kind
            )
            self._reports.append(Graded(job.number, result))

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do a step with the cell; if the cell is lost in it, destroy it and go on with another."""
        while True:
            try:
                step()
                return
            except CellLostError as error:
                self._replace_cell(error)
                step = self._start_waiting

    def _replace_cell(self, error: CellLostError) -> None:
        """Tell of the run that the cell was at, if it was at one; what was only ready to is run in the new cell."""
        running = list(self._active.values())
        lost = [active.job for active in (*running, *self._held) if active.wanted]
        self._active.clear()
        self._held.clear()
        self._cell.close()
        self._cell = self._new_cell()
        self._memory = self._setup.limits.memory_bytes
        # Not wanted any more, it took the cell down all the same: no other one may be blamed for that.
        if running and running[0].wanted and not isinstance(error, CellSpentError):
            self._reports.append(Lost(lost[0].number, getattr(error, "blamed", False), str(error)))
            del lost[0]
        self._waiting.extendleft(reversed(lost))


def main() -> None:
    """Serve an engine on standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the engine decides what Ctrl-C means
    link = Link(0, 1)
    batches: list[list[Any]] = []
    while not link.closed and not batches:
        batches = link.receive()
    if batches:
        setup, *messages = chain.from_iterable(batches)
        _serve(link, setup, messages)


def _serve(link: Link, setup: Setup, messages: list[Any]) -> None:
    try:
        Worker(link, setup).serve(messages)
    except BrokenPipeError:
        sys.exit(1)  # the engine is gone; the cell has been destroyed on the way here
    except GraderError as error:
        link.send([Failed(type(error).__name__, str(error))])
    except Exception:
        link.send([Failed("InfrastructureError", f"a worker failed: {traceback.format_exc(limit=-4)}")])
        raise
