from pathlib import Path

import pytest

from grader import settings
from grader.errors import InputError

NAMES = ["DATA_DIR", "CACHE_DIR", "ENGINE", "SANDBOX", "WORKERS"]


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    for name in NAMES:
        monkeypatch.delenv(f"GRADER_{name}", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def all_settings():
    return (
        settings.data_dir(),
        settings.cache_dir(),
        settings.engine(),
        settings.sandbox(),
        settings.workers(),
    )


def test_defaults_and_empty_variables(monkeypatch, tmp_path):
    expected = (None, tmp_path / ".cache" / "grader", "local", "auto", None)
    assert all_settings() == expected
    for name in NAMES:
        monkeypatch.setenv(f"GRADER_{name}", "")
    assert all_settings() == expected


def test_values(monkeypatch, tmp_path):
    values = [tmp_path, tmp_path / "new", "ray", "docker", "12"]
    for name, value in zip(NAMES, values, strict=True):
        monkeypatch.setenv(f"GRADER_{name}", str(value))
    assert all_settings() == (tmp_path, tmp_path / "new", "ray", "docker", 12)


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert settings.cache_dir() == Path("/xdg/grader")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert settings.cache_dir() == tmp_path / ".cache" / "grader"
    monkeypatch.setenv("GRADER_CACHE_DIR", "~/mine")
    assert settings.cache_dir() == tmp_path / "mine"


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "two", "4097", "٣", "9" * 5000])
def test_bad_numbers_of_workers(monkeypatch, value):
    monkeypatch.setenv("GRADER_WORKERS", value)
    with pytest.raises(InputError, match="GRADER_WORKERS"):
        settings.workers()


@pytest.mark.parametrize("name", ["engine", "sandbox"])
def test_bad_choices(monkeypatch, name):
    monkeypatch.setenv(f"GRADER_{name.upper()}", "Local")
    with pytest.raises(InputError, match=f"GRADER_{name.upper()} is 'Local'; give one of"):
        getattr(settings, name)()


def test_bad_folders(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("GRADER_DATA_DIR", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"GRADER_DATA_DIR names .*none, which is not a folder"):
        settings.data_dir()
    monkeypatch.setenv("GRADER_CACHE_DIR", str(file))
    with pytest.raises(InputError, match="set GRADER_CACHE_DIR to another"):
        settings.cache_dir()
