"""Training with rewards of the real service: by TRL's own trainer, and by the example that learns."""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import grader

REPOSITORY = Path(grader.__file__).parent.parent
DEADLINE_S = 300
# The first test of a machine makes the environments.
pytestmark = pytest.mark.timeout(1800)


def test_trls_own_trainer_trains_with_our_rewards(trl_environment: Any, service: Any, tmp_path: Path) -> None:
    settings = {"GRADER_URL": service.url, "STEPS": "5", "FOLDER": str(tmp_path), "OMP_NUM_THREADS": "1"}
    steps: list[dict[str, Any]] = trl_environment.run("trl_training.py", **settings)
    assert len(steps) == 5
    for step in steps:
        for measure in ("mean", "std"):
            ours, theirs = (step[f"rewards/{name}/{measure}"] for name in ("code_reward", "found_out_here"))
            assert ours == theirs
        assert step["code_reward/pass_rate"] == pytest.approx(step["rewards/code_reward/mean"])
        assert step["code_reward/infrastructure_error_rate"] == 0
        assert step["code_reward/latency_s"] > 0
    assert any(0 < step["rewards/code_reward/mean"] < 1 for step in steps)


def test_the_example_learns(trl_environment: Any, service: Any, tmp_path: Path) -> None:
    example = REPOSITORY / "examples" / "learn.py"
    arguments = ["--steps", "15", "--tasks", "5", "--url", service.url, "--output", tmp_path]
    # The environment has of the grader's needs those of its client alone.
    path = os.pathsep.join(map(str, (*trl_environment.layers, REPOSITORY)))
    ended = subprocess.run(
        [trl_environment.python, example, *arguments], check=False, capture_output=True, text=True,
        timeout=DEADLINE_S, env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-5000:]
    with (tmp_path / "learn.csv").open(newline="") as file:
        steps = list(csv.DictReader(file))
    rewards = [float(step["reward"]) for step in steps]
    assert len(rewards) == 15
    assert all(step["not_judged"] == "0" for step in steps)
    # It triples; the network is the same from run to run, and a program's reward is no matter of time.
    assert sum(rewards[-3:]) > 2 * sum(rewards[:3])
    assert "<polyline" in (tmp_path / "learn.svg").read_text("utf-8")
