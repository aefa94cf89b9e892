"""Accepting, showing, reading and deleting jobs, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from job_service import lines_of

from grader.errors import InputError
from grader.server.jobs import retention, tables
from grader.server.jobs.database import Database
from grader.server.jobs.errors import StoreUnavailableError
from grader.server.jobs.leases import Leases
from grader.server.jobs.records import Bounds, Entry, Lease, NewJob
from grader.server.jobs.store import JobStore
from grader.server.problems import Refused

JOB = NewJob(tenant="a", owner='{"weight": 1.0}', suite="starter", samples=10, request=b"the body")


def entries(*positions: int, status: str = "passed") -> list[Entry]:
    return [Entry(position, status, json.dumps({"sample_id": f"s{position}"})) for position in positions]


def claimed(database: Database, owner: str = "me") -> tuple[Leases, Lease]:
    leases = Leases(database, owner, lease_s=3600)
    lease = leases.claim()
    assert lease is not None
    return leases, lease


def test_accepted_job_is_shown_to_its_tenant_alone(database: Database) -> None:
    store = JobStore(database)
    job, is_new = store.accept(JOB)
    assert is_new
    assert store.get("a", job.id) == job
    assert (job.state, job.samples, job.recorded, job.statuses) == ("queued", 10, 0, {})
    assert store.get("b", job.id) is None
    assert store.look("b", job.id, after=0, limit=10) is None
    assert not store.delete("b", job.id)
    assert store.page("b", before=None, limit=10) == []


def test_pages_go_from_the_latest_to_the_first(database: Database) -> None:
    store = JobStore(database)
    made = {store.accept(JOB)[0].id for _ in range(7)}
    seen: list[str] = []
    while page := store.page("a", before=seen[-1] if seen else None, limit=3):
        seen.extend(job.id for job in page)
    assert seen == sorted(made, reverse=True)


def test_verdicts_are_read_by_cursor_in_the_order_of_recording(database: Database) -> None:
    store = JobStore(database)
    job, _ = store.accept(JOB)
    leases, lease = claimed(database)
    leases.record([(lease, entries(4, 2))])
    leases.record([(lease, entries(9, status="wrong_answer"))])
    lines = [f'{{"sample_id": "s{position}"}}' for position in (4, 2, 9)]
    assert lines_of(store, "a", job.id, after=0, limit=10) == lines
    assert lines_of(store, "a", job.id, after=0, limit=2) == lines[:2]
    assert lines_of(store, "a", job.id, after=2, limit=10) == lines[2:]
    assert lines_of(store, "a", job.id, after=3, limit=10) == []
    shown = store.get("a", job.id)
    assert shown is not None
    assert (shown.state, shown.recorded, shown.statuses) == ("running", 3, {"passed": 2, "wrong_answer": 1})
    assert list(leases.recorded(lease)) == list(zip((4, 2, 9), lines, strict=True))
    assert leases.request(lease) == b"the body"


def test_key_makes_one_job(database: Database) -> None:
    store = JobStore(database)
    keyed = replace(JOB, key="k", fingerprint="f")
    first, is_new = store.accept(keyed)
    again, is_new_again = store.accept(keyed)
    assert (is_new, is_new_again) == (True, False)
    assert first == again == store.replay("a", "k", "f")
    assert store.accept(replace(keyed, tenant="b"))[0].id != first.id
    with pytest.raises(Refused, match="another request") as refused:
        store.accept(replace(keyed, fingerprint="g"))
    assert refused.value.status == 422
    store.delete("a", first.id)
    with pytest.raises(Refused, match="deleted"):
        store.accept(keyed)


def test_lease_is_one_owners(database: Database) -> None:
    store = JobStore(database)
    job, _ = store.accept(JOB)
    leases, lease = claimed(database)
    others = Leases(database, "other", lease_s=3600)
    assert others.claim() is None
    assert others.renew([job.id]) == set()
    assert leases.renew([job.id]) == {job.id}
    leases.release()
    taken = others.claim()
    assert taken is not None
    leases.record([(lease, entries(0))])
    assert lease.lost
    assert lines_of(store, "a", job.id, after=0, limit=10) == []
    assert leases.renew([job.id]) == set()
    assert not leases.finish(lease, "done", summary="{}", failure=None)
    leases.fail(job.id, "no")
    shown = store.get("a", job.id)
    assert shown is not None
    assert shown.state == "running"


def test_lease_that_was_not_renewed_is_taken_over(database: Database) -> None:
    JobStore(database).accept(JOB)
    Leases(database, "dead", lease_s=0.0).claim()
    _, lease = claimed(database)
    assert lease.owner == "me"


def test_position_is_recorded_once(database: Database) -> None:
    store = JobStore(database)
    job, _ = store.accept(JOB)
    leases, lease = claimed(database)
    leases.record([(lease, entries(1))])
    stale = replace(lease, recorded=1)
    leases.record([(stale, entries(1))])
    assert stale.lost
    late = replace(lease, recorded=0)
    leases.record([(late, entries(2))])
    assert late.lost
    assert lines_of(store, "a", job.id, after=0, limit=10) == ['{"sample_id": "s1"}']


def test_lost_lease_does_not_hold_up_other_jobs(database: Database) -> None:
    store = JobStore(database)
    gone, _ = store.accept(JOB)
    leases, lost = claimed(database)
    kept, _ = store.accept(JOB)
    held = leases.claim()
    assert held is not None
    store.delete("a", gone.id)
    leases.record([(lost, entries(0)), (held, entries(0))])
    assert (lost.lost, held.lost) == (True, False)
    assert lines_of(store, "a", kept.id, after=0, limit=10) == ['{"sample_id": "s0"}']


def test_claims_go_round_the_tenants(database: Database) -> None:
    store = JobStore(database)
    for _ in range(3):
        store.accept(JOB)
    store.accept(replace(JOB, tenant="b"))
    leases = Leases(database, "me", lease_s=3600)
    order = [lease.job.tenant for _ in range(4) if (lease := leases.claim())]
    assert order == ["a", "b", "a", "a"]
    assert leases.claim() is None


def test_finished_job_is_not_claimed(database: Database) -> None:
    store = JobStore(database)
    job, _ = store.accept(JOB)
    leases, lease = claimed(database)
    assert leases.finish(lease, "done", summary='{"samples": 10}', failure=None)
    assert leases.claim() is None
    shown = store.get("a", job.id)
    assert shown is not None
    assert (shown.state, shown.summary) == ("done", '{"samples": 10}')
    assert shown.finished_at is not None


def test_deleted_job_leaves_no_row(database: Database) -> None:
    store = JobStore(database)
    job, _ = store.accept(JOB)
    leases, lease = claimed(database)
    leases.record([(lease, entries(*range(10)))])
    assert store.delete("a", job.id)
    assert store.get("a", job.id) is None
    assert not store.delete("a", job.id)
    assert retention.sweep(database, Bounds()) == 1
    with database.read() as connection:
        for table in (tables.jobs, tables.requests, tables.verdicts):
            assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0


def test_deleted_rows_give_their_room_back(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    database.open()
    store = JobStore(database)
    job, _ = store.accept(replace(JOB, request=secrets.token_bytes(1 << 20)))
    store.delete("a", job.id)

    def pages() -> int:
        with database.read() as connection:
            return int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())

    before = pages()
    retention.sweep(database, Bounds())
    assert pages() < before / 2
    database.close()


def finished(database: Database, tenant: str = "a", samples: int = 10) -> str:
    job, _ = JobStore(database).accept(replace(JOB, tenant=tenant, samples=samples))
    leases, lease = claimed(database)
    leases.record([(lease, entries(*range(samples)))])
    leases.finish(lease, "done", summary="{}", failure=None)
    return job.id


def kept(database: Database, tenant: str = "a") -> set[str]:
    return {job.id for job in JobStore(database).page(tenant, before=None, limit=100)}


def test_old_finished_jobs_are_deleted_and_unfinished_are_not(database: Database) -> None:
    finished(database)
    unfinished, _ = JobStore(database).accept(JOB)
    retention.sweep(database, Bounds(finished_s=3600))
    assert len(kept(database)) == 2
    retention.sweep(database, Bounds(finished_s=-1))
    assert kept(database) == {unfinished.id}


def test_oldest_finished_jobs_make_room(database: Database) -> None:
    made = [finished(database) for _ in range(4)]
    other = finished(database, "b")
    retention.sweep(database, Bounds(finished_jobs=3))
    assert kept(database) == set(made[1:])
    with database.read() as connection:
        size = connection.execute(sa.select(sa.func.max(tables.jobs.c.bytes))).scalar_one()
    retention.sweep(database, Bounds(tenant_bytes=2 * size))
    assert kept(database) == set(made[2:])
    assert kept(database, "b") == {other}


def keep_answers(database: Database, sizes: list[int]) -> None:
    """Keep an answer of each size, a second older each."""
    with database.write() as connection:
        now = connection.execute(sa.select(database.now())).scalar_one()
        rows = [
            {"tenant": "a", "route": "grade", "key": f"{number:032}", "fingerprint": "f" * 64,
             "created_at": now - number, "answer": b"x" * size, "bytes": size}
            for number, size in enumerate(sizes)
        ]  # fmt: skip
        connection.execute(tables.keys.insert(), rows)


def answers(database: Database) -> set[int]:
    with database.read() as connection:
        return {int(key) for key in connection.execute(sa.select(tables.keys.c.key)).scalars()}


def test_oldest_answers_make_room(database: Database) -> None:
    keep_answers(database, [100, 50, 1, 1000, 1])
    taken = [size + retention._ROW_BYTES for size in (100, 50, 1, 1000, 1)]
    retention.sweep(database, Bounds(answer_bytes=sum(taken)))
    assert answers(database) == {0, 1, 2, 3, 4}
    retention.sweep(database, Bounds(answer_bytes=sum(taken[:4]) - 1))
    assert answers(database) == {0, 1, 2}
    retention.sweep(database, Bounds(answer_bytes=sum(taken[:3])))
    assert answers(database) == {0, 1, 2}


def test_room_of_small_answers_is_that_of_their_rows(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    database.open()
    keep_answers(database, [1] * 3000)
    bound = 3000 * 100
    retention.sweep(database, Bounds(answer_bytes=bound))
    with database.read() as connection:
        pages, size = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")
        )
    assert pages * size < 1.5 * bound
    database.close()


def test_sweep_with_nothing_to_delete_reads_no_answer(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    database.open()
    keep_answers(database, [10_000] * 10)
    plans = []

    def explain(_connection: object, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith(("SELECT", "DELETE")) and tables.keys.name in statement:
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            plans.append([row[-1] for row in rows])

    sa.event.listen(database._connected(), "before_cursor_execute", explain)
    retention.sweep(database, Bounds())
    database.close()
    index = "grader_idempotency_keys_by_room"
    assert [len(steps) for steps in plans] == [1, 1]
    assert f"USING INDEX {index} (created_at<?)" in plans[0][0]
    assert f"USING COVERING INDEX {index}" in plans[1][0]


def test_tenant_with_too_much_in_work_is_refused(database: Database) -> None:
    store = JobStore(database, Bounds(unfinished_jobs=2))
    store.accept(JOB)
    store.accept(replace(JOB, tenant="b"))
    store.accept(JOB)
    with pytest.raises(Refused, match="2 unfinished jobs") as refused:
        store.accept(JOB)
    assert refused.value.status == 429
    with pytest.raises(Refused, match="more room"):
        JobStore(database, Bounds(tenant_bytes=3 * 10 * 1024)).accept(JOB)
    assert len(kept(database)) == 2


def test_reopened_database_has_what_was_accepted(url: str) -> None:
    for number in range(3):
        database = Database(url)
        database.open()
        assert len(kept(database)) == number
        JobStore(database).accept(JOB)
        database.close()


def test_dead_process_lets_go_of_its_jobs(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    database.open()
    JobStore(database).accept(JOB)
    claimed(database, "dead")
    leases = Leases(database, "me", lease_s=3600)
    assert leases.claim() is None
    leases.take_over()
    assert leases.claim() is not None
    database.close()


def test_other_versions_tables_are_refused(database: Database, url: str) -> None:
    with database.write() as connection:
        connection.execute(tables.schema_version.update().values(version=tables.SCHEMA_VERSION + 1))
    with pytest.raises(InputError, match="tables of version"):
        Database(url).open()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "would not survive"),
        ("sqlite:///:memory:", "would not survive"),
        ("mysql://localhost/jobs", "cannot be kept in mysql"),
        ("jobs.sqlite3", "not a URL"),
    ],
    ids=["sqlite", "memory", "mysql", "path"],
)
def test_unusable_url_is_refused(url: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Database(url)


def test_unreachable_server_is_unavailable(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreUnavailableError):
        Database(f"postgresql://nobody@/none?host={tmp_path}").open()


def test_locked_file_is_unavailable_and_loses_nothing(sqlite_url: str) -> None:
    database = Database(sqlite_url, busy_timeout_s=0.01)
    database.open()
    store = JobStore(database)
    job, _ = store.accept(JOB)
    leases, lease = claimed(database)
    intruder = sqlite3.connect(str(database.url.database), isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError):
        store.accept(JOB)
    with pytest.raises(StoreUnavailableError):
        leases.record([(lease, entries(0))])
    assert store.get("a", job.id) is not None
    assert not lease.lost
    intruder.execute("ROLLBACK")
    intruder.close()
    leases.record([(lease, entries(0))])
    assert lines_of(store, "a", job.id, after=0, limit=10) == ['{"sample_id": "s0"}']
    database.close()
