"""The clock is set by an hour under jobs: leases, deadlines, rates and what is kept go by other clocks, or bear it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from job_service import JobService, Options, body_of, expected_status, wait_until
from postgresql import serving
from settable_clock import HOUR_S, SettableClock, settable_clock

from grader.server.jobs import retention
from grader.server.jobs.database import Database
from grader.server.jobs.leases import Leases
from grader.server.jobs.records import Bounds, NewJob
from grader.server.jobs.store import JobStore
from grader.server.jobs.tables import jobs, keys
from grader.server.keys import key_hash

SAMPLES = 150
BOTH_WAYS = pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S], ids=["back", "forward"])
JOB = NewJob(tenant="a", owner="{}", suite="starter", samples=1, request=b"the body")


@pytest.fixture
def clock() -> Iterator[SettableClock]:
    with settable_clock() as made:
        yield made


def start(service: JobService, clock: SettableClock, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for name, value in clock.environment.items():
            patch.setenv(name, value)
        service.start()


def has_all_verdicts_once(service: JobService, job: str) -> None:
    verdicts = service.verdicts(job, wait=True)
    assert sorted(v["sample_id"] for v in verdicts) == sorted(f"s{n}" for n in range(SAMPLES))
    assert all(v["status"] == expected_status(v["sample_id"]) for v in verdicts)
    wait_until(lambda: service.job(job)["state"] == "done", "the job is done")


@BOTH_WAYS
def test_running_and_waiting_jobs_keep_their_deadline(
    tmp_path: Path, clock: SettableClock, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    options = Options(f"sqlite:///{tmp_path / 'jobs.sqlite3'}", str(tmp_path / "graded.log"), sample_s=0.02)
    service = JobService(options, tmp_path)
    try:
        start(service, clock, monkeypatch)
        # More than are worked on at once: some wait while the clock is set.
        made = [service.post(body_of(SAMPLES, timeout_s=HOUR_S / 2))["id"] for _ in range(10)]
        wait_until(lambda: any(service.job(job)["recorded"] for job in made), "some verdicts are recorded")
        assert any(service.job(job)["state"] == "queued" for job in made)
        clock.set(step_s)
        late = service.post(body_of(SAMPLES, timeout_s=HOUR_S / 2))["id"]
        for job in (*made, late):
            has_all_verdicts_once(service, job)
            assert 0 <= service.job(job)["summary"]["wall_s"] < HOUR_S / 2
        assert len(service.graded()) == len(set(service.graded())) == 11 * SAMPLES
    finally:
        service.stop()


@BOTH_WAYS
def test_rates_go_by_another_clock(
    tmp_path: Path, clock: SettableClock, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    keys_file = tmp_path / "keys.jsonl"
    line = {"sha256": key_hash("secret"), "tenant": "a", "requests_per_s": 1 / (3 * HOUR_S)}
    keys_file.write_text(json.dumps(line) + "\n")
    service = JobService(Options(f"sqlite:///{tmp_path / 'jobs.sqlite3'}", keys=str(keys_file)), tmp_path)
    try:
        start(service, clock, monkeypatch)

        def wait_s() -> int:
            answer = service.client.get("/v1/jobs", headers={"Authorization": "Bearer secret"})
            return int(answer.headers["retry-after"]) if answer.status_code == 429 else 0

        assert wait_s() == 0
        before = wait_s()
        clock.set(step_s)
        assert 2 * HOUR_S < wait_s() <= before
    finally:
        service.stop()


@BOTH_WAYS
def test_replicas_share_jobs_while_the_databases_clock_is_set(
    postgresql_binaries: Path, tmp_path: Path, clock: SettableClock, step_s: int
) -> None:
    with serving(postgresql_binaries, clock.environment) as server:
        url = server.new_database()
        replicas = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            log = str(tmp_path / name / "graded.log")
            replicas.append(JobService(Options(url, log, sample_s=0.02, lease_s=5.0), tmp_path / name))
        doomed, other = replicas
        try:
            for replica in replicas:
                replica.start()
            made = [doomed.post(body_of(SAMPLES))["id"] for _ in range(4)]
            wait_until(lambda: len(doomed.graded()) > 20, "the first replica grades")
            clock.set(step_s)
            doomed.kill()  # its leases are from before: set back, the clock would say that they hold for an hour
            for job in made:
                has_all_verdicts_once(other, job)
        finally:
            for replica in replicas:
                replica.stop()


def set_back(database: Database) -> None:
    """Have all times that are recorded be an hour later, as if the clock had been set back."""
    with database.write() as connection:
        later = {
            column: column + HOUR_S for column in (jobs.c.created_at, jobs.c.finished_at, jobs.c.lease_until)
        }
        connection.execute(jobs.update().values(later))
        connection.execute(keys.update().values({keys.c.created_at: keys.c.created_at + HOUR_S}))


def finished(database: Database, key: str) -> str:
    job, _ = JobStore(database).accept(replace(JOB, key=key, fingerprint="f"))
    lease = Leases(database, "me", lease_s=5).claim()
    assert lease is not None
    assert Leases(database, "me", lease_s=5).finish(lease, "done", summary="{}", failure=None)
    return job.id


def test_dead_replicas_lease_ends_when_the_clock_is_set_back(database: Database) -> None:
    JobStore(database).accept(JOB)
    assert Leases(database, "dead", lease_s=60).claim() is not None
    assert Leases(database, "me", lease_s=60).claim() is None
    set_back(database)
    lease = Leases(database, "me", lease_s=60).claim()
    assert lease is not None
    assert lease.accepted_at <= lease.begun_at + 60
    assert Leases(database, "other", lease_s=60).claim() is None


def test_what_is_finished_after_the_clock_was_set_back_is_not_the_first_to_go(database: Database) -> None:
    old = [finished(database, f"old{n}") for n in range(3)]
    set_back(database)
    new = [finished(database, f"new{n}") for n in range(2)]
    retention.sweep(database, Bounds(finished_jobs=3))
    assert {job.id for job in JobStore(database).page("a", before=None, limit=10)} == {old[2], *new}


def test_answer_that_is_kept_after_the_clock_was_set_back_is_not_the_first_to_go(database: Database) -> None:
    def keep(name: str) -> None:
        row = {"tenant": "a", "route": "grade", "key": name, "fingerprint": "f", "answer": b"x", "bytes": 10}
        with database.write() as connection:
            connection.execute(keys.insert().values(created_at=database.now(), **row))

    for name in ("old", "older"):
        keep(name)
    set_back(database)
    for name in ("new", "newer"):
        keep(name)
    retention.sweep(database, Bounds(answer_bytes=2 * (10 + retention._ROW_BYTES)))
    with database.read() as connection:
        assert set(connection.execute(sa.select(keys.c.key)).scalars()) == {"new", "newer"}
