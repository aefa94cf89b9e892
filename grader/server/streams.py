"""Answers that depend on the client: work that ends when it goes away, and verdicts that are sent as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from grader.dispatch.contract import VerdictFields
from grader.server.answers import Asked, to_json

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
        await _ended(gone)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()  # marks it as seen


class VerdictStream:
    """Verdicts of one request on their way out, as NDJSON: a verdict a line, the summary last.

    The grading does not wait for a slow reader: what is done waits here, and goes out in as large pieces as it can.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._verdicts: list[VerdictFields] = []
        self._sent = 0
        self._news = asyncio.Event()
        self._grading: asyncio.Task[None] | None = None

    async def first(self) -> None:
        """Begin, and wait for the first verdict. Raises what the grading raises before that."""
        self._grading = asyncio.create_task(self._asked.collect(self._take))
        self._grading.add_done_callback(lambda _: self._news.set())
        try:
            await self._news.wait()
        except asyncio.CancelledError:
            await self.close()
            raise
        if self._grading.done():
            self._grading.result()

    async def send(self, send: Send) -> None:
        """Send all lines."""
        assert self._grading is not None
        while True:
            await self._news.wait()
            self._news.clear()
            over = self._grading.done()
            lines = [to_json(verdict) + b"\n" for verdict in self._verdicts[self._sent :]]
            self._sent = len(self._verdicts)
            if lines:
                await send({"type": "http.response.body", "body": b"".join(lines), "more_body": True})
            if over:
                break
        self._grading.result()
        summary = await self._asked.summary(self._verdicts)
        last = to_json({"summary": summary.model_dump()}) + b"\n"
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def close(self) -> None:
        """End the grading if it has not ended."""
        if self._grading is not None:
            await _ended(self._grading)

    def _take(self, verdict: VerdictFields) -> None:
        self._verdicts.append(verdict)
        self._news.set()


class VerdictResponse(Response):
    """The response that a :class:`VerdictStream`, whose first verdict is there, is sent as."""

    media_type = NDJSON

    def __init__(self, stream: VerdictStream, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; the grading is cancelled when the client goes away."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await while_connected(receive, self._stream.send(send))
        finally:
            await self._stream.close()
