"""Recording verdicts as they come, those of all running jobs in one transaction every few tens of milliseconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from grader.server.jobs.database import Database
from grader.server.jobs.errors import StoreUnavailableError
from grader.server.jobs.leases import Leases
from grader.server.jobs.records import Entry, Lease

_log = logging.getLogger("grader.jobs")


class LeaseLostError(Exception):
    """The job is somebody else's now, or deleted; nothing more of it is recorded from here."""


class Recorder:
    """Takes verdicts and records them in groups. Where the database cannot be used, it tries until it can: verdicts
    wait, up to ``most_waiting``, and then those who bring more wait as well. ``tell`` is given the id of each job of
    which more is recorded.
    """

    def __init__(
        self,
        database: Database,
        leases: Leases,
        *,
        tell: Callable[[str], None],
        group_s: float,
        most_waiting: int,
        retry_s: float,
    ) -> None:
        self._database = database
        self._leases = leases
        self._tell = tell
        self._group_s = group_s
        self._most_waiting = most_waiting
        self._retry_s = retry_s
        # By lease, not by job: a job that was lost and claimed again has another one, with verdicts of its own.
        self._waiting: dict[int, tuple[Lease, list[Entry]]] = {}
        self._count = 0
        self._closing = False
        self._wake = asyncio.Event()
        self._recorded = asyncio.Event()

    async def put(self, lease: Lease, entry: Entry) -> None:
        """Take a verdict; waits where too many are unrecorded. Raises LeaseLostError."""
        while self._count >= self._most_waiting and not lease.lost:
            await self._recorded.wait()
        if lease.lost:
            raise LeaseLostError
        self._waiting.setdefault(id(lease), (lease, []))[1].append(entry)
        self._count += 1
        self._wake.set()

    async def settled(self, lease: Lease, expected: int) -> None:
        """Wait until ``expected`` verdicts of a job are recorded. Raises LeaseLostError."""
        while lease.recorded < expected and not lease.lost:
            await self._recorded.wait()
        if lease.lost:
            raise LeaseLostError

    async def run(self) -> None:
        """Record what comes, until :meth:`close`.

        Not to be cancelled: a group of which nobody hears whether it was recorded would be taken for unrecorded.
        """
        # What came while a group was being recorded is recorded, too, before the end.
        while not self._closing or self._waiting:
            await self._wake.wait()
            if not self._closing:
                await asyncio.sleep(self._group_s)
            groups = self._taken()
            await self._record(groups)
            recorded, self._recorded = self._recorded, asyncio.Event()
            recorded.set()
            for lease, _ in groups:
                self._tell(lease.job.id)

    def close(self) -> None:
        """Have :meth:`run` record what waits, in one attempt, and end.

        What cannot be recorded is graded again after the next start.
        """
        self._closing = True
        self._wake.set()

    def _taken(self) -> list[tuple[Lease, list[Entry]]]:
        groups = [group for group in self._waiting.values() if not group[0].lost]
        self._waiting, self._count = {}, 0
        self._wake.clear()
        return groups

    async def _record(self, groups: Sequence[tuple[Lease, list[Entry]]]) -> None:
        while groups:
            try:
                return await self._database.ask_as_runner(self._leases.record, groups)
            except StoreUnavailableError as error:
                _log.warning("%d jobs' verdicts are not recorded yet: %s", len(groups), error)
                if self._closing:
                    return None
                await asyncio.sleep(self._retry_s)
            except Exception:
                return await self._record_apart(groups)
        return None

    async def _record_apart(self, groups: Sequence[tuple[Lease, list[Entry]]]) -> None:
        """Give up the job whose verdicts the database does not take, so that it is none but that one's misfortune."""
        if len(groups) > 1:
            for group in groups:
                await self._record([group])
            return
        lease = groups[0][0]
        _log.exception("verdicts of job %s cannot be recorded; it is begun again", lease.job.id)
        lease.lost = lease.refused = True
