"""Requests that are sent again with the same key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from grader.errors import InfrastructureError, OverloadedError
from grader.server.idempotency import Idempotency, Reader, fingerprint
from grader.server.jobs import retention
from grader.server.jobs.database import Database
from grader.server.jobs.records import Bounds
from grader.server.problems import Refused


class Maker:
    """Makes an answer of two pieces, the second one when it is let."""

    def __init__(self) -> None:
        self.made = self.cut = 0
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> AsyncIterator[bytes]:
        self.made += 1
        whole = False
        try:
            yield b"first "
            await self.go_on.wait()
            if self.error is not None:
                raise self.error
            yield b"second"
            whole = True
        finally:
            self.cut += not whole


def run(database: Database, scenario: Callable[[Idempotency, Maker], Any]) -> None:
    async def main() -> None:
        kept = Idempotency(database)
        await scenario(kept, Maker())
        await kept.close()

    asyncio.run(main())


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    database.open()
    yield database
    database.close()


async def ask(
    kept: Idempotency, make: Maker, *, tenant: str = "a", route: str = "/v1/grade", digest: str = "d"
) -> Reader:
    return await kept.answer(tenant=tenant, route=route, key="k", digest=digest, make=make)


async def read(reader: Reader) -> bytes:
    async with aclosing(reader):
        return b"".join([piece async for piece in reader])


def test_finished_answer_is_given_again(database: Database) -> None:
    async def scenario(kept: Idempotency, make: Maker) -> None:
        make.go_on.set()
        answers = [await read(await ask(kept, make)) for _ in range(3)]
        assert answers == [b"first second"] * 3
        assert make.made == 1

    run(database, scenario)

    async def after_a_restart(kept: Idempotency, make: Maker) -> None:
        assert await read(await ask(kept, make)) == b"first second"
        assert make.made == 0

    run(database, after_a_restart)


def test_running_answer_is_shared(database: Database) -> None:
    async def scenario(kept: Idempotency, make: Maker) -> None:
        readers = await asyncio.gather(*(ask(kept, make) for _ in range(5)))
        assert await anext(readers[0]) == b"first "
        late = await ask(kept, make)
        reading = [asyncio.create_task(read(reader)) for reader in (*readers[1:], late)]
        make.go_on.set()
        assert await asyncio.gather(*reading) == [b"first second"] * 5
        assert await read(readers[0]) == b"second"
        assert (make.made, make.cut) == (1, 0)

    run(database, scenario)


def test_key_is_one_tenants_on_one_route(database: Database) -> None:
    async def scenario(kept: Idempotency, make: Maker) -> None:
        make.go_on.set()
        await read(await ask(kept, make))
        await read(await ask(kept, make, tenant="b"))
        await read(await ask(kept, make, route="/v1/rewards"))
        assert make.made == 3

    run(database, scenario)


@pytest.mark.parametrize("is_running", [True, False])
def test_other_request_with_the_key_is_refused(database: Database, is_running: bool) -> None:
    async def scenario(kept: Idempotency, make: Maker) -> None:
        reader = await ask(kept, make)
        if not is_running:
            make.go_on.set()
            await read(reader)
        with pytest.raises(Refused, match="another request"):
            await ask(kept, make, digest="other")
        await reader.aclose()

    run(database, scenario)


def test_making_ends_with_its_last_reader_and_begins_anew(database: Database) -> None:
    async def scenario(kept: Idempotency, make: Maker) -> None:
        first, second = await ask(kept, make), await ask(kept, make)
        await anext(first)
        await first.aclose()
        assert make.cut == 0
        await second.aclose()
        assert make.cut == 1
        make.go_on.set()
        assert await read(await ask(kept, make)) == b"first second"
        assert make.made == 2

    run(database, scenario)


def test_error_is_raised_by_all_readers_and_not_kept(database: Database) -> None:
    async def scenario(kept: Idempotency, make: Maker) -> None:
        make.error = OverloadedError("no room")
        readers = [await ask(kept, make) for _ in range(2)]
        make.go_on.set()
        for reader in readers:
            with pytest.raises(OverloadedError):
                await read(reader)
        make.error = None
        assert await read(await ask(kept, make)) == b"first second"

    run(database, scenario)


def test_close_ends_what_is_being_made(database: Database) -> None:
    async def scenario(kept: Idempotency, make: Maker) -> None:
        reader = await ask(kept, make)
        assert await anext(reader) == b"first "
        await kept.close()
        with pytest.raises(InfrastructureError):
            await read(reader)
        assert make.cut == 1

    run(database, scenario)


def test_large_answer_is_not_kept(database: Database) -> None:
    async def main() -> None:
        kept, make = Idempotency(database, max_answer_bytes=5), Maker()
        make.go_on.set()
        for _ in range(2):
            assert await read(await ask(kept, make)) == b"first second"
        assert make.made == 2

    asyncio.run(main())


def test_answers_are_kept_for_a_time_and_to_a_size(database: Database) -> None:
    async def made(kept: Idempotency, make: Maker) -> None:
        make.go_on.set()
        await read(await ask(kept, make))

    async def known(kept: Idempotency, make: Maker) -> None:
        make.go_on.set()
        await read(await ask(kept, make))
        assert make.made == 0

    for bounds in (Bounds(key_s=-1), Bounds(answer_bytes=1)):
        run(database, made)
        retention.sweep(database, Bounds())
        run(database, known)
        retention.sweep(database, bounds)
        with pytest.raises(AssertionError):
            run(database, known)
        retention.sweep(database, Bounds(key_s=-1))


def test_fingerprint_tells_requests_apart() -> None:
    found = {fingerprint(b"a"), fingerprint(b"b"), fingerprint(b"a", "x"), fingerprint(b"a", "y")}
    assert len(found) == 4
    assert fingerprint(b"a", "x") == fingerprint(b"a", "x")
