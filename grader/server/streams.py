"""Answers in pieces, on their way to clients that may go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar, cast

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from grader.dispatch.contract import VerdictFields
from grader.server.answers import Asked, in_order, to_json

JSON = "application/json"
NDJSON = "application/x-ndjson"

_Result = TypeVar("_Result")


class ClientGoneError(Exception):
    """The client has closed its connection; nobody waits for the answer."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what ``work`` comes to; cancel it, and raise ClientGoneError, when the client goes away.

    The request's body must have been read: ``receive`` then has nothing to say but that the client is gone.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        await _ended(task)
        _dropped(gone)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    _dropped(task)


def _dropped(task: asyncio.Future[Any]) -> None:
    """Have a task end by itself; what it comes to is seen."""
    if not task.done():
        task.cancel()
    elif not task.cancelled():
        task.exception()


async def json_pieces(asked: Asked) -> AsyncGenerator[bytes, None]:
    """Yield the whole answer in one piece: verdicts in the order of the samples, and the summary."""
    verdicts: list[VerdictFields] = []
    await asked.collect(verdicts.append)
    summary = await asked.summary(verdicts)
    yield to_json({"verdicts": in_order(asked.batch, verdicts), "summary": summary.model_dump()})


async def ndjson_pieces(asked: Asked) -> AsyncGenerator[bytes, None]:
    """Yield whole lines: a verdict a line, as they are done, and the summary in the last.

    The grading does not wait for a slow reader: what is done waits here, and goes out in as large pieces as it can.
    """
    verdicts: list[VerdictFields] = []
    sent = 0
    news = asyncio.Event()

    def take(verdict: VerdictFields) -> None:
        verdicts.append(verdict)
        news.set()

    grading = asyncio.create_task(asked.collect(take))
    grading.add_done_callback(lambda _: news.set())
    try:
        over = False
        while not over:
            await news.wait()
            news.clear()
            over = grading.done()
            if over:
                grading.result()
            lines = [to_json(verdict) + b"\n" for verdict in verdicts[sent:]]
            sent = len(verdicts)
            if lines:
                yield b"".join(lines)
        summary = await asked.summary(verdicts)
        yield to_json({"summary": summary.model_dump()}) + b"\n"
    finally:
        await _ended(grading)


class PiecesResponse(Response):
    """Sends pieces as they come, and closes them when the client goes away.

    The status is sent with the first piece: what is raised before it is answered as a problem.
    """

    def __init__(self, pieces: AsyncIterator[bytes], media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Raises what the pieces raise, and ClientGoneError."""
        async with aclosing(cast(Any, self._pieces)):
            if self.media_type == NDJSON:
                await while_connected(receive, self._stream(send))
            else:
                body = await while_connected(receive, self._whole())
                self.headers["content-length"] = str(len(body))
                await self._start(send)
                await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _whole(self) -> bytes:
        return b"".join([piece async for piece in self._pieces])

    async def _stream(self, send: Send) -> None:
        is_first = True
        async for piece in self._pieces:
            if is_first:
                await self._start(send)
                is_first = False
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
