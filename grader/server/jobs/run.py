"""Grading one leased job: its samples go to the workers a window at a time, its verdicts to the recorder."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from grader.dispatch.contract import VerdictFields
from grader.errors import InfrastructureError, OverloadedError
from grader.server.answers import flagged, to_json, without_our_affairs
from grader.server.jobs.database import Database
from grader.server.jobs.leases import Leases
from grader.server.jobs.recorder import LeaseLostError, Recorder
from grader.server.jobs.records import Entry, Lease
from grader.server.jobs.work import Work, owner_from_json, recount
from grader.server.service import Service

SMALLEST_WINDOW = 8
LARGEST_WINDOW = 256
# Enough that a worker is never without work while the next window is made.
_SAMPLES_A_WORKER = 4
# While the slowest samples of one window are graded, the workers have another one.
_WINDOWS_AT_ONCE = 2
_LONGEST_WAIT_S = 30.0

_log = logging.getLogger("grader.jobs")


class JobRun:
    """One job from its claim to its end. ``retry_s``: wall-clock seconds before work that no worker could take is
    offered again; it doubles up to 30 s.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        database: Database,
        leases: Leases,
        recorder: Recorder,
        service: Service,
        retry_s: float,
    ) -> None:
        self._lease = lease
        self._database = database
        self._leases = leases
        self._recorder = recorder
        self._service = service
        self._retry_s = retry_s
        self._largest = LARGEST_WINDOW
        self._todo: list[int] = []
        self._stamp: Mapping[str, Any] = {}

    async def run(self) -> str:
        """Grade what has no verdict yet, and return the summary as JSON.

        Raises LeaseLostError; InputError where the job cannot be graded whatever happens.
        """
        self._work = await self._read()
        self._tally = self._work.tally()
        samples = self._lease.job.samples
        recorded = await self._database.ask_as_runner(self._leases.recorded, self._lease)
        done, stamp = await asyncio.to_thread(recount, self._tally, recorded, samples)
        self._stamp = stamp or {}
        # Windows are taken from the end.
        self._todo = self._work.remaining(done)[::-1]
        try:
            async with asyncio.TaskGroup() as windows:
                for _ in range(_WINDOWS_AT_ONCE):
                    windows.create_task(self._grade_windows())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        await self._recorder.settled(self._lease, samples)
        return await self._summary()

    async def _read(self) -> Work:
        body = await self._database.ask_as_runner(self._leases.request, self._lease)
        if body is None:
            raise LeaseLostError
        job = self._lease.job
        owner = owner_from_json(job.tenant, job.owner)
        return await asyncio.to_thread(
            Work.of, body, self._service.suites, owner=owner, job_id=job.id, accepted_at=self._lease.accepted_at
        )  # fmt: skip

    async def _summary(self) -> str:
        return await asyncio.to_thread(
            self._work.summary,
            self._tally,
            wall_s=time.monotonic() - self._lease.begun_at,
            sandbox=self._stamp,
            engine=self._service.settings.engine,
            workers=self._service.workers,
        )

    async def _grade_windows(self) -> None:
        while self._todo:
            wanted = self._largest
            if wanted == LARGEST_WINDOW:  # the queue has had room
                wanted = max(wanted, _SAMPLES_A_WORKER * self._service.workers)
            window, self._todo = self._todo[-wanted:], self._todo[:-wanted]
            await self._grade(window)

    async def _grade(self, window: list[int]) -> None:
        """Have a window graded; what no verdict comes for is offered again, or goes back where there is no room."""
        missing = self._work.positions(window)
        wait_s = self._retry_s
        while missing:
            try:
                await self._offer(missing)
            except OverloadedError as error:
                # Half as much may find room; the rest is a window of its own.
                self._largest = max(SMALLEST_WINDOW, len(missing) // 2)
                kept = dict(list(missing.items())[: self._largest])
                self._todo.extend(position for name, position in missing.items() if name not in kept)
                missing = kept
                await self._pause(max(error.retry_after_s, self._retry_s))
            except InfrastructureError as error:
                _log.warning("job %s waits: %s", self._lease.job.id, error)
                await self._pause(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                self._largest = min(2 * self._largest, LARGEST_WINDOW)
                if missing:
                    raise RuntimeError(f"{len(missing)} samples of a batch ended without a verdict")

    async def _offer(self, missing: dict[str, int]) -> None:
        batch = await asyncio.to_thread(self._work.batch, sorted(missing.values()))
        programs = {program.sample_id: program for program in batch.programs}
        async with aclosing(self._service.grade(batch, once=self._work.request.use_cache)) as graded:
            async for verdicts in graded:
                for verdict in verdicts:
                    position = missing.get(verdict["sample_id"])
                    if position is None:
                        continue
                    given = without_our_affairs(verdict, batch.suite)
                    if self._work.request.include_flags:
                        given = await flagged(given, programs[verdict["sample_id"]], batch.suite)
                    del missing[verdict["sample_id"]]
                    await self._take(position, given)

    async def _take(self, position: int, verdict: VerdictFields) -> None:
        task_id = self._work.task_ids.get(verdict["sample_id"], verdict["task_id"])
        verdict = {**verdict, "task_id": task_id}
        self._tally.add(verdict)
        self._stamp = verdict["sandbox"]
        entry = Entry(position, str(verdict["status"]), to_json(verdict).decode())
        await self._recorder.put(self._lease, entry)

    async def _pause(self, seconds: float) -> None:
        # Replicas and jobs that were refused together should not come back together.
        await asyncio.sleep(seconds * random.uniform(1.0, 1.5))  # noqa: S311
