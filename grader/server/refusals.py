"""Requests that are refused for what is wrong with them: logged once a kind, and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute

from grader.server.problems import Refused
from grader.server.service import service_of
from grader.telemetry.requests import route_of

_log = structlog.get_logger("grader.server")
_SHARED = "refusals"
_TOO_MANY_REQUESTS = 429


class Refusals:
    """Logs the first refusal of a kind, and then each time that their number has grown tenfold.

    A trainer that sends a malformed batch sends the next one too.
    """

    _KINDS = 1000

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def note(self, route: str, status: int, place: str, detail: str) -> None:
        """Count a refusal, and log it if it is time to."""
        kind = f"{route} {status} {re.sub(r'[0-9]+', '', place)[:80]}"
        if kind not in self._counts and len(self._counts) >= self._KINDS:
            kind = "other"
        self._counts[kind] += 1
        count = self._counts[kind]
        if str(count).rstrip("0") == "1":
            _log.warning("request_refused", kind=kind, count=count, detail=detail[:300])


def note_refusal(request: Request, error: BaseException) -> None:
    """Count a request that is refused for what is wrong with it; what is load, or a failure of ours, is left out."""
    if isinstance(error, RequestValidationError):
        status, place, detail = 422, str(error.errors()[0]["loc"][-1]), "parameters of the URL"
    elif isinstance(error, Refused) and error.status < 500 and error.status != _TOO_MANY_REQUESTS:
        status, place, detail = error.status, error.errors[0].place if error.errors else "", error.detail
    else:
        return
    service, route = service_of(request), route_of(request.scope)
    service.shared.setdefault(_SHARED, Refusals()).note(route, status, place, detail)
    if service.observer is not None:
        service.observer.metrics.bad_request(route)


@contextmanager
def refusals_noted(request: Request) -> Iterator[None]:
    """Count the refusal that ends the context."""
    try:
        yield
    except Refused as error:
        note_refusal(request, error)
        raise


class NotedRoute(APIRoute):
    """A route whose refusals are counted. What an answer raises after its head is not seen here."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with the counting around it."""
        handler = super().get_route_handler()

        async def noted(request: Request) -> Response:
            try:
                return await handler(request)
            except (Refused, RequestValidationError) as error:
                note_refusal(request, error)
                raise

        return noted
