"""A short run of loadtest/soak.py: it shows that nothing grows and nothing is left, and would say so otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOADTEST = Path(__file__).parents[2] / "loadtest"


def soak(*options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        LOADTEST / "soak.py",
        "--samples",
        "20000",
        "--batch",
        "32",
        "--clients",
        "2",
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


@pytest.mark.usefixtures("own_cache")
def test_nothing_grows_and_nothing_is_left() -> None:
    ended = soak("--seconds", "15")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "processes left: 0, files left: 0" in ended.stdout


@pytest.mark.usefixtures("own_cache")
def test_growth_would_be_seen() -> None:
    ended = soak("--seconds", "4", "--max-growth-mib", "-100")
    assert ended.returncode == 1
    assert "a process grew by" in ended.stderr
