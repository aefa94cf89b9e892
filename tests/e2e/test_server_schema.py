"""schemathesis against the service's own description: no 5xx, no answer that is not documented."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from grader.server.keys import add_key

SERVICE = Path(__file__).parents[2] / "loadtest" / "noop_service.py"
# Whether a suite has a task, or a tenant a job, is nothing that a schema can say: what fits it may still be refused.
LEFT_OUT = "positive_data_acceptance"


def test_the_service_keeps_to_its_description(tmp_path: Path):
    keys, database = tmp_path / "keys.jsonl", tmp_path / "jobs.sqlite3"
    key = add_key(keys, "tester")
    command = [sys.executable, SERVICE, "--api-keys-file", keys, "--database-url", f"sqlite:///{database}"]
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen(command, stderr=log)
    try:
        found = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"), "run", f"{_url(service, tmp_path)}/openapi.json",
                "-H", f"Authorization: Bearer {key}", "--checks", "all", "--exclude-checks", LEFT_OUT,
                "--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1",
                "--generation-database", "none", "--continue-on-failure", "--request-timeout", "60", "--no-color",
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=500,
        )  # fmt: skip
        assert found.returncode == 0, found.stdout[-20_000:]
    finally:
        service.terminate()
        service.wait()
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert not [event for event in events if event["event"] == "request_failed"]


def _url(service: subprocess.Popen[bytes], folder: Path) -> str:
    while service.poll() is None:
        for line in (folder / "log").read_text().splitlines():
            if '"serving"' in line:
                return str(json.loads(line)["url"])
    raise AssertionError((folder / "log").read_text())
