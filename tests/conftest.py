"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

# On a loaded machine an example may take any time; and no run leaves a file for the next.
settings.register_profile(
    "grader", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("grader")

_PREFIX = "grader-tests-"
_SESSION_FOLDER = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the whole session, all of its xdist workers included, one cache folder of its own."""
    if hasattr(config, "workerinput"):
        return  # the environment is inherited from the process that started this worker
    from grader import settings as grader_settings

    developers = grader_settings.cache_dir()
    _remove_folders_of_killed_sessions()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    folder.chmod(0o755)  # some tests run as another user
    config.stash[_SESSION_FOLDER] = folder
    _borrow_root(developers, folder / "cache")
    os.environ["GRADER_CACHE_DIR"] = str(folder / "cache")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the session's folder."""
    folder = config.stash.get(_SESSION_FOLDER, None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_folders_of_killed_sessions() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _borrow_root(lender: Path, cache: Path) -> None:
    """Use the sandbox's root from the user's own cache where there is one: making it costs a download."""
    from grader.sandbox import rootfs

    (cache / "roots").mkdir(parents=True)
    found = lender / "roots" / rootfs.root_key()
    if found.is_dir():
        (cache / "roots" / found.name).symlink_to(found)


def unavailable(reason: str) -> NoReturn:
    """Skip the test, but in CI fail it: there, everything that a test needs is meant to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of third-party data sets; without it a test is skipped, but in CI it fails."""
    named = os.environ.get("GRADER_DATA_DIR", "")
    folder = Path(named)
    if named and folder.is_dir():
        return folder
    unavailable("needs the third-party data sets: set GRADER_DATA_DIR to their folder")


@pytest.fixture(scope="session")
def samples_dir() -> Path:
    """The folder of samples that real models wrote; without it a test is skipped, but in CI it fails."""
    named = os.environ.get("GRADER_SAMPLES_DIR", "")
    folder = Path(named)
    if named and folder.is_dir():
        return folder
    unavailable("needs real models' samples: set GRADER_SAMPLES_DIR to their folder")


@pytest.fixture(scope="session")
def sandbox_root() -> Path:
    """The root folder of embedded cells; where the kernel cannot make them, skipped, but in CI failed."""
    from grader import settings as grader_settings
    from grader.sandbox import preflight, rootfs

    missing = [mechanism for mechanism in preflight.report() if mechanism.required and not mechanism.ok]
    if missing:
        unavailable("; ".join(f"{mechanism.name}: {mechanism.detail}" for mechanism in missing))
    return rootfs.prepare_root(grader_settings.cache_dir())


@pytest.fixture
def own_cache(sandbox_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that no other test uses; it shares the sandbox's root alone."""
    cache = tmp_path / "cache"
    (cache / "roots").mkdir(parents=True)
    (cache / "roots" / sandbox_root.name).symlink_to(sandbox_root.resolve())
    monkeypatch.setenv("GRADER_CACHE_DIR", str(cache))
    return cache


@pytest.fixture(scope="session")
def debian_packages() -> None:
    """Skip where no root can be made from Debian's packages; in CI that fails, unless this is another system."""
    from grader.errors import SandboxError
    from grader.sandbox import debian_root

    try:
        debian_root.require()
    except SandboxError as error:
        if platform.freedesktop_os_release().get("ID") != "debian":
            pytest.skip(str(error))
        unavailable(str(error))
