"""The machine's clock is set back an hour, or forward, in the middle of a job and of a batch: no verdict differs."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import grader
from grader.suites import registry

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "server_jobs"))

from settable_clock import HOUR_S, SettableClock, settable_clock

DEADLINE_S = 240.0
_MAIN = "from grader.cli import main; main()"
_URL = re.compile(r"http://127\.0\.0\.1:\d+")
_COMPARED = ("sample_id", "task_id", "status", "passed", "groups", "reward", "error")


@pytest.fixture
def clock() -> Iterator[SettableClock]:
    with settable_clock() as made:
        yield made


@pytest.fixture(params=["local", "ray"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The engine. A test with a Ray of its own waits for those of other test processes."""
    if request.param == "ray":
        pytest.importorskip("ray")
        with Path(tempfile.gettempdir(), "grader-cluster-tests.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield "ray"
    else:
        yield "local"


@pytest.fixture
def client(own_cache: Path, tmp_path: Path, clock: SettableClock, engine: str) -> Iterator[httpx.Client]:
    """A client of a service whose clock, and the clock of all that it starts, can be set."""
    log = tmp_path / "serve.log"
    environment = os.environ | clock.environment
    environment |= {
        "GRADER_WORKERS": "2", "GRADER_JOBS_AT_ONCE": "1",
        "PYTHONPATH": str(Path(grader.__file__).parent.parent),
    }  # fmt: skip
    command = [
        "serve",
        "--engine",
        engine,
        "--port",
        "0",
        "--database-url",
        f"sqlite:///{tmp_path / 'jobs.sqlite3'}",
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", "-P", "-c", _MAIN, *command], env=environment,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        found = wait_until(lambda: process.poll() is not None or _URL.search(log.read_text()), "it listens")
        assert process.poll() is None, log.read_text()
        with httpx.Client(base_url=found[0], timeout=DEADLINE_S) as made:
            yield made
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0, log.read_text()
        assert not re.search(r"Traceback|\"level\": ?\"(error|critical)\"", log.read_text()), log.read_text()
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + DEADLINE_S
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)


def request() -> dict[str, Any]:
    """The starter suite's samples, to be graded within half of what the clock is set by."""
    rows = [json.loads(line) for line in registry.starter_samples_path().read_text().splitlines()]
    rows = [{key: row[key] for key in ("task_id", "solution", "completion") if key in row} for row in rows]
    samples = [{**row, "sample_id": f"s{n}"} for n, row in enumerate(rows)]
    return {
        "suite": "starter", "samples": samples, "use_cache": False, "timeout_s": HOUR_S / 2,
        "limits": {"time_floor_s": 1.0, "memory_bytes": 256 << 20},  # which a hoarder fills in a fraction of its time
    }  # fmt: skip


def said(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    found = {verdict["sample_id"]: {key: verdict[key] for key in _COMPARED} for verdict in verdicts}
    assert len(found) == len(verdicts), "a sample has two verdicts"
    return found


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S], ids=["back", "forward"])
def test_clock_that_is_set_changes_no_verdict(
    client: httpx.Client, clock: SettableClock, step_s: int
) -> None:
    body = request()
    undisturbed = client.post("/v1/grade", json=body).json()
    expected = said(undisturbed["verdicts"])
    assert len(expected) == len(body["samples"])

    made = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "job"}).json()
    path = f"/v1/jobs/{made['id']}"
    few = {**body, "samples": body["samples"][:20]}
    waiting = client.post("/v1/jobs", json=few).json()
    headers = {"accept": "application/x-ndjson", "idempotency-key": "batch"}
    with client.stream("POST", "/v1/grade", json=body, headers=headers) as answer:
        lines = answer.iter_lines()
        first = next(lines)
        before = wait_until(lambda: (found := client.get(path).json())["recorded"] and found, "the job runs")
        clock.set(step_s)
        assert before["recorded"] < before["samples"]
        assert client.get(f"/v1/jobs/{waiting['id']}").json()["state"] == "queued"
        batch = [first, *lines]
    job = [
        json.loads(line) for line in client.get(f"{path}/verdicts", params={"wait": True}).text.splitlines()
    ]
    assert said([json.loads(line) for line in batch[:-1]]) == expected
    assert said(job) == expected

    done = wait_until(
        lambda: (found := client.get(path).json())["state"] == "done" and found, "the job is done"
    )
    for summary in (json.loads(batch[-1])["summary"], done["summary"]):
        for key in ("samples", "statuses", "pass_at_k", "infrastructure_errors"):
            assert summary[key] == undisturbed["summary"][key]
        assert 0 < summary["wall_s"] < HOUR_S / 2
    # What was begun before the clock was set is known by its key, and nothing is deleted.
    assert client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "job"}).json()["id"] == made["id"]
    again = client.post("/v1/grade", json=body, headers=headers)
    assert again.text.splitlines() == batch
    clock.set(-step_s)
    assert client.get(path).json()["recorded"] == len(expected)
    # A job that waited meanwhile, and one that is made now, are graded like any other.
    later = client.post("/v1/jobs", json=few).json()
    off_s = datetime.fromisoformat(later["created_at"]).timestamp() - time.time()
    assert abs(off_s + step_s) < HOUR_S / 2  # the clock has been set indeed
    for each in (waiting, later):
        text = client.get(f"/v1/jobs/{each['id']}/verdicts", params={"wait": True}).text
        verdicts = said([json.loads(line) for line in text.splitlines()])
        assert verdicts == {sample["sample_id"]: expected[sample["sample_id"]] for sample in few["samples"]}
