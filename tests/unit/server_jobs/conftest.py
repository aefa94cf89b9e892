"""Databases to keep jobs in: a SQLite file, and a PostgreSQL server that is started for the tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from postgresql import Server, serving

from grader.server.jobs.database import Database

_INSTALL_S = 600


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.sqlite3'}"


@pytest.fixture(scope="session")
def postgresql_binaries() -> Path:
    """The folder of PostgreSQL's programs."""
    pytest.importorskip("psycopg", reason="needs the driver: pip install 'grader[postgresql]'")
    return _binaries()


@pytest.fixture(scope="session")
def postgresql_server(postgresql_binaries: Path) -> Iterator[Server]:
    """A server of this test process's own."""
    with serving(postgresql_binaries) as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: Server) -> str:
    """The URL of an empty database."""
    return postgresql_server.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url, busy_timeout_s=0.1)
    database.open()
    yield database
    database.close()


def _binaries() -> Path:
    found = _found()
    if found is None and os.environ.get("CI") == "true" and os.geteuid() == 0:
        _install()
        found = _found()
    if found is None:
        reason = "needs PostgreSQL's server: install the package postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def _found() -> Path | None:
    if path := shutil.which("initdb"):
        return Path(path).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


def _install() -> None:
    # One test process installs, the others wait for it.
    with Path(tempfile.gettempdir(), "grader-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _found() is not None:
            return
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
            subprocess.run(
                ["apt-get", "-qq", *command], env=environment, timeout=_INSTALL_S, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
