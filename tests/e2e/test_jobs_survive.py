"""Jobs survive the death of the front door at any moment: nothing accepted is lost, nothing recorded is done twice."""

from __future__ import annotations

import random
import resource
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server_jobs"))

from job_service import JobService, Options, body_of, expected_status, wait_until

SAMPLES = 150


@pytest.fixture
def service(tmp_path: Path) -> Iterator[JobService]:
    options = Options(f"sqlite:///{tmp_path / 'jobs.sqlite3'}", str(tmp_path / "graded.log"))
    service = JobService(options, tmp_path)
    yield service
    service.stop()


def recorded(folder: Path) -> dict[str, list[str]]:
    """The recorded verdicts of each job, in order, read from the file of a dead service."""
    with closing(sqlite3.connect(folder / "jobs.sqlite3")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found: dict[str, list[str]] = {job: [] for (job,) in connection.execute("SELECT id FROM grader_jobs")}
        for job, seq, line in connection.execute(
            "SELECT job_id, seq, line FROM grader_verdicts ORDER BY job_id, seq"
        ):
            found[job].append(line)
            assert seq == len(found[job])
        for job, count in connection.execute("SELECT id, recorded FROM grader_jobs"):
            assert count == len(found[job])
    return found


def samples_of(verdicts: list[dict[str, Any]]) -> list[str]:
    return [verdict["sample_id"] for verdict in verdicts]


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_and_again_each_sample_has_one_verdict(
    service: JobService, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    jobs: list[str] = []
    before: dict[str, list[str]] = {}
    for _ in range(4):
        service.start()
        log = len(service.graded())
        if len(jobs) < 3:
            jobs.append(service.post(body_of(SAMPLES))["id"])
        more = log + draw.randint(1, 80)
        wait_until(
            lambda: len(service.graded()) >= more or all(service.job(job)["state"] == "done" for job in jobs),  # noqa: B023
            "some samples are graded",
        )
        service.kill()
        after = recorded(tmp_path)
        for job, lines in before.items():
            assert after[job][: len(lines)] == lines
        # What had been recorded was not graded by this start of the service.
        known = {(job, line) for job, lines in before.items() for line in lines}
        again = {(job, f'"sample_id":"{sample}"') for job, sample in service.graded()[log:]}
        assert not [
            (job, line) for job, line in known for other, sample in again if job == other and sample in line
        ]
        before = after
    service.start()
    for job in jobs:
        verdicts = service.verdicts(job, wait=True)
        assert sorted(samples_of(verdicts)) == sorted(f"s{n}" for n in range(SAMPLES))
        assert all(verdict["status"] == expected_status(verdict["sample_id"]) for verdict in verdicts)
        shown = service.job(job)
        assert (shown["state"], shown["recorded"]) == ("done", SAMPLES)
        assert shown["statuses"] == {"passed": SAMPLES - 50, "wrong_answer": 50}
        assert shown["summary"]["statuses"] == shown["statuses"]
        assert shown["summary"]["samples"] == SAMPLES


@pytest.mark.parametrize("seed", [3, 4])
def test_accepted_jobs_are_never_lost(service: JobService, seed: int) -> None:
    draw = random.Random(seed)
    accepted: dict[str, str] = {}
    tried: list[str] = []

    def post_until_it_dies() -> None:
        with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
            while True:
                key = f"key-{seed}-{len(tried)}"
                tried.append(key)
                try:
                    answer = client.post("/v1/jobs", json=body_of(4), headers={"Idempotency-Key": key})
                except httpx.TransportError:
                    return
                assert answer.status_code == 202
                accepted[key] = answer.json()["id"]

    for _ in range(3):
        service.start()
        poster = threading.Thread(target=post_until_it_dies)
        poster.start()
        enough = len(accepted) + draw.randint(1, 12)
        wait_until(lambda: len(accepted) >= enough, "some jobs are accepted")  # noqa: B023
        service.kill()
        poster.join()
    service.start()
    for key, job in accepted.items():
        assert service.job(job)["samples"] == 4, key
    # A client that got no answer sends its request again, and makes no second job of it.
    again = {key: service.post(body_of(4), **{"Idempotency-Key": key})["id"] for key in tried}
    assert again.items() >= accepted.items()
    listed: list[str] = []
    parameters: dict[str, Any] = {"limit": 7}
    while True:
        page = service.client.get("/v1/jobs", params=parameters).json()
        listed.extend(job["id"] for job in page["jobs"])
        if page["next"] is None:
            break
        parameters["before"] = page["next"]
    assert sorted(listed) == sorted(again.values())
    for job in listed:
        assert sorted(samples_of(service.verdicts(job, wait=True))) == ["s0", "s1", "s2", "s3"]
        wait_until(lambda: service.job(job)["state"] == "done", "the job is done")  # noqa: B023


def test_stopped_service_ends_at_once_and_another_goes_on(service: JobService) -> None:
    service.options.sample_s = 0.02
    service.start()
    job = service.post(body_of(SAMPLES))["id"]
    wait_until(lambda: service.job(job)["recorded"], "some verdicts are recorded")
    assert service.kill(signal.SIGTERM) == 0
    done = len(service.graded())
    assert done < SAMPLES
    service.start()
    assert len(service.verdicts(job, wait=True)) == SAMPLES
    assert service.job(job)["summary"]["statuses"] == {"passed": 100, "wrong_answer": 50}
    # What had been graded when the service stopped was recorded.
    assert len(service.graded()) == SAMPLES


def test_stopping_service_ends_the_streams_that_follow_jobs(service: JobService) -> None:
    service.start()
    job = service.post(body_of(20_000))["id"]
    with service.client.stream("GET", f"/v1/jobs/{job}/verdicts", params={"wait": True}) as stream:
        lines = stream.iter_lines()
        first = [next(lines) for _ in range(10)]
        assert service.process is not None
        service.process.send_signal(signal.SIGTERM)
        seen = first + list(lines)
    assert service.process.wait(60) == 0
    assert len(seen) < 20_000
    service.start()
    assert service.client.get(f"/v1/jobs/{job}").json()["recorded"] >= len(seen)
    lines_again = service.client.get(f"/v1/jobs/{job}/verdicts").text.splitlines()
    assert lines_again[: len(seen)] == seen


def test_deleted_job_is_cancelled_and_leaves_nothing(service: JobService, tmp_path: Path) -> None:
    service.options.sample_s = 0.02
    service.start()
    gone = service.post(body_of(2000))["id"]
    kept = service.post(body_of(30))["id"]
    wait_until(lambda: service.job(gone)["recorded"], "some verdicts are recorded")
    assert service.client.delete(f"/v1/jobs/{gone}").status_code == 204
    for method, path in (("GET", ""), ("GET", "/verdicts"), ("DELETE", "")):
        assert service.client.request(method, f"/v1/jobs/{gone}{path}").status_code == 404
    wait_until(lambda: gone in service.cut(), "the grading of the deleted job is cut off")
    assert len(service.verdicts(kept, wait=True)) == 30
    assert len([job for job, _ in service.graded() if job == gone]) < 2000

    def rows() -> int:
        with closing(sqlite3.connect(tmp_path / "jobs.sqlite3", timeout=30)) as connection:
            query = "SELECT count(*) FROM grader_verdicts WHERE job_id = ?"
            return int(connection.execute(query, (gone,)).fetchone()[0])

    wait_until(lambda: rows() == 0, "the rows of the deleted job are removed")


def test_full_disk_refuses_new_jobs_and_holds_up_the_others(service: JobService) -> None:
    # The limit on the size of files stands for the disk: writing fails in the kernel, in the middle of a write.
    service.options.log = ""
    service.options.sample_s = 0.02
    service.start()
    job = service.post(body_of(SAMPLES))["id"]
    wait_until(lambda: service.job(job)["recorded"], "some verdicts are recorded")
    _, hard = resource.prlimit(service.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (4096, hard))
    refused = service.client.post("/v1/jobs", json=body_of(4))
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) >= 1
    stalled = service.job(job)
    assert (stalled["state"], stalled["failure"]) == ("running", None)
    resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert sorted(samples_of(service.verdicts(job, wait=True))) == sorted(f"s{n}" for n in range(SAMPLES))
    wait_until(lambda: service.job(job)["state"] == "done", "the job is done")
    assert service.post(body_of(4))["state"] == "queued"
