"""The database under jobs and idempotency keys: SQLite in a file, or PostgreSQL for several replicas."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import logging
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from grader.errors import InputError
from grader.server.jobs import tables
from grader.server.jobs.errors import StoreUnavailableError

BUSY_TIMEOUT_S = 5.0
SILENT_S = 120.0
_LOCK_PATIENCE_S = 10.0
_SCHEMA_LOCK = 0x67726164  # any number that all replicas agree on
# Those who read jobs and verdicts, however many, cannot hold up the work on jobs or have its leases run out.
_CLIENT_THREADS = 4
_RUNNER_THREADS = 6  # claims, records, renewals, the sweep, and two for what the jobs under way ask
# Threads that are not the database's recount the verdicts of jobs that are resumed, each for a moment.
_MORE_CONNECTIONS = 6
# A connection for every thread: none waits for another's.
_POOL = {
    "pool_size": _CLIENT_THREADS + _RUNNER_THREADS,
    "max_overflow": _MORE_CONNECTIONS,
    "pool_timeout": 30,
}
_PAGES_AT_ONCE = 2000
_WRITES = "grader_writes"

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

_log = logging.getLogger("grader.jobs")


class Database:
    """Hands out transactions. Every committed transaction is on disk when ``write()`` ends.

    With SQLite, one process at a time uses the file: it holds a lock on a file beside it, which the kernel lets go
    of when the process dies however it dies. Methods block: an event loop calls them through :meth:`ask`.

    ``silent_s``: wall-clock seconds after which a database server that has not answered is hung up on. One that answers
    ends each statement within 60 s.
    """

    def __init__(
        self, url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S, silent_s: float = SILENT_S
    ) -> None:
        self._busy_timeout_s = busy_timeout_s
        self._silent_s = silent_s
        self.url = _checked(url)
        self.is_shared = self.url.get_backend_name() == "postgresql"
        self._lock: int | None = None
        self._engine: Engine | None = None
        self._abandoned = False
        self._open: set[Any] = set()  # connections to a server, as its driver has them
        self._for_clients = ThreadPoolExecutor(_CLIENT_THREADS, thread_name_prefix="grader-jobs-clients")
        self._for_runner = ThreadPoolExecutor(_RUNNER_THREADS, thread_name_prefix="grader-jobs-runner")

    async def ask(
        self, function: Callable[_Given, _Result], *args: _Given.args, **kwargs: _Given.kwargs
    ) -> _Result:
        """Call a function that blocks on this database, for a client, in one of its threads.

        Where the caller is cancelled meanwhile, the function goes on to its end all the same. Raises
        StoreUnavailableError where a server stays silent.
        """
        return await self._called(self._for_clients, functools.partial(function, *args, **kwargs))

    async def ask_as_runner(
        self, function: Callable[_Given, _Result], *args: _Given.args, **kwargs: _Given.kwargs
    ) -> _Result:
        """Do what :meth:`ask` does in threads, and with connections, that no client takes up."""
        return await self._called(self._for_runner, functools.partial(function, *args, **kwargs))

    async def _called(self, threads: ThreadPoolExecutor, function: Callable[[], _Result]) -> _Result:
        loop = asyncio.get_running_loop()
        patience = loop.call_later(self._silent_s, self._hang_up)
        try:
            return await loop.run_in_executor(threads, function)
        finally:
            patience.cancel()

    def open(self) -> None:
        """Connect and make the tables that are missing.

        Raises
        ------
        InputError: another process has the SQLite file, or the tables are of another version of the grader.
        StoreUnavailableError: the database cannot be reached or written.

        """
        if not self.is_shared:
            self._lock = _lock_beside(Path(str(self.url.database)))
        try:
            self._engine = self._postgresql() if self.is_shared else self._sqlite()
            self._make_tables()
        except BaseException:
            self.close()
            raise

    def abandon(self) -> None:
        """Have everything that waits for a database server fail at once, now and from now on; for one that is silent.

        A file's transactions are left alone: none waits for longer than the busy timeout.
        """
        if self.is_shared:
            self._abandoned = True
            self._hang_up()

    def _hang_up(self) -> None:
        """Have what waits for a database server fail at once."""
        for connection in list(self._open):
            # Closed by somebody else, or being closed just now.
            with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as ours:
                ours.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Wait for what is under way, close every connection and let other processes have the file."""
        self._for_clients.shutdown()
        self._for_runner.shutdown()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database. Raises StoreUnavailableError."""
        with _as_unavailable(), self._connected().connect() as connected:
            # By itself, each statement of a transaction on PostgreSQL sees a state of its own.
            options = {"isolation_level": "REPEATABLE READ"} if self.is_shared else {}
            yield connected.execution_options(**options)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a transaction that is committed, and durable, at the end of the block. Raises
        StoreUnavailableError, after which the transaction is in the database as a whole or not at all.
        """
        with _as_unavailable(), self._connected().connect() as connected:
            connection = connected.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def now(self) -> sa.ColumnElement[float]:
        """Return an expression for the time: the server's, where replicas have to agree on it."""
        if self.is_shared:
            return sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Double)
        return sa.literal(time.time(), sa.Double)

    def give_back_space(self) -> None:
        """Return the room of what was deleted to the file system, a piece at a time."""
        if not self.is_shared:
            with _as_unavailable(), self._connected().connect() as connection:
                # Other methods of the driver take the first step of the statement, which moves one page, and stop.
                driver: Any = connection.connection.driver_connection
                try:
                    driver.executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
                except sqlite3.OperationalError as error:
                    _log.warning("the jobs' database is not made smaller now: %s", error)

    def _connected(self) -> Engine:
        if self._engine is None or self._abandoned:
            raise StoreUnavailableError("the jobs' database is closed: the server is stopping")
        return self._engine

    def _sqlite(self) -> Engine:
        engine = sa.create_engine(self.url, connect_args={"timeout": self._busy_timeout_s}, **_POOL)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _postgresql(self) -> Engine:
        try:
            engine = sa.create_engine(
                self.url.set(drivername="postgresql+psycopg"),
                pool_pre_ping=True,
                **_POOL,
                connect_args={
                    "connect_timeout": 5,
                    "options": "-c statement_timeout=60000 -c lock_timeout=10000 -c synchronous_commit=on",
                },
            )
        except ImportError as error:
            raise InputError(
                "a PostgreSQL database needs the driver: pip install '.[postgresql]' in the grader's source folder"
            ) from error
        event.listen(engine, "connect", lambda connection, _record: self._open.add(connection))
        for end in ("close", "detach", "close_detached"):
            event.listen(engine, end, lambda connection, *_: self._open.discard(connection))
        return engine

    def _make_tables(self) -> None:
        with self.write() as connection:
            if self.is_shared:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            tables.metadata.create_all(connection)
            for index in tables.keys.indexes:  # one may have come later than the table
                index.create(connection, checkfirst=True)
            found = connection.execute(sa.select(tables.schema_version.c.version)).scalar()
            if found is None:
                connection.execute(tables.schema_version.insert().values(version=tables.SCHEMA_VERSION))
            elif found != tables.SCHEMA_VERSION:
                raise InputError(
                    f"the jobs' database has tables of version {found}, this grader needs version "
                    f"{tables.SCHEMA_VERSION}: use the grader that made them, or another database"
                )


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except exc.ArgumentError as error:
        raise InputError(
            "the jobs' database is not a URL; give sqlite:////folder/jobs.sqlite3 or postgresql://..."
        ) from error
    if backend == "postgres":
        parsed, backend = parsed.set(drivername="postgresql"), "postgresql"
    if backend not in ("sqlite", "postgresql"):
        raise InputError(f"jobs cannot be kept in {backend}; give a sqlite:/// or postgresql:// URL")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InputError("jobs kept in memory would not survive; give sqlite:////folder/jobs.sqlite3")
    return parsed


def _lock_beside(path: Path) -> int:
    """Lock ``<path>.lock`` for this process. A POSIX record lock: processes forked later do not inherit it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(
            f"the jobs' database {path} cannot be made there: {error.strerror}; "
            "name another one with --database-url, or give --no-jobs"
        ) from error
    end = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() > end:
                os.close(descriptor)
                raise InputError(
                    f"the jobs' database {path} is in use by another server; stop that one, give another file, "
                    "or a postgresql:// URL for several replicas"
                ) from error
            time.sleep(0.05)  # a server that was killed a moment ago is still being taken apart
        else:
            return descriptor


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite alone
    cursor = connection.cursor()
    cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")  # counts only before the first table is made
    mode = cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise InputError(f"SQLite cannot keep a write-ahead log there (it says {mode!r}); give a local disk")
    cursor.execute("PRAGMA synchronous=FULL")  # in WAL mode, NORMAL would not sync a commit
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA journal_size_limit=67108864")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once when another one writes between; one that begins
    # as a writer waits for its turn.
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError:
        raise
    except (exc.DBAPIError, exc.TimeoutError) as error:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        _log.warning("the jobs' database failed: %s", cause)
        raise StoreUnavailableError(
            "the jobs' database cannot be used now (its disk is full, it is locked or it is not there); "
            "try again later"
        ) from error
