"""A worker process: owns one cell, keeps it busy, and judges what comes out of it."""

from __future__ import annotations

import select
import signal
import sys
import traceback
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from grader.errors import CellLostError, GraderError, SuiteError
from grader.sandbox.cell import Answers, Cell, Done
from grader.worker.bundle import BundleStore
from grader.worker.grading import VerdictFields, grade, infrastructure_error
from grader.worker.link import Link
from grader.worker.messages import Failed, Grade, Graded, Job, Prepare, Prepared, Ready, Setup
from grader.worker.prepare import prepare
from grader.worker.requests import Conversation, RunRequest

_MAX_ATTEMPTS = 3
_IN_FLIGHT = 2  # one runs, one is ready to: the cell never waits for the worker


@dataclass(slots=True)
class _Active:
    """A job whose conversation with the cell is going on."""

    job: Job
    conversation: Conversation[Any]
    request: RunRequest
    attempts: int
    begun: bool = field(default=False)


class Worker:
    """The loop: jobs in, runs to the cell, verdicts out."""

    def __init__(self, link: Link, setup: Setup) -> None:
        self._link = link
        self._setup = setup
        self._store = BundleStore(setup.cache, setup.suite, setup.cells.key)
        self._cell = self._new_cell()
        self._stamp = {"backend": self._cell.backend, "layers": self._cell.layers}
        self._memory = setup.limits.memory_bytes
        self._waiting: deque[tuple[Job, int]] = deque()
        self._active: dict[int, _Active] = {}

    def serve(self, jobs: list[Job]) -> None:
        """Do these jobs and those that come, until the engine closes the link; then destroy the cell."""
        try:
            self._link.send(Ready(self._stamp))
            self._queue(jobs)
            self._start_waiting()
            while not self._link.closed:
                self._wait()
        finally:
            self._cell.close()

    def _new_cell(self) -> Cell:
        return self._setup.cells.make(self._setup.limits)

    def _wait(self) -> None:
        timeout = 0 if self._link.ready else self._cell.wake_s
        readable, _, _ = select.select(
            [self._link.reader, self._cell.reader], self._cell.writers, [], timeout
        )
        if self._link.ready or self._link.reader in readable:
            self._queue(self._link.receive())
        try:
            for event in self._cell.receive(0):
                self._take(event)
            self._start_waiting()
        except CellLostError as error:
            self._replace_cell(error)

    def _queue(self, jobs: list[Job]) -> None:
        self._waiting.extend((job, job.attempts) for job in jobs)

    def _start_waiting(self) -> None:
        while self._waiting and len(self._active) < _IN_FLIGHT:
            job, attempts = self._waiting.popleft()
            conversation = self._converse(job, attempts)
            self._advance(job, conversation, attempts, None)

    def _converse(self, job: Job, attempts: int) -> Conversation[Any]:
        if isinstance(job, Prepare):
            return prepare(job.task, self._store)
        return grade(job.program, job.task, self._store, self._setup.policy, self._stamp, attempts)

    def _advance(self, job: Job, conversation: Conversation[Any], attempts: int, done: Done | None) -> None:
        """Go on with a conversation until it asks for a run or ends."""
        try:
            request = conversation.send(done) if done is not None else next(conversation)
        except StopIteration as end:
            self._finish(job, end.value)
        except SuiteError as error:
            self._refuse(job, error, attempts)
        else:
            self._start(_Active(job, conversation, request, attempts))

    def _start(self, active: _Active) -> None:
        request = active.request
        if request.memory_bytes != self._memory:
            self._drain_others()
            self._cell.set_memory_limit(request.memory_bytes)
            self._memory = request.memory_bytes
        run = self._cell.start_run(
            request.encoded(
                self._setup.limits, self._cell.address_space, exact_clocks=self._cell.exact_clocks
            ),
            request.limits,
            group_sizes=request.group_sizes,
            zygote=request.zygote,
            whole_program=request.whole_program,
        )
        self._active[run] = active

    def _drain_others(self) -> None:
        """Let the runs in flight end before the memory limit of the cell changes under them."""
        while self._active:
            for event in self._cell.receive(None):
                self._take(event)

    def _take(self, event: Answers | Done) -> None:
        active = self._active.get(event.run)
        if active is None:
            raise CellLostError(f"the cell spoke of run {event.run}, which does not exist")
        if isinstance(event, Answers):
            active.begun = True
            if event.is_output:
                active.request.on_output(event.data)
            elif active.request.on_data(event.data):
                self._cell.kill_run(event.run)
            return
        del self._active[event.run]
        self._advance(active.job, active.conversation, active.attempts, event)

    def _finish(self, job: Job, result: VerdictFields | None) -> None:
        if isinstance(job, Prepare):
            self._link.send(Prepared(job.number))
        else:
            assert result is not None
            self._link.send(Graded(job.number, result))

    def _refuse(self, job: Job, error: SuiteError, attempts: int) -> None:
        if isinstance(job, Prepare):
            self._link.send(Prepared(job.number, str(error)))
        else:
            self._give_up(job, attempts, str(error))

    def _give_up(self, job: Grade, attempts: int, why: str) -> None:
        policy = self._setup.policy
        result = infrastructure_error(job.program, job.task, policy, self._stamp, attempts, why)
        self._link.send(Graded(job.number, result))

    def _replace_cell(self, error: CellLostError) -> None:
        """Destroy a cell that broke; what it held is graded again in the next, three times at the most."""
        lost = list(self._active.values())
        self._active.clear()
        self._cell.close()
        self._cell = self._new_cell()
        self._memory = self._setup.limits.memory_bytes
        for active in reversed(lost):
            if active.attempts < _MAX_ATTEMPTS:
                self._waiting.appendleft((active.job, active.attempts + 1))
            elif isinstance(active.job, Grade):
                self._give_up(
                    active.job, active.attempts, f"its cell was lost {active.attempts} times: {error}"
                )
            else:
                raise error
        self._start_waiting()


def main() -> None:
    """Serve an engine on standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the engine decides what Ctrl-C means
    link = Link(0, 1)
    messages: list[Any] = []
    while not link.closed and not messages:
        messages = link.receive()
    if messages:
        _serve(link, messages[0], messages[1:])


def _serve(link: Link, setup: Setup, jobs: list[Job]) -> None:
    try:
        Worker(link, setup).serve(jobs)
    except BrokenPipeError:
        sys.exit(1)  # the engine is gone; the cell has been destroyed on the way here
    except GraderError as error:
        link.send(Failed(type(error).__name__, str(error)))
    except Exception:
        link.send(Failed("InfrastructureError", f"a worker failed: {traceback.format_exc(limit=-4)}"))
        raise
