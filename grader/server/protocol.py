"""HTTP connections that do not wait for ever: uvicorn's protocol with bounds on slow and idle clients.

uvicorn bounds the time between requests alone. A client that sends half a request head, or nothing, or that does not
read its answer, would keep its connection until it tires of it.

An ``Upgrade`` is ignored, as RFC 9110 (section 7.8) allows; Java's HttpClient asks for h2c with every request. uvicorn
would answer such a request without its body, and take the body for the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from grader.server.problems import Problem, problem

_log = structlog.get_logger("grader.server")

MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a connection is waited for, in wall-clock seconds, and how many there may be."""

    header_s: float
    write_s: float
    max_connections: int


class PatientProtocol(HttpToolsProtocol):
    """One connection. It is closed where no whole request head comes in time, where the head is too long, and where
    nothing of an answer is read for too long; beyond the largest number of connections it is turned away at once.

    ``is_draining``: whether a request that comes now is the connection's last.
    """

    patience: Patience
    is_draining: Callable[[], bool]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._head_without_upgrade: bytes | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unread = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Turn the connection away where there are too many, or begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > self.patience.max_connections:
            _log.warning("connection_refused", connections=len(self.connections))
            self._turn_away(problem(503, "too many connections; come back later", retry_after_s=1.0))
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection's timers."""
        self._stop_waiting_for_head()
        self._stop_watching_reader()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request; what is no whole head is bounded in time and length."""
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self.transport.is_closing():
            return
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        elif self._in_head or self._between_requests():
            self._wait_for_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request."""
        self._turn_away(problem(400, "this is no HTTP request that can be understood"))

    def on_message_begin(self) -> None:
        """Begin a head; what comes of it with the rest of the request before it is not counted."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin the request; its body is waited for elsewhere."""
        self._in_head = False
        self._stop_waiting_for_head()
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._head_without_upgrade = self._make_head_without_upgrade()
            return
        if not self.flow.write_paused:
            self._stop_watching_reader()
        super().on_headers_complete()
        if self.is_draining():
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """End the request, unless its head is about to be read again."""
        if self._head_without_upgrade is None:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the client: until it has read the answer, and has sent the rest of a head that has begun."""
        super().on_response_complete()
        if self._between_requests():
            self._watch_reader()
        if self._in_head and not self.transport.is_closing():
            self._wait_for_head()

    def shutdown(self) -> None:
        """End the connection when its answer is made, and has been read as far as the client reads at all."""
        super().shutdown()
        if self.transport.is_closing() and self._write_timer is None:
            self._watch_reader()

    def pause_writing(self) -> None:
        """Begin to watch whether the client reads on."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client reads. What is left of a whole answer is watched on, as nothing follows that would be."""
        super().resume_writing()
        if self._between_requests():
            self._watch_reader()
        else:
            self._stop_watching_reader()

    def _parse(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while (length := self._parse_to_upgrade(rest)) is not None:
                rest = rest[length:]
                head, self._head_without_upgrade = self._head_without_upgrade, None
                if head is None:
                    raise httptools.HttpParserError("what follows a CONNECT is no HTTP")
                # The old one may be at its end, namely where the connection is to be closed after this request.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("")

    def _parse_to_upgrade(self, data: memoryview) -> int | None:
        """Return how much was read where a head asks for an upgrade, behind which the parser stops."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        return None

    def _make_head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_head(self) -> None:
        # While nothing is read (a whole request waits for its turn), the client could not send on.
        if self._head_timer is None and not self.flow.read_paused:
            self._head_timer = self.loop.call_later(self.patience.header_s, self.transport.abort)

    def _refuse_head(self) -> None:
        if self._between_requests():
            self._turn_away(problem(431, f"a request's head may have {MAX_HEAD_BYTES} bytes"))
        else:  # It would be taken for the answer to the request before, or for a part of it.
            self.transport.abort()

    def _stop_waiting_for_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_reader(self) -> None:
        self._stop_watching_reader()
        self._unread = self.transport.get_write_buffer_size()
        if self._unread:
            self._write_timer = self.loop.call_later(self.patience.write_s, self._look_at_reader)

    def _look_at_reader(self) -> None:
        if self.transport.get_write_buffer_size() >= self._unread:
            self.transport.abort()
        else:
            self._watch_reader()

    def _stop_watching_reader(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _turn_away(self, found: Problem) -> None:
        head = [f"HTTP/1.1 {found.status} -", "connection: close", f"content-length: {len(found.body)}"]
        head += [f"{name}: {value}" for name, value in found.headers.items()]
        self.transport.write("\r\n".join((*head, "", "")).encode() + found.body)
        self.transport.close()
        self._watch_reader()


def patient_protocol(patience: Patience, is_draining: Callable[[], bool]) -> type[PatientProtocol]:
    """Return the protocol's class with these bounds, as uvicorn's ``http`` setting takes it."""
    bound = {"patience": patience, "is_draining": staticmethod(is_draining)}
    return type("BoundPatientProtocol", (PatientProtocol,), bound)
