"""Deleting what is too old or too much, a piece at a time, so that nobody waits for it."""

from __future__ import annotations

import sqlalchemy as sa

from grader.server.jobs.database import Database
from grader.server.jobs.records import Bounds
from grader.server.jobs.store import DELETED, FINISHED
from grader.server.jobs.tables import jobs, keys, verdicts

_VERDICTS_AT_ONCE = 5000
_ROW_BYTES = 300  # about what the row of a kept answer takes beside the answer, with the indexes on it
_LONG_AGO_S = 1e10  # three centuries


def sweep(database: Database, bounds: Bounds) -> int:
    """Delete jobs and keys beyond the bounds, and return how many jobs are gone.

    Blocks. Raises StoreUnavailableError where the database cannot be used; what is left is done the next time.
    """
    _mark_old(database, bounds)
    for tenant in _tenants(database):
        _mark_superfluous(database, bounds, tenant)
    _delete_keys(database, bounds)
    gone = purge(database)
    database.give_back_space()
    return gone


def purge(database: Database) -> int:
    """Remove the rows of the jobs that are deleted, and return how many jobs that were."""
    gone = 0
    with database.read() as connection:
        doomed = list(connection.execute(sa.select(jobs.c.id).where(jobs.c.state == DELETED)).scalars())
    for job_id in doomed:
        while _delete_some_verdicts(database, job_id):
            pass
        with database.write() as connection:
            # The request goes with it, by the foreign key.
            gone += connection.execute(
                jobs.delete().where(jobs.c.id == job_id, jobs.c.state == DELETED)
            ).rowcount
    return gone


def _delete_some_verdicts(database: Database, job_id: str) -> int:
    first = sa.select(sa.func.min(verdicts.c.seq)).where(verdicts.c.job_id == job_id).scalar_subquery()
    with database.write() as connection:
        return connection.execute(
            verdicts.delete().where(verdicts.c.job_id == job_id, verdicts.c.seq < first + _VERDICTS_AT_ONCE)
        ).rowcount


def _mark_old(database: Database, bounds: Bounds) -> None:
    with database.write() as connection:
        connection.execute(
            jobs.update()
            .where(jobs.c.state.in_(FINISHED), jobs.c.finished_at < database.now() - bounds.finished_s)
            .values(state=DELETED)
        )


def _tenants(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(sa.select(jobs.c.tenant).distinct()).scalars())


def _mark_superfluous(database: Database, bounds: Bounds, tenant: str) -> None:
    of_tenant = sa.and_(jobs.c.tenant == tenant, jobs.c.state != DELETED)
    now = _now(database)
    with database.read() as connection:
        taken = int(connection.execute(sa.select(sa.func.sum(jobs.c.bytes)).where(of_tenant)).scalar() or 0)
        finished = connection.execute(
            sa.select(jobs.c.id, jobs.c.bytes)
            .where(of_tenant, jobs.c.state.in_(FINISHED))
            .order_by(_age_s(jobs.c.finished_at, now).desc(), jobs.c.id)
        ).all()
    doomed: list[str] = []
    for left, row in zip(range(len(finished), 0, -1), finished, strict=True):
        if left <= bounds.finished_jobs and taken <= bounds.tenant_bytes:
            break
        doomed.append(row.id)
        taken -= row.bytes
    if doomed:
        with database.write() as connection:
            for job_id in doomed:
                connection.execute(jobs.update().where(jobs.c.id == job_id).values(state=DELETED))


def _delete_keys(database: Database, bounds: Bounds) -> None:
    with database.write() as connection:
        connection.execute(keys.delete().where(keys.c.created_at < database.now() - bounds.key_s))
    are_answers, taken = keys.c.job_id.is_(None), sa.func.sum(keys.c.bytes + _ROW_BYTES)
    age_s = _age_s(keys.c.created_at, _now(database))
    running = (
        sa.select(age_s.label("age_s"), taken.over(order_by=age_s).label("kept"))
        .where(are_answers)
        .subquery()
    )
    too_old = sa.select(sa.func.min(running.c.age_s)).where(running.c.kept > bounds.answer_bytes)
    with database.read() as connection:
        # Most times this is all. It is answered from an index, without the answers.
        if (connection.execute(sa.select(taken).where(are_answers)).scalar() or 0) <= bounds.answer_bytes:
            return
        oldest_s = connection.execute(too_old).scalar_one()
    with database.write() as connection:
        connection.execute(keys.delete().where(are_answers, age_s >= oldest_s))


def _now(database: Database) -> float:
    with database.read() as connection:
        return float(connection.execute(sa.select(database.now())).scalar_one())


def _age_s(at: sa.ColumnElement[float], now: float) -> sa.ColumnElement[float]:
    """How long ago something was. What is dated later than now is from before the clock was set back: it is older than
    what came since, which would otherwise be deleted the moment it is there.
    """
    age = sa.literal(now, sa.Double) - at
    return sa.case((age < 0, age + _LONG_AGO_S), else_=age)
