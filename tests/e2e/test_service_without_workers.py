"""``grader serve`` where no worker can work, and where they die: what the process, its log and /readyz say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import grader
from grader.sandbox.liveness import descendants

DEADLINE_S = 120.0
_WITHOUT = """
from grader.engines import child
child._START_WORKER = '''
from grader.worker.link import Link
from grader.worker.messages import Failed
link = Link(0, 1)
link.receive()
link.send([Failed("SandboxError", "this kernel has no such thing; boot another")])
'''
"""
_MAIN = "from grader.cli import main; main()"


def events(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def wait_until(condition, what):
    end = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)
    return found


@pytest.fixture
def serve(own_cache, tmp_path):
    """Start the service with something done before; returns (process, file of its log)."""
    started = []

    def start(before=""):
        log = tmp_path / "log"
        environment = os.environ | {
            "GRADER_CACHE_DIR": str(own_cache), "PYTHONPATH": str(Path(grader.__file__).parent.parent),
        }  # fmt: skip
        command = [sys.executable, "-P", "-c", before + _MAIN, "serve", "--port", "0", "--workers", "1"]
        with log.open("wb") as file:
            process = subprocess.Popen([*command, "--no-jobs"], stderr=file, stdout=file, env=environment)
        started.append(process)
        return process, log

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_service_without_a_worker_ends_and_says_why(serve):
    process, log = serve(_WITHOUT)
    assert process.wait(DEADLINE_S) == 3
    assert log.read_text().rstrip().endswith("grader: this kernel has no such thing; boot another")
    (said,) = [one for one in events(log) if one["event"] == "no_worker_can_work"]
    assert (said["level"], said["error_type"]) == ("critical", "SandboxError")


def test_a_worker_that_dies_is_in_the_log_under_its_name(serve):
    process, log = serve()

    def named(event):
        return [one["worker_id"] for one in events(log) if one["event"] == event]

    url = wait_until(lambda: [one["url"] for one in events(log) if one["event"] == "serving"], "it serves")[0]
    for number in range(1, 6):
        wait_until(lambda: len(named("worker_ready")) == number, "a worker is ready")  # noqa: B023
        worker = next(
            pid for pid in descendants(process.pid) if b"grader.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )  # fmt: skip
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: len(named("worker_lost")) == number, "its loss is noticed")  # noqa: B023
    with httpx.Client(base_url=url, timeout=DEADLINE_S) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, "it is ready again, also after five")
    assert named("worker_lost") == named("worker_ready")[:5]
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
