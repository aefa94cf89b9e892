"""A PostgreSQL server of a test's own, which can be stopped, killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from grader.sandbox.liveness import descendants

START_S = 120


class Server:
    """A server without a port: it is reached through a socket in its folder. ``environment`` is added to its own."""

    def __init__(self, binaries: Path, environment: Mapping[str, str] | None = None) -> None:
        self._binaries = binaries
        self._environment = os.environ | dict(environment or {})
        # A socket's path has 107 bytes at most.
        self.folder = Path(tempfile.mkdtemp(prefix="grader-pg-", dir="/tmp"))
        self._data = self.folder / "data"
        self._user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if self._user:
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)

    @property
    def url(self) -> str:
        """The URL, with a place for the database's name."""
        return f"postgresql://grader@/{{database}}?host={self.folder}"

    def make(self) -> None:
        self._run("initdb", "-D", self._data, "-U", "grader", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Start it, again if need be: what is left of a killed server holds the folder until it has noticed."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c shared_buffers=16MB"
        # pg_ctl's child keeps its output open: that of the server goes to a file, or this would wait for it.
        patience = ("-w", "-t", START_S)
        command = ("-D", self._data, "-l", self.folder / "log", *patience, "-o", options, "start")
        end = time.monotonic() + START_S
        while True:
            try:
                return self._run("pg_ctl", *command)
            except AssertionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def stop(self, mode: str) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", mode, "-w", "stop")

    def kill(self) -> None:
        """Kill the postmaster, as the kernel does when memory is short; its children notice by themselves."""
        os.kill(int((self._data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def freeze(self) -> None:
        """Have it answer nobody, and close no connection."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        for pid in descendants(int((self._data / "postmaster.pid").read_text().split()[0])):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def new_database(self) -> str:
        """Return the URL of an empty database."""
        import psycopg

        name = f"jobs_{os.urandom(6).hex()}"
        with psycopg.connect(self.url.format(database="postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url.format(database=name)

    def remove(self) -> None:
        with suppress(AssertionError):  # it does not run
            self.stop("immediate")
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: object) -> None:
        done = subprocess.run(
            [str(part) for part in (self._binaries / program, *arguments)], cwd=self.folder, env=self._environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=START_S, **self._user,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@contextmanager
def serving(binaries: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a server for as long as the context lasts."""
    server = Server(binaries, environment)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.remove()
