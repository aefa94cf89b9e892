"""What the database's threads and transactions promise, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import threading

import sqlalchemy as sa
from job_service import DEADLINE_S

from grader.server.jobs.database import _CLIENT_THREADS, Database
from grader.server.jobs.tables import keys

KEY = {"tenant": "a", "route": "grade", "fingerprint": "f", "created_at": 0.0}


def keep(database: Database, name: str) -> None:
    with database.write() as connection:
        connection.execute(keys.insert().values(key=name, **KEY))


def kept(connection: sa.Connection) -> list[str]:
    return sorted(connection.execute(sa.select(keys.c.key)).scalars())


def test_reader_sees_one_state(database: Database) -> None:
    keep(database, "before")
    with database.read() as connection:
        assert kept(connection) == ["before"]
        writer = threading.Thread(target=keep, args=(database, "meanwhile"))
        writer.start()
        writer.join()
        assert kept(connection) == ["before"]
    with database.read() as connection:
        assert kept(connection) == ["before", "meanwhile"]


def test_readers_leave_threads_and_connections_to_the_runner(database: Database) -> None:
    go_on, reading = threading.Event(), threading.Semaphore(0)

    def read_for_long() -> list[str]:
        with database.read() as connection:
            found = kept(connection)
            reading.release()
            go_on.wait()
        return found

    async def main() -> None:
        readers = [asyncio.create_task(database.ask(read_for_long)) for _ in range(50)]
        try:
            async with asyncio.timeout(DEADLINE_S):
                for _ in range(_CLIENT_THREADS):
                    await asyncio.to_thread(reading.acquire)
                for name in ("first", "second"):
                    await database.ask_as_runner(keep, database, name)
        finally:
            go_on.set()
            await asyncio.gather(*readers)

    asyncio.run(main())
    with database.read() as connection:
        assert kept(connection) == ["first", "second"]


def test_index_that_an_older_grader_did_not_make_is_made(url: str) -> None:
    for is_new in (True, False):
        database = Database(url)
        database.open()
        with database.write() as connection:
            found = {index["name"] for index in sa.inspect(connection).get_indexes(keys.name)}
            for index in keys.indexes:
                assert index.name in found, is_new
                index.drop(connection)
        database.close()
