"""What a killed process left of its Ray is ended and removed by the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from grader.engines import ray_cluster


@pytest.fixture
def dead() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_processes_and_folders_of_the_dead_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started, readers = {}, []
    for owner in (dead, os.getpid()):
        folder = tmp_path / f"grader-ray-{owner}-abc"
        folder.mkdir()
        environment = os.environ | {"GRADER_RAY_FOLDER": str(folder)}
        with (folder / "log").open("w") as log:
            started[folder] = [
                subprocess.Popen(["sleep", "60"], env=environment),
                subprocess.Popen(["ray::Agent", "60"], executable="sleep", pass_fds=[log.fileno()]),
            ]
            readers.append(subprocess.Popen(["sleep", "60"], pass_fds=[log.fileno()]))
    try:
        ray_cluster._remove_what_the_dead_left()
        (ours, living), (left, ended) = sorted(started.items(), key=lambda one: f"-{dead}-" in one[0].name)
        assert [process.wait(30) for process in ended] == [-9, -9]
        assert not left.exists()
        assert [process.poll() for process in living] == [None, None]
        assert ours.exists()
        assert [process.poll() for process in readers] == [None, None]
    finally:
        for process in (process for some in (*started.values(), readers) for process in some):
            process.kill()
            process.wait()
