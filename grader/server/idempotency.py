"""Idempotency keys: a request that is sent again gets the answer of the first, and nothing is graded twice.

A key belongs to its tenant and route. For jobs it is kept with the job (``grader.server.jobs.store``). For requests
that are answered at once, this module has those that run share their answer, and keeps finished answers in the
database. Where several replicas share a database, finished answers are known to all, running ones to their own.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

import sqlalchemy as sa
import zstandard
from fastapi import Request
from sqlalchemy.exc import IntegrityError

from grader.errors import InfrastructureError
from grader.limits import MIB
from grader.server.jobs.database import Database
from grader.server.jobs.errors import StoreUnavailableError, key_reused
from grader.server.jobs.tables import keys
from grader.server.problems import Refused
from grader.server.service import Service, service_of

SHARED_NAME = "idempotency"
MAX_KEY_CHARACTERS = 255
DEFAULT_MAX_ANSWER_BYTES = 64 * MIB

HEADER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "a name for this request: sent again with the same body, it gets the same answer",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS, "pattern": "^[!-~]+$"},
}
"""How OpenAPI describes what ``key_given`` reads."""

_KEY = re.compile(f"[!-~]{{1,{MAX_KEY_CHARACTERS}}}")
_Name = tuple[str, str, str]

_log = logging.getLogger("grader.server")


def key_given(request: Request) -> str | None:
    """Return a request's ``Idempotency-Key``; see ``auth.caller_of`` for why it is no parameter of FastAPI's.

    Raises Refused with 422 where it is no such key.
    """
    given = request.headers.get(HEADER["name"])
    if given is None or _KEY.fullmatch(given):
        return given
    said = f"a key has 1 to {MAX_KEY_CHARACTERS} visible ASCII characters"
    raise Refused(said, place=HEADER["name"])


def fingerprint(body: bytes, *more: str) -> str:
    """Return a digest of a request. ``more`` is what else shapes the answer, e.g. the media type asked for."""
    digest = hashlib.sha256(body)
    for text in more:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()


def idempotency_of(service: Service) -> Idempotency | None:
    """Return the service's idempotency keys; None: it was made without a database."""
    return cast("Idempotency | None", service.shared.get(SHARED_NAME))


async def answered_once(
    request: Request,
    key: str | None,
    tenant: str,
    body: bytes,
    media_type: str,
    make: Callable[[], AsyncIterator[bytes]],
) -> AsyncIterator[bytes]:
    """Return the pieces of a request's answer, which ``make`` yields where no request with its key has had it before.

    Raises Refused as ``Idempotency.answer`` does.
    """
    kept = idempotency_of(service_of(request))
    if key is None or kept is None:
        return make()
    route, digest = request.scope["path"], fingerprint(body, media_type)
    return await kept.answer(tenant=tenant, route=route, key=key, digest=digest, make=make)


class Reader:
    """The answer to one of the requests with a key, in pieces. Close it with ``aclose()``, also if it is not read:
    when the last reader of a running answer goes, what makes the answer is cancelled.
    """

    def __init__(self, answer: _Answer) -> None:
        self._answer: _Answer | None = answer
        self._next = 0
        answer.readers += 1

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece. Raises what making the answer raised."""
        answer = self._answer
        if answer is None:
            raise StopAsyncIteration
        while self._next >= len(answer.pieces):
            if answer.is_whole:
                raise StopAsyncIteration
            if answer.error is not None:
                raise answer.error
            await answer.changed.wait()
        self._next += 1
        return answer.pieces[self._next - 1]

    async def aclose(self) -> None:
        """Read no more."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.readers -= 1
            if answer.readers == 0 and not answer.is_whole and answer.task is not None:
                answer.abandon()
                await asyncio.wait([answer.task])


class _Answer:
    """An answer that is being made, or was."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.pieces: list[bytes] = []
        self.is_whole = False
        self.error: Exception | None = None
        self.readers = 0
        self.task: asyncio.Task[None] | None = None
        self.changed = asyncio.Event()

    def abandon(self) -> None:
        """Cancel the making; nobody joins it any more."""
        if self.task is not None and not self.is_whole and self.error is None:
            self.error = InfrastructureError("the answer is not made to its end")
            self.task.cancel()
            self.change()

    def change(self) -> None:
        """Wake the readers."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Idempotency:
    """Answers requests with a key once. ``max_answer_bytes``: a larger answer is not kept, and a request that is sent
    again after it is graded again.
    """

    def __init__(self, database: Database, *, max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES) -> None:
        self._database = database
        self._max_answer_bytes = max_answer_bytes
        self._running: dict[_Name, _Answer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(
        self, *, tenant: str, route: str, key: str, digest: str, make: Callable[[], AsyncIterator[bytes]]
    ) -> Reader:
        """Return the answer to a request: a kept one, one that is being made, or what ``make`` yields.

        ``digest`` is the request's :func:`fingerprint`. An answer that ends in an error is not kept, nor is one whose
        last reader left. Raises Refused: the key belongs to another request, or the database cannot be read (503).
        """
        name = (tenant, route, key)
        answer = self._joinable(name)
        if answer is None:
            answer = await self._kept(name)
            # Others may have begun while the database was asked.
            answer = answer or self._joinable(name) or self._begin(name, digest, make)
        if answer.digest != digest:
            raise key_reused()
        return Reader(answer)

    async def close(self) -> None:
        """Cancel what is being made, and wait for what is being kept."""
        for answer in self._running.values():
            answer.abandon()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _joinable(self, name: _Name) -> _Answer | None:
        answer = self._running.get(name)
        return answer if answer is not None and answer.error is None else None

    def _begin(self, name: _Name, digest: str, make: Callable[[], AsyncIterator[bytes]]) -> _Answer:
        answer = self._running[name] = _Answer(digest)
        answer.task = asyncio.create_task(self._make(name, answer, make))
        self._tasks.add(answer.task)
        answer.task.add_done_callback(self._tasks.discard)
        return answer

    async def _make(self, name: _Name, answer: _Answer, make: Callable[[], AsyncIterator[bytes]]) -> None:
        try:
            pieces = make()
            async with aclosing(pieces):  # type: ignore[type-var]  # a generator: its end cancels what is left
                async for piece in pieces:
                    answer.pieces.append(piece)
                    answer.change()
            answer.is_whole = True
            answer.change()
            await self._keep(name, answer)
        except Exception as error:
            answer.error = error  # raised by the readers
        finally:
            if self._running.get(name) is answer:
                del self._running[name]
            answer.change()

    async def _keep(self, name: _Name, answer: _Answer) -> None:
        if sum(map(len, answer.pieces)) > self._max_answer_bytes:
            return
        try:
            await self._database.ask(_write, self._database, name, answer)
        except StoreUnavailableError as error:
            _log.warning("an answer is not kept, a repeated request would be graded again: %s", error)

    async def _kept(self, name: _Name) -> _Answer | None:
        try:
            found = await self._database.ask(_read, self._database, name)
        except StoreUnavailableError as error:
            raise error.refusal() from error
        if found is None:
            return None
        answer = _Answer(found[0])
        answer.pieces = [found[1]]
        answer.is_whole = True
        return answer


def _read(database: Database, name: _Name) -> tuple[str, bytes] | None:
    tenant, route, key = name
    query = sa.select(keys.c.fingerprint, keys.c.answer).where(
        keys.c.tenant == tenant, keys.c.route == route, keys.c.key == key
    )
    with database.read() as connection:
        row = connection.execute(query).one_or_none()
    return None if row is None else (row.fingerprint, zstandard.decompress(row.answer))


def _write(database: Database, name: _Name, answer: _Answer) -> None:
    tenant, route, key = name
    kept = zstandard.compress(b"".join(answer.pieces), 3)
    row = {
        "tenant": tenant, "route": route, "key": key, "fingerprint": answer.digest, "answer": kept,
        "bytes": len(kept),
    }  # fmt: skip
    try:
        with database.write() as connection:
            connection.execute(keys.insert().values(created_at=database.now(), **row))
    except IntegrityError:
        _log.info("another replica has kept the answer to the same request")
