"""Counts HTTP requests by their route's template, around everything else that answers them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

import structlog

from grader.telemetry.metrics import Metrics, Pool

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UNMATCHED = "unmatched"
_no_room: ContextVar[list[bool] | None] = ContextVar("no_room", default=None)
_log = structlog.get_logger("grader.telemetry")


class RequestMetrics:
    """ASGI middleware: ``app.add_middleware(RequestMetrics, metrics=metrics)``, outside of all others.

    A request that no route took is counted under ``unmatched``. Back-pressure is what was answered with 429, and what
    ``note_no_room`` was called for.
    """

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begin = time.perf_counter()
        no_room = list[bool]()
        _no_room.set(no_room)
        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = status or 500
            raise
        finally:
            route = route_of(scope)
            self._metrics.request(route, scope["method"], status, time.perf_counter() - begin)
            if status == 429 or no_room:
                self._metrics.refused(route)


def note_no_room() -> None:
    """Have the request at hand counted as one for which there was no room, whatever the status of its answer.

    Where a foreign contract has no 429, another one says so.
    """
    noted = _no_room.get()
    if noted is not None:
        noted.append(True)


def route_of(scope: Scope) -> str:
    """Return the template of the route that took a request, e.g. ``/v1/jobs/{job_id}``."""
    return str(getattr(scope.get("route"), "path", None) or UNMATCHED)


@asynccontextmanager
async def polled(metrics: Metrics, state: Callable[[], Pool], *, every_s: float = 1.0) -> AsyncIterator[None]:
    """Give the metrics the state of the pool every so many seconds, as long as the context lasts."""
    task = asyncio.create_task(_poll(metrics, state, every_s))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _poll(metrics: Metrics, state: Callable[[], Pool], every_s: float) -> None:
    while True:
        try:
            metrics.pool(state())
        except Exception as error:  # metrics are no reason to stop; their age shows it
            _log.error("pool_not_observed", error=repr(error))
        await asyncio.sleep(every_s)
