"""Working on jobs: who has one, and what it has come to.

A job is leased by one owner at a time. Every change of a job names its owner and what the owner believes is recorded;
where either is no longer so, nothing is changed and the lease is lost. So two replicas that both believe to have a job
cannot record a verdict twice, and a transaction of which nobody knows whether it was committed is found out by reading.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import sqlalchemy as sa
import zstandard
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from grader.server.jobs.database import Database
from grader.server.jobs.records import Entry, Lease
from grader.server.jobs.store import UNFINISHED, job_columns, job_from
from grader.server.jobs.tables import jobs, requests, verdicts

_READ_AT_ONCE = 2000


class Leases:
    """What the runner of one replica does with the database. ``owner`` names the replica, anew at each start.

    Methods block, and raise StoreUnavailableError where the database cannot be used.
    """

    def __init__(self, database: Database, owner: str, *, lease_s: float) -> None:
        self._database = database
        self._owner = owner
        self._lease_s = lease_s

    def take_over(self) -> None:
        """Void the leases of a dead process, where there can be one process only (SQLite)."""
        if not self._database.is_shared:
            with self._database.write() as connection:
                connection.execute(jobs.update().where(jobs.c.lease_until > 0).values(lease_until=0.0))

    def claim(self, except_ids: Collection[str] = (), except_tenants: Collection[str] = ()) -> Lease | None:
        """Take an unfinished job that nobody has: of the tenant that has the fewest in work, the oldest.

        A lease that ends later than any that is given now is one from before the clock was set back, and counts as
        ended: nobody may be there to renew it. Where its holder lives, the work of a moment is done twice, and
        recorded once.
        """
        with self._database.write() as connection:
            now = self._database.now()  # not before it is our turn to write: jobs were made while we waited
            row = connection.execute(self._free_job(now, except_ids, except_tenants)).mappings().one_or_none()
            if row is None:
                return None
            fields = dict(row)
            claimed_at = float(fields.pop("now"))
            job = job_from(fields)
            begun_at = claimed_at if job.started_at is None else job.started_at
            job = replace(job, started_at=begun_at)
            connection.execute(
                jobs.update()
                .where(jobs.c.id == job.id)
                .values(
                    state="running",
                    started_at=job.started_at,
                    lease_owner=self._owner,
                    lease_until=now + self._lease_s,
                )
            )
        here = time.monotonic()
        return Lease(
            job, self._owner, job.recorded, dict(job.statuses),
            accepted_at=here - max(0.0, claimed_at - job.created_at),
            begun_at=here - max(0.0, claimed_at - begun_at),
        )  # fmt: skip

    def _free_job(
        self, now: sa.ColumnElement[float], except_ids: Collection[str], except_tenants: Collection[str]
    ) -> sa.Select[Any]:
        is_free = sa.or_(jobs.c.lease_until <= now, jobs.c.lease_until > now + 2 * self._lease_s)
        others = jobs.alias()
        in_work = (
            sa.select(sa.func.count())
            .select_from(others)
            .where(others.c.tenant == jobs.c.tenant, others.c.state == "running", others.c.lease_until > now)
            .scalar_subquery()
        )
        return (
            sa.select(*job_columns(), now.label("now"))
            .where(
                jobs.c.state.in_(UNFINISHED),
                is_free,
                jobs.c.id.not_in(except_ids),
                jobs.c.tenant.not_in(except_tenants),
            )
            .order_by(in_work, jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True, of=jobs)
        )

    def request(self, lease: Lease) -> bytes | None:
        """Return the body of the request that made the job; None: the job has been deleted."""
        query = sa.select(requests.c.body).where(requests.c.job_id == lease.job.id)
        with self._database.read() as connection:
            body = connection.execute(query).scalar_one_or_none()
        return None if body is None else zstandard.decompress(body)

    def recorded(self, lease: Lease) -> Iterator[tuple[int, str]]:
        """Yield the position and the JSON of each recorded verdict."""
        seq = 0
        while True:
            query = (
                sa.select(verdicts.c.seq, verdicts.c.position, verdicts.c.line)
                .where(verdicts.c.job_id == lease.job.id, verdicts.c.seq > seq)
                .order_by(verdicts.c.seq)
                .limit(_READ_AT_ONCE)
            )
            with self._database.read() as connection:
                rows = connection.execute(query).all()
            yield from ((row.position, row.line) for row in rows)
            if len(rows) < _READ_AT_ONCE:
                return
            seq = rows[-1].seq

    def record(self, groups: Sequence[tuple[Lease, Sequence[Entry]]]) -> None:
        """Append verdicts of several jobs in one transaction. A lease that no longer holds is marked as lost, and
        nothing of it is recorded; on StoreUnavailableError call this again with the same groups.
        """
        statuses = {lease.job.id: Counter(lease.statuses) for lease, _ in groups}
        for lease, entries in groups:
            statuses[lease.job.id].update(entry.status for entry in entries)
        try:
            with self._database.write() as connection:
                held = [
                    (lease, entries)
                    for lease, entries in groups
                    if _append(connection, lease, entries, statuses[lease.job.id])
                ]
        except IntegrityError:
            # A position is there already: what is known here is not what the database has. Begin again from that.
            held = []
        kept = {lease.job.id for lease, _ in held}
        for lease, entries in groups:
            if lease.job.id in kept:
                lease.recorded += len(entries)
                lease.statuses = dict(statuses[lease.job.id])
            else:
                lease.lost = True

    def finish(
        self, lease: Lease, state: Literal["done", "failed"], *, summary: str | None, failure: str | None
    ) -> bool:
        """Say what became of a job. False: the lease is lost."""
        query = (
            jobs.update()
            .where(*_held(lease))
            .values(
                state=state, finished_at=self._database.now(), summary=summary, failure=failure,
                lease_owner=None, lease_until=0.0,
            )
        )  # fmt: skip
        with self._database.write() as connection:
            lease.lost = connection.execute(query).rowcount == 0
        return not lease.lost

    def fail(self, job_id: str, failure: str) -> None:
        """Say that a job of this owner has failed, whatever is recorded of it."""
        query = jobs.update().where(
            jobs.c.id == job_id, jobs.c.lease_owner == self._owner, jobs.c.state == "running"
        )
        with self._database.write() as connection:
            connection.execute(
                query.values(
                    state="failed", finished_at=self._database.now(), failure=failure,
                    lease_owner=None, lease_until=0.0,
                )
            )  # fmt: skip

    def renew(self, ids: Collection[str]) -> set[str]:
        """Prolong the leases of jobs, and return those that are still held."""
        if not ids:
            return set()
        mine = (jobs.c.id.in_(ids), jobs.c.lease_owner == self._owner, jobs.c.state == "running")
        with self._database.write() as connection:
            until = self._database.now() + self._lease_s
            connection.execute(jobs.update().where(*mine).values(lease_until=until))
            return set(connection.execute(sa.select(jobs.c.id).where(*mine)).scalars())

    def release(self, job_id: str | None = None, why: str | None = None) -> None:
        """Let others have a job, or all jobs, of this owner at once. ``why`` is kept until a verdict is recorded."""
        query = jobs.update().where(jobs.c.lease_owner == self._owner, jobs.c.state == "running")
        if job_id is not None:
            query = query.where(jobs.c.id == job_id)
        if why is not None:
            query = query.values(failure=why)
        with self._database.write() as connection:
            connection.execute(query.values(lease_owner=None, lease_until=0.0))


def _held(lease: Lease) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        jobs.c.id == lease.job.id,
        jobs.c.lease_owner == lease.owner,
        jobs.c.state == "running",
        jobs.c.recorded == lease.recorded,
    )


def _append(
    connection: Connection, lease: Lease, entries: Sequence[Entry], statuses: Mapping[str, int]
) -> bool:
    changed = connection.execute(
        jobs.update()
        .where(*_held(lease))
        .values(
            recorded=lease.recorded + len(entries),
            statuses=json.dumps(statuses),
            bytes=jobs.c.bytes + sum(len(entry.line) for entry in entries),
            failure=None,
        )
    )
    if changed.rowcount == 0:
        return False
    connection.execute(
        verdicts.insert(),
        [
            {"job_id": lease.job.id, "seq": seq, "position": entry.position, "line": entry.line}
            for seq, entry in enumerate(entries, lease.recorded + 1)
        ],
    )
    return True
