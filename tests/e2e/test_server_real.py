"""``grader serve`` as a user runs it: real workers, real sandboxes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import grader
from grader.schema import Verdict
from grader.server.models import GradeAnswer
from grader.suites import registry

GRADER = str(Path(sys.executable).with_name("grader"))
LONG_S = 300.0


@pytest.fixture(scope="module")
def service(sandbox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    folder = tmp_path_factory.mktemp("service")
    command = [GRADER, "serve", "--port", "0", "--workers", "2", "--no-jobs"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        url = _url(process, folder / "log")
        while httpx.get(f"{url}/readyz", timeout=LONG_S).status_code != 200:
            assert process.poll() is None
        yield url, process.pid
    finally:
        process.terminate()
        assert process.wait(LONG_S) == 0, (folder / "log").read_text()[-5000:]


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    while process.poll() is None:
        for line in log.read_text().splitlines():
            if '"serving"' in line and line.endswith("}"):
                return str(json.loads(line)["url"])
    raise AssertionError(log.read_text())


def _samples() -> list[dict]:
    rows = [json.loads(line) for line in registry.starter_samples_path().read_text().splitlines()]
    fields = ("task_id", "sample_id", "solution", "completion")
    return [{name: row[name] for name in fields if name in row} for row in rows]


def _said(verdict: Verdict) -> tuple:
    groups = {name: group and group.status for name, group in verdict.groups.items()}
    return verdict.status, verdict.passed, groups, verdict.error and verdict.error.type


def test_http_and_python_give_the_same_verdicts(service):
    url, _ = service
    samples = _samples()
    known = {one.sample_id: _said(one) for one in grader.grade(samples, suite="starter", workers=2)}
    answer = httpx.post(f"{url}/v1/grade", json={"suite": "starter", "samples": samples}, timeout=LONG_S)
    assert answer.status_code == 200, answer.text
    found = GradeAnswer.model_validate_json(answer.content)
    assert [one.sample_id for one in found.verdicts] == [sample["sample_id"] for sample in samples]
    assert {one.sample_id: _said(one) for one in found.verdicts} == known
    assert found.summary.infrastructure_errors == 0
    assert found.summary.sandbox.backend == "namespaces"


def test_a_client_that_leaves_frees_the_workers_for_the_next(service):
    url, _ = service
    endless = {"task_id": "Starter/0", "solution": "while True: pass"}
    body = {"suite": "starter", "samples": [endless] * 50, "use_cache": False}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/grade", json=body, timeout=1.0)
    sample = next(one for one in _samples() if one["sample_id"].endswith("full-program"))
    answer = httpx.post(f"{url}/v1/grade", json={"suite": "starter", "samples": [sample]}, timeout=LONG_S)
    assert answer.json()["verdicts"][0]["status"] == "passed"


def test_what_cannot_be_started_is_refused_with_one_line(sandbox_root):
    command = [GRADER, "serve"]
    for options, said in (
        (["--host", "0.0.0.0"], "--allow-anonymous"),
        (
            ["--port", "1", "--host", "192.0.2.1", "--allow-anonymous", "--no-jobs"],
            "cannot listen on 192.0.2.1",
        ),
        (["--suite", "no-such-suite", "--no-jobs"], "unknown suite"),
        (["--ray-address", "x"], "--engine ray"),
        (["--runtime", "runsc"], "--sandbox docker"),
        (["--api-keys-file", "nowhere", "--no-jobs"], "nowhere cannot be read"),
    ):
        found = subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=LONG_S, check=False
        )
        assert found.returncode == 2, found.stderr
        assert found.stdout == ""
        assert said in found.stderr
        assert "Traceback" not in found.stderr


def test_keys_are_made_on_the_command_line(tmp_path):
    file = tmp_path / "keys.jsonl"
    command = [GRADER, "keys", "add", "team", "--weight", "2"]
    env = {**os.environ, "GRADER_API_KEYS_FILE": str(file)}
    found = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, check=True, env=env)
    assert found.stdout.startswith("grd_")
    assert json.loads(file.read_text())["weight"] == 2.0
    assert found.stdout.strip() not in file.read_text()


def test_a_signal_while_programs_run_lets_them_end(sandbox_root, tmp_path):
    command = [GRADER, "serve", "--port", "0", "--workers", "1", "--no-jobs"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        url = _url(process, tmp_path / "log")
        while httpx.get(f"{url}/readyz", timeout=LONG_S).status_code != 200:
            assert process.poll() is None
        fast = {"task_id": "Starter/0", "solution": "x = 1"}
        slow = {"task_id": "Starter/0", "solution": "while True: pass"}
        body = {
            "suite": "starter",
            "samples": [fast, slow],
            "use_cache": False,
            "limits": {"time_floor_s": 2},
        }
        headers = {"accept": "application/x-ndjson"}
        with httpx.stream("POST", f"{url}/v1/grade", json=body, headers=headers, timeout=LONG_S) as answer:
            lines = answer.iter_lines()
            rows = [json.loads(next(lines))]
            process.send_signal(signal.SIGTERM)
            rows += [json.loads(line) for line in lines]
        assert sorted(row["status"] for row in rows[:-1]) == ["runtime_error", "time_limit"]
        assert process.wait(LONG_S) == 0
    finally:
        process.kill()
        process.wait()
