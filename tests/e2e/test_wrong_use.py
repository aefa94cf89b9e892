"""What cannot work on a machine, or contradicts itself, ends with words that say what to do, and no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NO_JOBS = ("--no-jobs", "--port", "0")

# Each: environment, arguments, exit code, and what the last line says.
WRONG = {
    "a cache folder that cannot be": (
        {"GRADER_CACHE_DIR": "/proc/nowhere"},
        ("score", "{samples}", "--suite", "starter"),
        3,
        "set GRADER_CACHE_DIR to one that can be",
    ),
    "the same for the service": (
        {"GRADER_CACHE_DIR": "/proc/nowhere"},
        ("serve", *NO_JOBS),
        3,
        "set GRADER_CACHE_DIR to one that can be",
    ),
    "a data folder that is none": (
        {"GRADER_DATA_DIR": "/proc/nowhere"},
        ("score", "{samples}", "--suite", "humaneval+"),
        2,
        "GRADER_DATA_DIR names /proc/nowhere, which is not a folder",
    ),
    "the same for the list": (
        {"GRADER_DATA_DIR": "/proc/nowhere"},
        ("suites", "list"),
        2,
        "GRADER_DATA_DIR names /proc/nowhere, which is not a folder",
    ),
    "the same for the service's suites": (
        {"GRADER_DATA_DIR": "/proc/nowhere"},
        ("serve", *NO_JOBS),
        2,
        "GRADER_DATA_DIR names /proc/nowhere, which is not a folder",
    ),
    "no room for jobs": (
        {"XDG_STATE_HOME": "/proc/nowhere"},
        ("serve", "--port", "0"),
        2,
        "name another one with --database-url, or give --no-jobs",
    ),
    "none and another": (
        {},
        ("serve", "--compat", "none", "--compat", "piston", *NO_JOBS),
        2,
        "--compat none and --compat piston contradict each other",
    ),
    "a Ray that is not there": (
        {"GRADER_RAY_ADDRESS": "127.0.0.1:1"},
        ("score", "{samples}", "--suite", "starter", "--engine", "ray"),
        3,
        "give the address of its head, or start one",
    ),
    "no Docker daemon": (
        {"DOCKER_HOST": "unix:///proc/nowhere"},
        ("score", "{samples}", "--suite", "starter", "--sandbox", "docker"),
        3,
        "no Docker daemon answers at unix:///proc/nowhere: start it",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use_ends_with_what_to_do(command, tmp_path, monkeypatch, what):
    environment, arguments, code, says = WRONG[what]
    if "docker" in arguments:
        pytest.importorskip("docker", reason="needs Docker's SDK")
    samples = tmp_path / "samples.jsonl"
    samples.write_text(json.dumps({"task_id": "Starter/0", "solution": "x = 1"}))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command.cache = Path(environment.get("GRADER_CACHE_DIR", command.cache))
    ended = command(*(argument.format(samples=samples) for argument in arguments))
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("grader: ")
    assert says in last
