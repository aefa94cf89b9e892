"""A job whose samples run in real cells, through ``grader serve``, killed in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import grader
from grader.suites import registry

DEADLINE_S = 240.0
_MAIN = "from grader.cli import main; main()"
_URL = re.compile(r"http://127\.0\.0\.1:\d+")
_COMPARED = ("sample_id", "task_id", "status", "passed", "groups", "reward", "error")


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + DEADLINE_S
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)


class Service:
    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "GRADER_CACHE_DIR": str(cache), "GRADER_WORKERS": "2", "TMPDIR": str(folder),
            "PYTHONPATH": str(Path(grader.__file__).parent.parent),
        }  # fmt: skip
        self.starts = 0

    def start(self) -> httpx.Client:
        self.starts += 1
        output = self.folder / f"serve-{self.starts}.log"
        command = ["serve", "--port", "0", "--database-url", f"sqlite:///{self.folder / 'jobs.sqlite3'}"]
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-P", "-c", _MAIN, *command], env=self.environment,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip

        def listening() -> re.Match[str] | None:
            assert self.process.poll() is None, output.read_text()
            return _URL.search(output.read_text())

        base = wait_until(listening, "the service listens")[0]
        return httpx.Client(base_url=base, timeout=DEADLINE_S)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@pytest.mark.parametrize("kills", [2])
def test_killed_front_door_leaves_the_verdicts_that_it_would_have_given(
    own_cache: Path, tmp_path: Path, kills: int
) -> None:
    rows = [json.loads(line) for line in registry.starter_samples_path().read_text().splitlines()]
    samples = [{key: row[key] for key in ("task_id", "solution", "completion") if key in row} for row in rows]
    samples = [{**sample, "sample_id": f"{n}"} for n, sample in enumerate(samples)]
    body = {
        "suite": "starter",
        "samples": samples,
        "limits": {"time_floor_s": 2.0, "memory_bytes": 256 << 20},
    }
    service = Service(tmp_path, own_cache)
    client = service.start()
    try:
        made = client.post("/v1/jobs", json=body)
        assert made.status_code == 202, made.text
        path = f"/v1/jobs/{made.json()['id']}"
        for kill in range(kills):
            wanted = (kill + 1) * len(samples) // (kills + 2)
            wait_until(lambda: client.get(path).json()["recorded"] >= wanted, "some are recorded")  # noqa: B023
            client.close()
            service.end(signal.SIGKILL)
            client = service.start()
        answer = client.get(f"{path}/verdicts", params={"wait": True})
        verdicts = [json.loads(line) for line in answer.text.splitlines()]
        whole = client.post("/v1/grade", json=body).json()
        wait_until(lambda: client.get(path).json()["state"] == "done", "the job is done")
        summary = client.get(path).json()["summary"]
        client.close()
        assert service.end(signal.SIGTERM) == 0
    finally:
        client.close()
        if service.process.poll() is None:
            service.end(signal.SIGKILL)
    found = {v["sample_id"]: {key: v[key] for key in _COMPARED} for v in verdicts}
    assert len(verdicts) == len(samples)
    assert found == {v["sample_id"]: {key: v[key] for key in _COMPARED} for v in whole["verdicts"]}
    for key in ("samples", "statuses", "pass_at_k", "infrastructure_errors"):
        assert summary[key] == whole["summary"][key]
