"""Databases to keep jobs in: a SQLite file, and a PostgreSQL server that is started for the tests."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from grader.server.jobs.database import Database

_INSTALL_S = 600
_START_S = 120


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.sqlite3'}"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL, without a database's name, of a server of this test process's own."""
    pytest.importorskip("psycopg", reason="needs the driver: pip install 'grader[postgresql]'")
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="grader-pg-", dir="/tmp"))  # a socket's path has 107 bytes at most
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    if user:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)

    def run(*command: object) -> None:
        done = subprocess.run(
            [str(part) for part in command], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False, timeout=_START_S, **user,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    data = folder / "data"
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c shared_buffers=16MB"
    try:
        run(binaries / "initdb", "-D", data, "-U", "grader", "-A", "trust", "-E", "UTF8", "--no-sync")
        # pg_ctl's child keeps its output open: that of the server goes to a file, or run() would wait for it.
        run(
            binaries / "pg_ctl",
            "-D",
            data,
            "-l",
            folder / "log",
            "-w",
            "-t",
            _START_S,
            "-o",
            options,
            "start",
        )
        try:
            yield f"postgresql://grader@/{{database}}?host={folder}"
        finally:
            run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The URL of an empty database."""
    import psycopg

    name = f"jobs_{os.urandom(6).hex()}"
    with psycopg.connect(postgresql_server.format(database="postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgresql_server.format(database=name)


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
