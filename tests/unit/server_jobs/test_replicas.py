"""Several replicas on one PostgreSQL database: each job is one replica's, and another's when that one dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from job_service import JobService, Options, body_of, expected_status, wait_until

SAMPLES = 150
JOBS = 4


@pytest.fixture
def lease_s(request: pytest.FixtureRequest) -> float:
    return float(request.param)


@pytest.fixture
def replicas(postgresql_url: str, tmp_path: Path, lease_s: float) -> Iterator[list[JobService]]:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        log = str(tmp_path / name / "graded.log")
        made.append(JobService(Options(postgresql_url, log, sample_s=0.01, lease_s=lease_s), tmp_path / name))
    try:
        for replica in made:
            replica.start()
        yield made
    finally:
        for replica in made:
            replica.stop()


@pytest.mark.parametrize("lease_s", [1.0], indirect=True)
def test_other_replica_goes_on_where_one_was_killed(replicas: list[JobService]) -> None:
    doomed, other = replicas
    jobs = [doomed.post(body_of(SAMPLES), **{"Idempotency-Key": f"k{n}"})["id"] for n in range(JOBS)]
    # The other replica knows of them too, by their keys as well.
    assert other.post(body_of(SAMPLES), **{"Idempotency-Key": "k0"})["id"] == jobs[0]
    wait_until(lambda: len(doomed.graded()) > 20, "the first replica grades")
    seen = other.verdicts(jobs[0])
    doomed.kill()
    recorded = {job: {verdict["sample_id"] for verdict in other.verdicts(job)} for job in jobs}
    mark = len(other.graded())
    for job in jobs:
        verdicts = other.verdicts(job, wait=True)
        assert sorted(v["sample_id"] for v in verdicts) == sorted(f"s{n}" for n in range(SAMPLES))
        assert all(v["status"] == expected_status(v["sample_id"]) for v in verdicts)
        if job == jobs[0]:
            assert verdicts[: len(seen)] == seen
        wait_until(lambda: other.job(job)["state"] == "done", "the job is done")  # noqa: B023
    by_the_dead = set(doomed.graded())
    again = {(job, sample) for job, sample in other.graded()[mark:] if sample in recorded[job]}
    assert not again & by_the_dead


# A lease that no pause of a loaded machine outlasts: taking over from the living costs work, though nothing else.
@pytest.mark.parametrize("lease_s", [600.0], indirect=True)
def test_replicas_share_jobs_and_grade_none_twice(replicas: list[JobService]) -> None:
    first, second = replicas
    jobs = [replica.post(body_of(40))["id"] for _ in range(12) for replica in replicas]
    for job in jobs:
        assert len(second.verdicts(job, wait=True)) == 40
    graded = first.graded() + second.graded()
    assert len(graded) == len(set(graded)) == 24 * 40
    assert {job for job, _ in first.graded()}.isdisjoint(job for job, _ in second.graded())
    assert first.graded()
    assert second.graded()
