"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# On a loaded machine an example may take any time; and no run leaves a file for the next.
settings.register_profile(
    "grader", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("grader")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of third-party data sets; without it a test is skipped, but in CI it fails."""
    named = os.environ.get("GRADER_DATA_DIR", "")
    folder = Path(named)
    if named and folder.is_dir():
        return folder
    reason = "needs the third-party data sets: set GRADER_DATA_DIR to their folder"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
