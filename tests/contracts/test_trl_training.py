"""Training with rewards of a real service: by TRL's own trainer, and by the example that learns."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import grader

REPOSITORY = Path(grader.__file__).parent.parent
HERE = Path(__file__).parent
DEADLINE_S = 600

# What pip is given, in this order: torch first, as the build for CPUs, which TRL then finds installed.
REQUIREMENTS = (
    ("torch==2.13.0",),
    ("trl==1.16.0", "transformers==5.23.0", "datasets==5.2.0", "accelerate==1.15.0", "httpx==0.28.1"),
)


def _environments() -> Path:
    """Where environments are kept from one session to the next: making one costs a gigabyte of downloads."""
    named = os.environ.get("GRADER_TEST_ENVIRONMENTS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else cache / "grader" / "test-environments"


def _make(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    # Compiling all of it takes longer than to compile what is imported.
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile"]
    for packages in REQUIREMENTS:
        made = subprocess.run(
            [*install, *packages], check=False, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert made.returncode == 0, f"pip install {' '.join(packages)}: {made.stderr}"


@pytest.fixture(scope="module")
def trl_python() -> Path:
    """The interpreter of an environment with TRL, made once, whoever asks for it first."""
    key = hashlib.sha256(repr((sys.version_info[:3], REQUIREMENTS)).encode()).hexdigest()[:16]
    folder = _environments() / f"trl-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    complete = folder / "complete"
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            _make(folder)
            complete.touch()
    return folder / "bin" / "python"


@pytest.fixture
def service_url(sandbox_root: Path, tmp_path: Path) -> Iterator[str]:
    """A ``grader serve`` of the test's own, with a worker."""
    log = tmp_path / "service.log"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "GRADER_WORKERS": "1"}
    command = [sys.executable, "-P", "-c", "from grader.cli import main; main()", "serve", "--port", "0"]
    database = f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    with (
        log.open("w") as out,
        subprocess.Popen(
            [*command, "--database-url", database], stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.PIPE, text=True, env=environment,
        ) as service,
    ):  # fmt: skip
        try:
            assert service.stderr
            yield _url_of(service.stderr)
            service.terminate()
            service.communicate(timeout=DEADLINE_S)
            assert service.returncode == 0
        finally:
            service.kill()


def _url_of(lines: Iterator[str]) -> str:
    seen = []
    for line in lines:
        seen.append(line)
        found = json.loads(line)
        if found["event"] == "serving":
            return str(found["url"])
    raise AssertionError(f"the service ended before it served: {seen}")


@pytest.fixture
def run(trl_python: Path, tmp_path: Path) -> Callable[..., str]:
    """Run a program in the environment with TRL, where of the grader's needs those of its client alone are met."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip

    def run(*arguments: object) -> str:
        ended = subprocess.run(
            [trl_python, *map(str, arguments)], check=False,
            capture_output=True, text=True, timeout=DEADLINE_S, env=environment, cwd=tmp_path,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-5000:]
        return ended.stdout

    return run


def test_trls_own_trainer_trains_with_our_rewards(
    run: Callable[..., str], service_url: str, tmp_path: Path
) -> None:
    printed = run(HERE / "trl_training.py", service_url, 5, tmp_path / "output")
    steps: list[dict[str, Any]] = json.loads(printed.splitlines()[-1])
    assert len(steps) == 5
    for step in steps:
        for measure in ("mean", "std"):
            ours, theirs = (step[f"rewards/{name}/{measure}"] for name in ("code_reward", "found_out_here"))
            assert ours == theirs
        assert step["code_reward/pass_rate"] == pytest.approx(step["rewards/code_reward/mean"])
        assert step["code_reward/infrastructure_error_rate"] == 0
        assert step["code_reward/latency_s"] > 0
    assert any(0 < step["rewards/code_reward/mean"] < 1 for step in steps)
