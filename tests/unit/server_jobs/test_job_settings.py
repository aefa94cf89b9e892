"""Where jobs are kept, and the settings of the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from grader.errors import InputError
from grader.server.jobs.runner import RunnerSettings
from grader.server.jobs.settings import database_url, runner_settings

VARIABLES = ("KEEP_DAYS", "TENANT_BYTES", "UNFINISHED", "AT_ONCE")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADER_DATABASE_URL", "XDG_STATE_HOME", *(f"GRADER_JOBS_{name}" for name in VARIABLES)):
        monkeypatch.delenv(name, raising=False)


def test_jobs_are_kept_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert database_url() == f"sqlite:///{tmp_path}/.local/state/grader/jobs.sqlite3"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert database_url() == f"sqlite:///{tmp_path}/.local/state/grader/jobs.sqlite3"
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert database_url() == "sqlite:////state/grader/jobs.sqlite3"
    monkeypatch.setenv("GRADER_DATABASE_URL", "postgresql://host/jobs")
    assert database_url() == "postgresql://host/jobs"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runner_settings() == RunnerSettings()
    for name, value in zip(VARIABLES, ("2", "1000", "3", "4"), strict=True):
        monkeypatch.setenv(f"GRADER_JOBS_{name}", value)
    found = runner_settings()
    assert (found.bounds.finished_s, found.bounds.tenant_bytes) == (2 * 86_400, 1000)
    assert (found.bounds.unfinished_jobs, found.jobs_at_once) == (3, 4)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "9" * 30])
@pytest.mark.parametrize("name", VARIABLES)
def test_wrong_setting_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"GRADER_JOBS_{name}", value)
    with pytest.raises(InputError, match=name):
        runner_settings()
