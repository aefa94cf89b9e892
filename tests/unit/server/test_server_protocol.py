"""Connections of a server in the test's own process: answers that are not read to their end, heads, and drains."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import uvicorn
import uvloop
from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from uvicorn.server import ServerState

from grader.server.protocol import Patience, patient_protocol
from grader.server.serve import DrainingServer, _config, listen
from grader.server.service import Part
from grader.server.settings import ServerSettings

LONG_S = 60.0
NEVER_S = 3600.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request) -> Callable[[Awaitable[None]], None]:
    def run_in_loop(main: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main)

    return run_in_loop


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


class Served:
    """A server over a grading that does nothing, whose connections send from small buffers."""

    def __init__(self, front: Any, settings: ServerSettings) -> None:
        self._listening = listen("127.0.0.1", 0)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.port = self._listening.getsockname()[1]
        self.server = DrainingServer(_config(front.app, settings), front.service)
        self.connections = self.server.server_state.connections

    async def __aenter__(self) -> Served:
        self.serving = asyncio.create_task(self.server.serve([self._listening]))
        await until(lambda: self.server.started)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.should_exit = self.server.force_exit = True
        await self.serving

    async def connect(self) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        await until(lambda: self.connections)
        return client

    def unsent(self) -> int:
        return sum(one.transport.get_write_buffer_size() for one in self.connections)

    def is_sending_paused(self) -> bool:
        return any(one.flow.write_paused for one in self.connections)

    async def ask(self, client: socket.socket, path: str) -> None:
        """Ask again and again, without reading, until not all answers can be sent."""
        while self.connections and not self.unsent():
            await asyncio.get_running_loop().sock_sendall(
                client, f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
            )
            await asyncio.sleep(0.05)

    async def drain(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)
        await asyncio.wait_for(asyncio.shield(self.serving), LONG_S)


LARGE = APIRouter()


@LARGE.get("/large")
async def large() -> Response:
    return Response(b"x" * 100_000)


async def leave_small_answers(served: Served, client: socket.socket) -> None:
    await served.ask(client, "/healthz")


async def leave_end_of_large_answer(served: Served, client: socket.socket) -> None:
    # So much is left when writing goes on that the kernel cannot take it all without somebody who reads.
    for connection in served.connections:
        connection.transport.set_write_buffer_limits(high=65_536, low=60_000)
    await served.ask(client, "/large")
    await until(lambda: not served.connections or served.is_sending_paused())
    while served.unsent() > 60_000:  # uvloop lets writing go on only when all is sent
        await asyncio.get_running_loop().sock_recv(client, 2048)


@pytest.mark.parametrize("leave", [leave_small_answers, leave_end_of_large_answer])
@pytest.mark.parametrize("drains", [False, True], ids=["served on", "drained"])
def test_who_does_not_read_the_last_bytes_is_dropped(run, make_front, leave, drains):
    async def main() -> None:
        settings = ServerSettings(write_s=1.0, keep_alive_s=NEVER_S, header_s=NEVER_S)
        async with Served(make_front(settings, parts=[Part(router=LARGE)]), settings) as served:
            with closing(await served.connect()) as client:
                await leave(served, client)
                if not drains:
                    await until(lambda: not served.connections)
                await served.drain()

    run(main())


def test_a_drain_ends_where_an_answer_broke_off_and_is_not_read(run, make_front):
    router = APIRouter()

    @router.get("/breaks")
    async def breaks() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"x" * 40_000
            raise ZeroDivisionError

        return StreamingResponse(pieces())

    async def main() -> None:
        settings = ServerSettings(write_s=0.5, keep_alive_s=NEVER_S, header_s=NEVER_S)
        async with Served(make_front(settings, parts=[Part(router=router)]), settings) as served:
            with closing(await served.connect()) as client:
                await served.ask(client, "/breaks")
                await served.drain()

    run(main())


def test_a_drain_waits_for_what_had_begun_and_not_for_those_who_ask_on(run, make_front):
    begun: set[str] = set()
    gates = {name: asyncio.Event() for name in ("before", "after")}
    router = APIRouter()

    @router.get("/gate/{name}")
    async def gate(name: str) -> dict[str, str]:
        begun.add(name)
        await gates[name].wait()
        return {}

    async def main() -> None:
        settings = ServerSettings()
        front = make_front(settings, parts=[Part(router=router)])
        async with Served(front, settings) as served, httpx.AsyncClient(timeout=LONG_S) as client:
            url = f"http://127.0.0.1:{served.port}"
            before = asyncio.create_task(client.get(f"{url}/gate/before"))
            await until(lambda: "before" in begun)
            served.server.handle_exit(signal.SIGTERM, None)
            after = asyncio.create_task(client.get(f"{url}/gate/after"))
            await until(lambda: "after" in begun)
            ready = await client.get(f"{url}/readyz")
            assert (ready.status_code, ready.headers["connection"]) == (503, "close")
            assert (await client.get(f"{url}/healthz")).headers["connection"] == "close"
            gates["before"].set()
            assert (await before).status_code == 200
            await until(lambda: not any(one.is_serving() for one in served.server.servers))
            gates["after"].set()
            assert (await after).status_code == 200
            await asyncio.wait_for(asyncio.shield(served.serving), LONG_S)

    run(main())


class _Transport:
    """What a connection sends, and whether it reads."""

    def __init__(self) -> None:
        self.sent = b""
        self.reads = True
        self.closed = self.aborted = False

    def get_extra_info(self, name: str) -> None:
        return None

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class _Loop:
    """Starts nothing, and lets no time pass: the timers that are set are there to be looked at."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def call_later(self, delay: float, callback: Any) -> Any:
        handle = SimpleNamespace(callback=callback, cancel=lambda: self.timers.remove(handle))
        self.timers.append(handle)
        return handle

    def create_task(self, coroutine: Any, **_: Any) -> Any:
        coroutine.close()
        return Mock()


class Connection:
    """A connection to which a test says what comes, byte for byte."""

    def __init__(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise NotImplementedError

        made = patient_protocol(Patience(header_s=1, write_s=1, max_connections=10), lambda: False)
        config = uvicorn.Config(app, http=made, ws="none", lifespan="off", log_config=None)
        self.loop, self.transport = _Loop(), _Transport()
        self.protocol = made(config, ServerState(), {}, self.loop)
        self.protocol.connection_made(self.transport)

    @property
    def head_is_awaited(self) -> bool:
        return self.transport.abort in [timer.callback for timer in self.loop.timers]


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def test_the_next_head_is_awaited_while_an_answer_is_made():
    connection = Connection()
    assert connection.head_is_awaited
    connection.protocol.data_received(GET)
    assert not connection.head_is_awaited
    connection.protocol.data_received(GET[:5])
    assert connection.head_is_awaited
    connection.protocol.data_received(GET[5:])
    assert not connection.head_is_awaited


def test_the_next_head_is_not_awaited_while_nothing_is_read():
    connection = Connection()
    connection.protocol.data_received(GET + GET + GET[:5])
    assert not connection.transport.reads
    assert not connection.head_is_awaited
    connection.protocol.cycle.response_complete = True
    connection.protocol.on_response_complete()
    assert connection.transport.reads
    assert connection.head_is_awaited


def test_what_follows_a_connect_is_not_taken_for_a_request():
    connection = Connection()
    connection.protocol.data_received(b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
    assert connection.transport.sent.startswith(b"HTTP/1.1 400 ")
    assert connection.transport.closed


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_an_ignored_upgrade_changes_nothing_else_of_a_head(version):
    head = (
        b"POST /a%%20b?c=d HTTP/%b\r\nHost: x\r\nX-A: 1, 2\r\nX-A: \xe9\r\nX-B:\r\nContent-Length: 3\r\n"
        % version
    )
    plain, asking = Connection(), Connection()
    plain.protocol.data_received(head + b"Connection: Upgrade\r\n\r\nabc")
    asking.protocol.data_received(head + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\nabc")
    for connection in (plain, asking):
        assert connection.protocol.cycle.body == b"abc"
        assert not connection.protocol.cycle.more_body
    assert asking.protocol.scope == plain.protocol.scope
    assert asking.protocol.cycle.keep_alive == plain.protocol.cycle.keep_alive
