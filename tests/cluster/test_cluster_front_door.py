"""The front door is killed with jobs running on a Ray engine: the jobs go on, and nothing of its own Ray is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cluster_harness as harness
import httpx
import pytest

import grader
from grader.engines.ray import RayPool

_KILLS = 1


class FrontDoor:
    """``grader serve --engine ray``, started and killed on the same database."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options, self.mark = folder, options, uuid.uuid4().hex
        self.starts = 0

    def start(self) -> httpx.Client:
        self.starts += 1
        log = self.folder / f"log-{self.starts}"
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", "from grader.cli import main; main()", "serve", "--port", "0",
                 "--engine", "ray", "--database-url", f"sqlite:///{self.folder}/jobs.sqlite3", *self.options],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env={**os.environ, "TMPDIR": str(self.folder), harness._MARK: self.mark,
                     "PYTHONPATH": str(Path(grader.__file__).parent.parent)},
            )  # fmt: skip

        def serving() -> Any:
            assert self.process.poll() is None, log.read_text()
            lines = (json.loads(line) for line in log.read_text().splitlines() if line.startswith("{"))
            return [line["url"] for line in lines if line.get("event") == "serving"]

        return httpx.Client(base_url=harness.wait_until(serving, "it serves")[0], timeout=harness.DEADLINE_S)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(harness.DEADLINE_S)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="gct-"))  # short: Ray's sockets are in it
    yield made
    shutil.rmtree(made, ignore_errors=True)


def front_door_killed(door: FrontDoor, work: harness.Work) -> None:
    """Run a job, kill the front door in it, and see that each sample has one verdict, and the right one."""
    samples = [
        {"task_id": one.task_id, "sample_id": one.sample_id, "solution": one.source} for one in work.programs
    ]
    client = door.start()
    try:
        made = client.post("/v1/jobs", json={"suite": "starter", "samples": samples, "use_cache": False})
        assert made.status_code == 202, made.text
        path = f"/v1/jobs/{made.json()['id']}"
        for kill in range(_KILLS):
            wanted = (kill + 1) * len(samples) // (10 * _KILLS)
            recorded = harness.wait_until(
                lambda: (found := client.get(path).json()["recorded"]) >= wanted and found,  # noqa: B023
                "some are recorded",
            )
            assert recorded < len(samples), "the job ended too early to be interrupted"
            client.close()
            door.end(signal.SIGKILL)
            client = door.start()
        lines = client.get(f"{path}/verdicts", params={"wait": True}).text.splitlines()
        verdicts = [json.loads(line) for line in lines]
        harness.wait_until(lambda: client.get(path).json()["state"] == "done", "the job is done")
        assert Counter(one["sample_id"] for one in verdicts) == dict.fromkeys(work.expected, 1)
        assert {one["sample_id"]: one["status"] for one in verdicts} == {
            name: one["status"] for name, one in work.expected.items()
        }
        client.close()
        assert door.end(signal.SIGTERM) == 0
    finally:
        client.close()
        if door.process.poll() is None:
            door.end(signal.SIGKILL)


@pytest.mark.usefixtures("alone", "own_cache")
def test_jobs_survive_it_on_a_ray_of_its_own_of_which_nothing_is_left(
    folder: Path, starter: harness.Work
) -> None:
    pytest.importorskip("ray")
    door = FrontDoor(folder, "--workers", "2")
    front_door_killed(door, starter)
    harness.no_process_is_left(door.mark)
    assert list(folder.glob("grader-ray-*")) == []


@pytest.mark.usefixtures("own_cache")
def test_jobs_survive_it_in_a_cluster(
    nodes: harness.Nodes, joined: Callable[..., RayPool], folder: Path, starter: harness.Work
) -> None:
    nodes.add(2)
    door = FrontDoor(folder, "--ray-address", nodes.address)
    front_door_killed(door, starter)
    harness.no_process_is_left(door.mark)
