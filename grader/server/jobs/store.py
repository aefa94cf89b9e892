"""Accepting, showing and deleting jobs, and reading their verdicts. What the runner needs is in ``leases``."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
import zstandard
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from grader.server.jobs.database import Database
from grader.server.jobs.errors import job_gone, key_reused, too_much_kept
from grader.server.jobs.records import Bounds, Job, Look, NewJob
from grader.server.jobs.tables import jobs, keys, requests, verdicts

JOBS_ROUTE = "jobs"
ID_CHARACTERS = 32
DELETED = "deleted"  # no state that anybody sees: the rows are removed a piece at a time
UNFINISHED = ("queued", "running")
FINISHED = ("done", "failed")
# A verdict takes about this much; counted ahead, so that many accepted jobs cannot outgrow the bound together.
_EXPECTED_VERDICT_BYTES = 1024

_COLUMNS = (
    jobs.c.id, jobs.c.tenant, jobs.c.owner, jobs.c.suite, jobs.c.state, jobs.c.samples, jobs.c.recorded,
    jobs.c.statuses, jobs.c.created_at, jobs.c.started_at, jobs.c.finished_at, jobs.c.summary, jobs.c.failure,
)  # fmt: skip


class JobStore:
    """Jobs as their tenants see them. Methods block, and raise StoreUnavailableError where the database cannot be used.

    Nobody sees another tenant's jobs: a job that is not the tenant's is not there.
    """

    def __init__(self, database: Database, bounds: Bounds | None = None) -> None:
        self._database = database
        self._bounds = bounds or Bounds()

    def accept(self, new: NewJob) -> tuple[Job, bool]:
        """Keep a job, and return it with True; it is on disk when this returns.

        Where the tenant's key has made a job before, that job and False. Raises Refused: the key belongs to another
        request, its job has been deleted, or the tenant has too much in work.
        """
        body = zstandard.compress(new.request, 3)
        try:
            with self._database.write() as connection:
                made = _made_before(connection, new.tenant, new.key, new.fingerprint)
                if made is not None:
                    return made, False
                self._check_room(connection, new.tenant, len(body) + new.samples * _EXPECTED_VERDICT_BYTES)
                return self._insert(connection, new, body), True
        except IntegrityError:
            # Another replica was faster with the same key.
            with self._database.read() as connection:
                made = _made_before(connection, new.tenant, new.key, new.fingerprint)
            if made is None:
                raise
            return made, False

    def replay(self, tenant: str, key: str, fingerprint: str) -> Job | None:
        """Return the job that a key has made, or None. Raises Refused as :meth:`accept` does."""
        with self._database.read() as connection:
            return _made_before(connection, tenant, key, fingerprint)

    def get(self, tenant: str, job_id: str) -> Job | None:
        """Return a job of the tenant, or None."""
        with self._database.read() as connection:
            return _job_of(connection, tenant, job_id)

    def page(self, tenant: str, *, before: str | None, limit: int) -> list[Job]:
        """Return the tenant's jobs, the latest first, at most ``limit``, from the one after ``before``."""
        query = sa.select(*_COLUMNS).where(jobs.c.tenant == tenant, jobs.c.state != DELETED)
        if before is not None:
            query = query.where(jobs.c.id < before)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(jobs.c.id.desc()).limit(limit))
            return [job_from(row) for row in rows.mappings()]

    def look(self, tenant: str, job_id: str, *, after: int, limit: int) -> Look | None:
        """Return at most ``limit`` verdicts after the first ``after``, in the order in which they were recorded.

        None: there is no such job.
        """
        state = sa.select(jobs.c.state, jobs.c.recorded).where(*_seen(tenant, job_id))
        query = (
            sa.select(verdicts.c.line)
            .where(verdicts.c.job_id == job_id, verdicts.c.seq > after)
            .order_by(verdicts.c.seq)
            .limit(limit)
        )
        with self._database.read() as connection:
            job = connection.execute(state).one_or_none()
            if job is None:
                return None
            lines = connection.execute(query).scalars().all() if job.recorded > after else ()
        return Look(
            text="".join(f"{line}\n" for line in lines).encode(),
            count=len(lines),
            has_more=job.recorded > after + len(lines),
            is_finished=job.state in FINISHED,
        )

    def delete(self, tenant: str, job_id: str) -> bool:
        """Delete a job, whatever its state: whoever works on it loses it. False: there is no such job."""
        query = (
            jobs.update()
            .where(*_seen(tenant, job_id))
            .values(state=DELETED, finished_at=self._database.now())
        )
        with self._database.write() as connection:
            return connection.execute(query).rowcount > 0

    def _check_room(self, connection: Connection, tenant: str, more: int) -> None:
        unfinished = sa.and_(jobs.c.tenant == tenant, jobs.c.state.in_(UNFINISHED))
        expected = sa.func.sum(jobs.c.bytes + (jobs.c.samples - jobs.c.recorded) * _EXPECTED_VERDICT_BYTES)
        count, taken = connection.execute(sa.select(sa.func.count(), expected).where(unfinished)).one()
        if count >= self._bounds.unfinished_jobs:
            raise too_much_kept(f"the tenant has {count} unfinished jobs, and may have no more")
        if int(taken or 0) + more > self._bounds.tenant_bytes:
            raise too_much_kept("the tenant's unfinished jobs would take more room than it may have")

    def _insert(self, connection: Connection, new: NewJob, body: bytes) -> Job:
        job_id = _new_id()
        now = connection.execute(sa.select(self._database.now())).scalar_one()
        connection.execute(
            jobs.insert().values(
                id=job_id, tenant=new.tenant, owner=new.owner, suite=new.suite, state="queued",
                samples=new.samples, bytes=len(body), created_at=now,
            )
        )  # fmt: skip
        connection.execute(requests.insert().values(job_id=job_id, body=body))
        if new.key is not None:
            connection.execute(
                keys.insert().values(
                    tenant=new.tenant, route=JOBS_ROUTE, key=new.key, fingerprint=new.fingerprint,
                    created_at=now, job_id=job_id,
                )
            )  # fmt: skip
        return Job(
            id=job_id, tenant=new.tenant, owner=new.owner, suite=new.suite, state="queued", samples=new.samples,
            recorded=0, statuses={}, created_at=now, started_at=None, finished_at=None, summary=None, failure=None,
        )  # fmt: skip


def job_columns() -> tuple[sa.Column[Any], ...]:
    """Return the columns that :func:`job_from` needs."""
    return _COLUMNS


def job_from(row: Mapping[Any, Any]) -> Job:
    """Make a job of a row with :func:`job_columns`."""
    return Job(**{**row, "statuses": json.loads(row["statuses"])})


def _made_before(connection: Connection, tenant: str, key: str | None, fingerprint: str) -> Job | None:
    if key is None:
        return None
    found = connection.execute(
        sa.select(keys.c.fingerprint, keys.c.job_id).where(
            keys.c.tenant == tenant, keys.c.route == JOBS_ROUTE, keys.c.key == key
        )
    ).one_or_none()
    if found is None:
        return None
    if found.fingerprint != fingerprint:
        raise key_reused()
    job = _job_of(connection, tenant, found.job_id)
    if job is None:
        raise job_gone()
    return job


def _job_of(connection: Connection, tenant: str, job_id: str) -> Job | None:
    found = connection.execute(sa.select(*_COLUMNS).where(*_seen(tenant, job_id)))
    row = found.mappings().one_or_none()
    return None if row is None else job_from(row)


def _seen(tenant: str, job_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (jobs.c.id == job_id, jobs.c.tenant == tenant, jobs.c.state != DELETED)


def _new_id() -> str:
    """An id that sorts by the time of its making, as version 7 of RFC 9562 does, and cannot be guessed."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex((ID_CHARACTERS - 12) // 2)}"
