"""A worker process as a child of this one: started, spoken with, watched, and ended, without ever waiting for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grader
from grader.worker.link import Link
from grader.worker.messages import Cancel, Job, Ready, Report, Setup

_START_WORKER = "from grader.worker.process import main; main()"
_END_S = 10.0
_SILENT_S = 3.0  # a worker gives a sign of life every second


class WorkerChild:
    """One worker process. ``on_reports`` takes what it says, ``on_end`` (once) why it is gone.

    Made and used on an event loop. A worker that was stopped (SIGSTOP) is killed, as one that does not come back; one
    that is only slow is ``silent`` until it is heard again.
    """

    def __init__(
        self, setup: Setup, on_reports: Callable[[Sequence[Report]], None], on_end: Callable[[str], None]
    ) -> None:
        self._on_reports, self._on_end = on_reports, on_end
        self._loop = asyncio.get_running_loop()
        self.ready = False
        self.heard_at = time.monotonic()
        self.process = _spawn()
        assert self.process.stdin
        assert self.process.stdout
        self._link = Link(self.process.stdout.fileno(), self.process.stdin.fileno())
        self._loop.add_reader(self._link.reader, self._read)
        self._writing = False
        self._over = False
        self._ending: asyncio.Task[None] | None = None
        self.send([setup])

    @property
    def silent(self) -> bool:
        """Whether it has been without a sign of life for longer than it should be; kills it if it is stopped."""
        if time.monotonic() - self.heard_at < _SILENT_S:
            return False
        if _is_stopped(self.process.pid):
            self.process.kill()
        return self.ready  # one that starts says nothing, however long that takes

    def send(self, messages: Sequence[Setup | Job | Cancel]) -> None:
        """Send messages; what the worker does not take at once is sent when it does."""
        if self._over:
            return
        self._link.post(list(messages))  # as one, so that the task that many jobs share is pickled once
        if self._link.unsent and not self._writing:
            self._writing = True
            self._loop.add_writer(self._link.writer, self._write)

    def _write(self) -> None:
        self._link.flush()
        if not self._link.unsent:
            self._writing = False
            self._loop.remove_writer(self._link.writer)

    def _read(self) -> None:
        batches = self._link.receive()
        self.heard_at = time.monotonic()
        for reports in batches:
            self.ready = self.ready or any(isinstance(report, Ready) for report in reports)
            self._on_reports(reports)
        if self._link.closed and not self._over:
            self._detach()
            self._close_pipes()
            self._ending = self._loop.create_task(self._tell_end())

    async def _tell_end(self) -> None:
        await self._await_exit()
        self._on_end(f"it ended with status {self.process.returncode}")

    def _detach(self) -> None:
        self._over = True
        self._loop.remove_reader(self._link.reader)
        if self._writing:
            self._loop.remove_writer(self._link.writer)

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def begin_end(self) -> None:
        """Close the link, which ends a worker that is ready; one that is still starting is killed."""
        if not self._over:
            self._detach()
        self._close_pipes()
        if not self.ready:
            self.process.kill()

    async def ended(self) -> None:
        """Wait until it has ended; kill it if that takes too long."""
        await (self._ending or self._await_exit())

    async def _await_exit(self) -> None:
        until = time.monotonic() + _END_S
        while self.process.poll() is None:
            if time.monotonic() > until:
                self.process.kill()
            await asyncio.sleep(0.005)


def _spawn() -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    package = str(Path(grader.__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environment.get("PYTHONPATH", "")]))
    # Fixed, or glibc raises them after one huge answer, and the worker keeps its memory for ever.
    environment.update(MALLOC_MMAP_THRESHOLD_="1048576", MALLOC_TRIM_THRESHOLD_="1048576")
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _START_WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        bufsize=0,
        start_new_session=True,  # a terminal's Ctrl-C is for the engine, which then ends its workers
    )


def _is_stopped(pid: int) -> bool:
    """Whether a process is in the state that SIGSTOP puts it in (proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in ("T", "t")
