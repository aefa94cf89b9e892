"""The runner of jobs: claims what is unfinished, works on a few jobs at a time, and deletes what is too old."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, ParamSpec, TypeVar

from pydantic import ValidationError

from grader.errors import InputError
from grader.server.jobs.database import SILENT_S, Database
from grader.server.jobs.errors import StoreUnavailableError
from grader.server.jobs.followers import Followers
from grader.server.jobs.leases import Leases
from grader.server.jobs.recorder import LeaseLostError, Recorder
from grader.server.jobs.records import Bounds, Lease, Look
from grader.server.jobs.retention import sweep
from grader.server.jobs.run import JobRun
from grader.server.jobs.store import JobStore
from grader.server.problems import Refused
from grader.server.service import Service
from grader.server.suites import SuiteNotHereError
from grader.telemetry.logs import bound

LINES_AT_ONCE = 500
_MOST_FAILURES = 3
_LAST_WORDS_S = 10.0  # for a database server that does not answer, when the service stops
_MOST_REMEMBERED = 10_000  # other replicas finish jobs that were accepted here, too

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

_log = logging.getLogger("grader.jobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """How the runner works. Times are wall-clock seconds.

    ``jobs_at_once``: jobs that this replica works on; a tenant with none among them may have one more. ``lease_s``:
    after so long without a sign of its holder, a job is taken over by another replica. ``group_s``: verdicts that come
    within it are recorded together. ``poll_s``: how often to look for jobs that other replicas accepted or left.
    ``retry_s``: first wait after what failed. ``missing_suite_s``: before a job is tried again whose suite this server
    does not have. ``silent_s``: see ``Database``.
    """

    jobs_at_once: int = 8
    lease_s: float = 10.0
    group_s: float = 0.03
    poll_s: float = 1.0
    sweep_s: float = 60.0
    retry_s: float = 1.0
    missing_suite_s: float = 30.0
    silent_s: float = SILENT_S
    most_unrecorded: int = 5_000
    bounds: Bounds = field(default_factory=Bounds)


class JobRunner:
    """Works on the jobs in a database, together with the runners of other replicas.

    Between :meth:`start` and :meth:`close` the database is open.
    """

    def __init__(self, database: Database, service: Service, settings: RunnerSettings) -> None:
        self.database = database
        self.settings = settings
        self.store = JobStore(database, settings.bounds)
        self.followers = Followers(self._look, poll_s=settings.poll_s)
        self._service = service
        self._leases = Leases(database, secrets.token_hex(16), lease_s=self.settings.lease_s)
        self._recorder = Recorder(
            database,
            self._leases,
            tell=self.followers.tell,
            group_s=self.settings.group_s,
            most_waiting=self.settings.most_unrecorded,
            retry_s=self.settings.retry_s,
        )
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tenants: dict[str, str] = {}  # of what is running
        # How often in a row a job has broken off, and how many verdicts it had the last time.
        self._failures: dict[str, tuple[int, int]] = {}
        # Jobs whose suite is not on this server, and when to try each again, on the monotonic clock.
        self._put_aside: dict[str, float] = {}
        # When a job was accepted, on the monotonic clock: one that is set while it waits does not change its deadline.
        self._accepted: dict[str, float] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._recording: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._sweep_now = asyncio.Event()

    async def start(self) -> None:
        """Open the database and go on with what is unfinished.

        Raises InputError where the database is not one that can be used, StoreUnavailableError where it is not there.
        """
        await asyncio.to_thread(self.database.open)
        await self.database.ask_as_runner(self._leases.take_over)
        self._recording = asyncio.create_task(self._recorder.run())
        self._loops = [asyncio.create_task(loop) for loop in (self._claim(), self._renew(), self._sweep())]

    async def close(self) -> None:
        """Stop working, record what has been graded, and let other replicas have the jobs at once.

        A database server that is silent is given up after 10 s: the jobs' leases run out by themselves.
        """
        patience = asyncio.get_running_loop().call_later(_LAST_WORDS_S, self.database.abandon)
        try:
            await self._close()
        finally:
            patience.cancel()

    async def _close(self) -> None:
        tasks = [*self._loops, *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._recording is not None:
            self._recorder.close()
            await self._recording
            with suppress(StoreUnavailableError):
                await self.database.ask_as_runner(self._leases.release)
        await asyncio.to_thread(self.database.close)

    def accepted(self, job_id: str) -> None:
        """Take notice of a job that this replica has just accepted."""
        self._accepted[job_id] = time.monotonic()
        if len(self._accepted) > _MOST_REMEMBERED:
            del self._accepted[next(iter(self._accepted))]
        self._wake.set()

    def deleted(self, job_id: str) -> None:
        """Take notice of a job that was just deleted: what is left of it is cancelled, and its rows are removed."""
        self._accepted.pop(job_id, None)
        task = self._running.get(job_id)
        if task is not None:
            task.cancel()
        self.followers.tell(job_id, is_end=True)
        self._sweep_now.set()

    async def _look(self, tenant: str, job_id: str, after: int) -> Look | None:
        return await self.database.ask(self.store.look, tenant, job_id, after=after, limit=LINES_AT_ONCE)

    async def _claim(self) -> None:
        while True:
            self._wake.clear()
            with _going_on("jobs cannot be claimed"):
                while await self._claim_one():
                    pass
            await _wait(self._wake, self.settings.poll_s)

    async def _claim_one(self) -> bool:
        """Begin a job, where one may be. One tenant's jobs take all places, but not those that others would have: a
        tenant none of whose jobs is worked on here is given a place of its own.
        """
        is_full = len(self._running) >= self.settings.jobs_at_once
        served = tuple(set(self._tenants.values())) if is_full else ()
        lease = await self.database.ask_as_runner(self._leases.claim, self._not_to_claim(), served)
        if lease is None:
            return False
        job = lease.job
        lease.accepted_at = self._accepted.get(job.id, lease.accepted_at)
        self._tenants[job.id] = job.tenant
        self._running[job.id] = asyncio.create_task(self._work_on(lease))
        return True

    def _not_to_claim(self) -> tuple[str, ...]:
        """The jobs that this replica works on, and those that it cannot work on now."""
        now = time.monotonic()
        self._put_aside = {job_id: until for job_id, until in self._put_aside.items() if until > now}
        return (*self._running, *self._put_aside)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.settings.lease_s / 3)
            ids = tuple(self._running)
            with _going_on("the leases of jobs cannot be renewed"):
                held = await self.database.ask_as_runner(self._leases.renew, ids)
                for job_id in ids:
                    if job_id not in held and job_id in self._running:
                        self._running[job_id].cancel()

    async def _sweep(self) -> None:
        while True:
            self._sweep_now.clear()
            with _going_on("old jobs cannot be removed"):
                await self.database.ask_as_runner(sweep, self.database, self.settings.bounds)
            await _wait(self._sweep_now, self.settings.sweep_s)

    async def _work_on(self, lease: Lease) -> None:
        with bound(job_id=lease.job.id):
            await self._run(lease)

    async def _run(self, lease: Lease) -> None:
        job_id = lease.job.id
        run = JobRun(
            lease,
            database=self.database,
            leases=self._leases,
            recorder=self._recorder,
            service=self._service,
            retry_s=self.settings.retry_s,
        )
        try:
            await self._finish(lease, "done", summary=await run.run())
        except LeaseLostError:
            if lease.refused:
                await self._let_go(lease, counts=True)
            else:
                await self._insist(self._leases.release, job_id)
        except SuiteNotHereError as error:
            _log.warning("job %s waits: %s", job_id, error)
            await self._set_aside(lease, _reason(error))
        except (InputError, ValidationError) as error:
            _log.warning("job %s cannot be graded: %s", job_id, error)
            await self._finish(lease, "failed", failure=_reason(error))
        except StoreUnavailableError:
            await self._let_go(lease)
        except Exception:
            _log.exception("job %s broke off", job_id)
            await self._let_go(lease, counts=True)
        finally:
            del self._running[job_id], self._tenants[job_id]
            self.followers.tell(job_id, is_end=True)
            self._wake.set()

    async def _set_aside(self, lease: Lease, why: str) -> None:
        """Give up a job that this server cannot work on now: neither its place nor its lease is kept meanwhile, since
        other jobs, and a replica that has the suite, do not have to wait for it.
        """
        lease.lost = True
        self._put_aside[lease.job.id] = time.monotonic() + self.settings.missing_suite_s
        await self._insist(self._leases.release, lease.job.id, why)

    async def _let_go(self, lease: Lease, *, counts: bool = False) -> None:
        """Give up a job, to be claimed again after a moment; one that breaks off again and again, and has not a verdict
        more each time, has failed.
        """
        lease.lost = True  # what still waits to be recorded is not
        if counts and self._broke_off(lease) >= _MOST_FAILURES:
            del self._failures[lease.job.id]
            said = "an error inside the grader; whoever runs the service finds it in the log"
            await self._insist(self._leases.fail, lease.job.id, said)
            return
        await asyncio.sleep(self.settings.retry_s)
        await self._insist(self._leases.release, lease.job.id)

    def _broke_off(self, lease: Lease) -> int:
        """Count how often a job has broken off since it was last known to come further."""
        times, recorded = self._failures.get(lease.job.id, (0, 0))
        times = 1 if lease.recorded > recorded else times + 1
        self._failures[lease.job.id] = (times, lease.recorded)
        return times

    async def _finish(
        self,
        lease: Lease,
        state: Literal["done", "failed"],
        *,
        summary: str | None = None,
        failure: str | None = None,
    ) -> None:
        await self._insist(self._leases.finish, lease, state, summary=summary, failure=failure)
        self._failures.pop(lease.job.id, None)
        self._accepted.pop(lease.job.id, None)

    async def _insist(
        self, function: Callable[_Given, _Result], *args: _Given.args, **kwargs: _Given.kwargs
    ) -> _Result:
        while True:
            try:
                return await self.database.ask_as_runner(function, *args, **kwargs)
            except StoreUnavailableError:
                await asyncio.sleep(self.settings.retry_s)


def _reason(error: InputError | ValidationError) -> str:
    # The text of an error that was not written for a client can name the server's folders.
    if isinstance(error, Refused):
        return error.detail
    if isinstance(error, ValidationError):
        return (
            "this version of the grader does not take the request that an earlier one accepted; send it again"
        )
    return "the suite cannot be used on this server; whoever runs it finds the reason in its log"


@contextmanager
def _going_on(what: str) -> Iterator[None]:
    """Log an error that was not foreseen: what is done again and again is tried again."""
    try:
        yield
    except StoreUnavailableError:
        pass  # which the database's own health tells
    except Exception:
        _log.exception("%s; it is tried again", what)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
