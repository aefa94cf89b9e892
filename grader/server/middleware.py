"""What every request passes through: its id, the drain, the log, and the end of every error as a problem."""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grader.errors import GraderError, InputError
from grader.server.problems import Problem, draining, problem_of
from grader.server.service import NEW_WORK, Service
from grader.server.streams import ClientGoneError

_log = structlog.get_logger("grader.server")

REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+/=@-]{1,128}\Z")
# What is logged as a warning only when it goes wrong: probes come every few seconds.
_PROBES = ("/healthz", "/readyz", "/metrics")


class FrontMiddleware:
    """Gives each request an id, and each error its answer; while the service drains, refuses new work.

    The id is the client's own ``X-Request-ID`` if that is a plain word of at most 128 characters. It is in every
    answer, in every line of the log, and in ``request.state.request_id``.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(send, request_id)
        with self._service.working(), structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._answer(scope, receive, exchange)
            exchange.log(scope)

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        is_refused = self._service.draining and scope["method"] in NEW_WORK
        if is_refused and scope["path"] not in self._service.own_drains:
            await exchange.refuse(problem_of(draining(), exchange.request_id))
            return
        try:
            await self._app(scope, receive, exchange.send)
        except (ClientDisconnect, ClientGoneError):
            exchange.client_gone = True
        except Exception as error:
            if isinstance(error, GraderError):
                log_failure(error)
            else:
                _log.exception("request_failed", path=scope["path"])
            if exchange.status:
                raise
            await exchange.refuse(problem_of(error, exchange.request_id))


class _Exchange:
    """One answer on its way out."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._began = time.monotonic()
        self.request_id = request_id
        self.status = 0
        self.client_gone = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            headers.append((REQUEST_ID_HEADER, self.request_id.encode()))
            headers.append((b"x-content-type-options", b"nosniff"))
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, found: Problem) -> None:
        headers = [
            (name.encode(), value.encode("latin-1", "replace")) for name, value in found.headers.items()
        ]
        headers.append((b"content-length", str(len(found.body)).encode()))
        await self.send({"type": "http.response.start", "status": found.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": found.body, "more_body": False})

    def log(self, scope: Scope) -> None:
        if self.status < 500 and scope["path"] in _PROBES:
            return
        _log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=self.status,
            wall_s=round(time.monotonic() - self._began, 6),
            tenant=scope["state"].get("tenant"),
            client_gone=self.client_gone,
        )


def log_failure(error: GraderError) -> None:
    """Log why a request could not be served, if that is our affair and not the client's."""
    if not isinstance(error, InputError):
        _log.error("cannot_grade", error_type=type(error).__name__, error=str(error))


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER and _REQUEST_ID.match(value):
            return str(value.decode("ascii"))
    return uuid.uuid4().hex
