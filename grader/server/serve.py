"""Running the service: a socket, uvicorn, and an end that loses nothing.

The first SIGTERM or SIGINT drains: readiness goes false, new work is answered 503, what runs ends, and the process
exits with 0. The second one ends it at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from grader.dispatch.contract import Grading
from grader.errors import GraderError, InfrastructureError, InputError
from grader.server.app import create_app
from grader.server.protocol import Patience, patient_protocol
from grader.server.service import Part, Service
from grader.server.settings import ServerSettings

_log = structlog.get_logger("grader.server")

_BACKLOG = 4096
_SPARE_DESCRIPTORS = 512
# timeout(1) and some supervisors send what they get to the process and to its group: that is one signal.
_ONE_SIGNAL_S = 0.2
_GARBAGE_THRESHOLDS = 20_000, 20, 100


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which drains the service before it ends. ``killed_by`` is the signal that ended it at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._drained_at = 0.0
        self._begun: frozenset[asyncio.Task[None]] = frozenset()
        self.killed_by: int | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal has been obeyed."""
        self._event_loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and from then on leave alone what is there, and look for garbage more seldom.

        Nearly all that a request makes is gone with its last reference. The collector's looks at all that a service has
        (suites, routes, models) cost a tenth of its time, and the longest pauses.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GARBAGE_THRESHOLDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, end at the second if that is not the same one twice.

        The signal is not raised again afterwards, as uvicorn would: after a drain the process exits with 0.
        """
        now = time.monotonic()
        if not self._service.draining:
            self._service.draining = True
            self._drained_at = now
            self._begun = frozenset(self.server_state.tasks)
            _log.info("draining", active=self._service.active)
            if not self.started:
                self.should_exit = True
            return
        if now - self._drained_at < _ONE_SIGNAL_S:
            return
        self.killed_by = sig
        self.should_exit = self.force_exit = True
        if self._event_loop is not None:
            self._event_loop.call_soon_threadsafe(self._drop_connections)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end: what had begun before a signal is done.

        Those that ask on meanwhile would have no end; what is being answered when the socket is closed is answered.
        """
        if self._service.draining and self._begun.isdisjoint(self.server_state.tasks):
            return True
        return await super().on_tick(counter)

    def _drop_connections(self) -> None:
        # What is cancelled now is not to be logged as if it were a mistake.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def run(settings: ServerSettings, grading: Grading, parts: Sequence[Part] = ()) -> int | None:
    """Serve until a signal ends it; return None after a drain, or the number of the signal that ended it at once.

    Raises InputError where the address cannot be listened on or a setting is wrong, and the GraderError because of
    which the grading could not start.
    """
    app = create_app(settings, grading, parts)
    service: Service = app.state.service
    server = DrainingServer(_config(app, settings), service)
    listening = listen(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    _log.info("serving", url=f"http://{f'[{host}]' if ':' in host else host}:{port}", engine=settings.engine)
    # What uvicorn says of its own start and end, our events say.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    with listening, _own_errors_said_once(service):
        try:
            server.run([listening])
        except SystemExit as end:
            if isinstance(service.startup_error, GraderError):
                raise service.startup_error from None
            raise InfrastructureError("the service could not start; the log says why") from end
    _log.info("stopped", signal=server.killed_by)
    return server.killed_by


@contextmanager
def _own_errors_said_once(service: Service) -> Iterator[None]:
    """Keep uvicorn from logging a traceback of what ``run`` raises, whose message says what to do."""
    logger = logging.getLogger("uvicorn.error")

    def unsaid(record: logging.LogRecord) -> bool:
        return not isinstance(service.startup_error, GraderError)

    logger.addFilter(unsaid)
    try:
        yield
    finally:
        logger.removeFilter(unsaid)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises InputError where the address is not one, or taken."""
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; give another --port or --host"
        ) from error


def _config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    service: Service = app.state.service
    patience = Patience(settings.header_s, settings.write_s, _connections(settings.max_connections))
    return uvicorn.Config(
        app,
        http=patient_protocol(patience, lambda: service.draining),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=max(1, round(settings.keep_alive_s)),
    )


def _connections(wanted: int) -> int:
    """Return how many connections there may be: what the process's descriptors allow, once raised to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    _log.warning("few_descriptors", hard_limit=hard, connections=max(64, soft - _SPARE_DESCRIPTORS))
    return max(64, soft - _SPARE_DESCRIPTORS)
