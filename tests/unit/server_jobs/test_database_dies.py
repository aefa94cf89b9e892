"""The PostgreSQL server dies while jobs run, and comes back: the service waits for it and loses nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from job_service import DEADLINE_S, JobService, Options, body_of, expected_status, wait_until
from postgresql import Server, serving

SAMPLES = 300
POST = "POST /v1/jobs"


@pytest.fixture
def server(postgresql_binaries: Path) -> Iterator[Server]:
    with serving(postgresql_binaries) as made:
        yield made


@pytest.fixture
def service(server: Server, tmp_path: Path) -> Iterator[JobService]:
    options = Options(server.new_database(), str(tmp_path / "graded.log"), sample_s=0.02)
    made = JobService(options, tmp_path)
    made.start()
    yield made
    made.stop()


def die(server: Server) -> None:
    server.kill()


def has_read(port: int, from_port: int) -> bool:
    """Whether who listens on a port of 127.0.0.1 has read all that came from another one (proc_net_tcp)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues = line.split()[:5]
        if (int(local.split(":")[1], 16), int(remote.split(":")[1], 16)) == (port, from_port):
            return int(queues.split(":")[1], 16) == 0
    return False


def end_fast(server: Server) -> None:
    server.stop("fast")


class Clients:
    """Clients that ask and ask while the database comes and goes: for a job, its verdicts, and to have one made."""

    def __init__(self, service: JobService, job: str) -> None:
        self._base = service.client.base_url
        self._job = job
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=arguments)
            for arguments in (
                ("GET", f"/v1/jobs/{job}", {}),
                ("GET", f"/v1/jobs/{job}/verdicts", {}),
                ("GET", "/v1/jobs", {}),
                ("POST", "/v1/jobs", {"json": body_of(4), "headers": {"Idempotency-Key": "again"}}),
                ("POST", "/v1/grade", {"json": body_of(4), "headers": {"Idempotency-Key": "again"}}),
            )
        ]
        self._threads.append(threading.Thread(target=self._follow))
        self.statuses: dict[str, Counter[int]] = {}
        self.faults: list[str] = []
        self.made: set[str] = set()
        self.followed: list[str] = []
        self.follows = False

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, method: str, path: str, more: dict[str, Any]) -> None:
        counts = self.statuses.setdefault(f"{method} {path}", Counter())
        with httpx.Client(base_url=self._base, timeout=DEADLINE_S) as client:
            while not self._end.wait(0.01):
                try:
                    answer = client.request(method, path, **more)
                except httpx.TransportError as error:
                    self.faults.append(f"{method} {path}: {error!r}")
                    continue
                counts[answer.status_code] += 1
                if answer.status_code == 202:
                    self.made.add(answer.json()["id"])
                elif answer.status_code == 503:
                    kind, retry = (answer.headers.get(name) for name in ("content-type", "retry-after"))
                    if kind != "application/problem+json" or not retry:
                        self.faults.append(f"{method} {path}: {kind}, {retry}")

    def _follow(self) -> None:
        with (
            httpx.Client(base_url=self._base, timeout=DEADLINE_S) as client,
            client.stream("GET", f"/v1/jobs/{self._job}/verdicts", params={"wait": True}) as answer,
        ):
            self.follows = answer.status_code == 200
            self.followed.extend(answer.iter_lines())

    def all_have(self, status: int) -> Callable[[], bool]:
        """Whether everybody has been answered so three times more than until now."""
        before = {name: counts[status] for name, counts in self.statuses.items()}
        return lambda: all(self.statuses[name][status] >= count + 3 for name, count in before.items())


@pytest.mark.parametrize("end", [die, end_fast])
def test_jobs_go_on_when_the_database_is_back(
    service: JobService, server: Server, end: Callable[[Server], None]
) -> None:
    job = service.post(body_of(SAMPLES))["id"]
    wait_until(lambda: service.job(job)["recorded"], "some verdicts are recorded")
    seen = service.verdicts(job)
    with Clients(service, job) as clients:
        wait_until(
            lambda: len(clients.statuses) == 5 and clients.made and clients.follows,
            "the clients are answered",
        )
        end(server)
        wait_until(clients.all_have(503), "the clients are told that the database is away")
        server.start()
        verdicts = service.verdicts(job, wait=True)
        wait_until(lambda: service.job(job)["state"] == "done", "the job is done")
    assert clients.faults == []
    for name, counts in clients.statuses.items():
        assert set(counts) == {202 if name == POST else 200, 503}, name
    assert verdicts[: len(seen)] == seen
    assert clients.followed == service.client.get(f"/v1/jobs/{job}/verdicts").text.splitlines()
    assert sorted(v["sample_id"] for v in verdicts) == sorted(f"s{n}" for n in range(SAMPLES))
    assert all(v["status"] == expected_status(v["sample_id"]) for v in verdicts)
    shown = service.job(job)
    assert (shown["recorded"], shown["statuses"]) == (SAMPLES, {"passed": 200, "wrong_answer": 100})
    assert shown["summary"]["statuses"] == shown["statuses"]
    # Who asked again and again with the same key has one job.
    assert len(clients.made) == 1
    listed = service.client.get("/v1/jobs").json()["jobs"]
    assert {one["id"] for one in listed} == {job, *clients.made}
    # What was recorded before is not graded again.
    graded = Counter(sample for name, sample in service.graded() if name == job)
    assert all(graded[verdict["sample_id"]] == 1 for verdict in seen)


def test_service_can_be_stopped_while_the_database_is_away(service: JobService, server: Server) -> None:
    job = service.post(body_of(SAMPLES))["id"]
    wait_until(lambda: service.job(job)["recorded"], "some verdicts are recorded")
    seen = service.verdicts(job)
    server.kill()
    wait_until(lambda: service.client.get(f"/v1/jobs/{job}").status_code == 503, "the database is away")
    assert service.kill(signal.SIGTERM) == 0
    server.start()
    service.start()
    verdicts = service.verdicts(job, wait=True)
    assert verdicts[: len(seen)] == seen
    assert sorted(v["sample_id"] for v in verdicts) == sorted(f"s{n}" for n in range(SAMPLES))


def test_service_can_be_stopped_while_the_database_answers_nothing(server: Server, tmp_path: Path) -> None:
    log = str(tmp_path / "graded.log")
    service = JobService(Options(server.new_database(), log, sample_s=0.02, silent_s=20.0), tmp_path)
    service.start()
    try:
        job = service.post(body_of(SAMPLES))["id"]
        wait_until(lambda: service.job(job)["recorded"], "some verdicts are recorded")
        seen = service.verdicts(job)
        server.freeze()
        try:
            port = service.client.base_url.port
            asked = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
            asked.request("GET", f"/v1/jobs/{job}")
            wait_until(lambda: has_read(port, asked.sock.getsockname()[1]), "the request is under way")
            os.kill(service.pid, signal.SIGTERM)
            assert asked.getresponse().status == 503
            asked.close()
            assert service.process is not None
            assert service.process.wait(DEADLINE_S) == 0
        finally:
            server.thaw()
        service.start()
        verdicts = service.verdicts(job, wait=True)
    finally:
        service.stop()
    assert verdicts[: len(seen)] == seen
    assert sorted(v["sample_id"] for v in verdicts) == sorted(f"s{n}" for n in range(SAMPLES))
