"""schemathesis against the service's own description: no 5xx, no answer that is not documented."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from grader.server.compat.catalogue import APIS, compat_parts
from grader.server.keys import add_key

SERVICE = Path(__file__).parents[2] / "loadtest" / "noop_service.py"
# Whether a suite has a task, or a tenant a job, is nothing that a schema can say: what fits it may still be refused.
LEFT_OUT = "positive_data_acceptance"
# APIs with no path in common, and the paths that need not be looked at again.
SERVICES = (
    (("sandbox-fusion", "piston", "open-r1-e2b", "openrlhf", "slime", "nemo-gym"), "^$"),
    (("open-r1-morph",), "^/(v1/|healthz|readyz)"),
    (("nemo-skills",), "^/(v1/|healthz|readyz)"),
    (("open-instruct",), "^/(v1/|healthz|readyz)"),
)


def test_every_foreign_api_is_looked_at():
    assert sorted(name for names, _ in SERVICES for name in names) == sorted(APIS)
    for names, _ in SERVICES:
        compat_parts(names)


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("apis", "seen"), SERVICES, ids=[names[0] for names, _ in SERVICES])
def test_the_service_keeps_to_its_description(tmp_path: Path, apis: tuple[str, ...], seen: str):
    keys, database = tmp_path / "keys.jsonl", tmp_path / "jobs.sqlite3"
    key = add_key(keys, "tester")
    command = [sys.executable, SERVICE, "--api-keys-file", keys, "--database-url", f"sqlite:///{database}"]
    command += [part for name in apis for part in ("--compat", name)]
    with (tmp_path / "log").open("wb") as log:
        service = subprocess.Popen(command, stderr=log)
    try:
        found = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"), "run", f"{_url(service, tmp_path)}/openapi.json",
                "-H", f"Authorization: Bearer {key}", "--checks", "all", "--exclude-checks", LEFT_OUT,
                "--exclude-path-regex", seen,
                "--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1",
                "--generation-database", "none", "--continue-on-failure", "--request-timeout", "60", "--no-color",
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=2000,
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
