"""HTTP connections that do not wait for ever: uvicorn's protocol with bounds on slow and idle clients.

uvicorn bounds the time between requests alone. A client that sends half a request head, or nothing, or that does not
read its answer, would keep its connection until it tires of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

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
    nothing of an answer is read for too long; beyond the largest number of connections it is turned away at once."""

    patience: Patience

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
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
        super().data_received(data)
        if self.transport.is_closing() or not self._between_requests():
            return
        self._head_bytes += len(data)
        if self._head_timer is None:
            self._wait_for_head()
        elif self._head_bytes > MAX_HEAD_BYTES and not self._is_leftover_body():
            self._turn_away(problem(431, f"a request's head may have {MAX_HEAD_BYTES} bytes"))

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request."""
        self._turn_away(problem(400, "this is no HTTP request that can be understood"))

    def on_headers_complete(self) -> None:
        """Begin the request; its body is waited for elsewhere."""
        self._stop_waiting_for_head()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Begin to watch whether the client reads on."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client reads."""
        self._stop_watching_reader()
        super().resume_writing()

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _is_leftover_body(self) -> bool:
        """Whether what comes is the rest of a body whose request was answered before it was read."""
        return self.cycle is not None and self.cycle.more_body

    def _wait_for_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.patience.header_s, self.transport.abort)

    def _stop_waiting_for_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_reader(self) -> None:
        self._stop_watching_reader()
        self._unread = self.transport.get_write_buffer_size()
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


def patient_protocol(patience: Patience) -> type[PatientProtocol]:
    """Return the protocol's class with these bounds, as uvicorn's ``http`` setting takes it."""
    return type("BoundPatientProtocol", (PatientProtocol,), {"patience": patience})
