"""The service as a process: slow clients, clients that vanish, bodies in chunks, and what signals do."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from running_service import LONG_S, Running, answers, body_of, grade, head_of, received

LONG_BODY = body_of(f"# stub: wait {LONG_S * 100}")


@pytest.fixture
def serve() -> Iterator:
    running: list[Running] = []

    def start(*options: str) -> Running:
        running.append(Running(*options))
        return running[-1]

    yield start
    for one in running:
        one.end()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/grade HT",
        b"\r\n" * 10,
        b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ",
        b"GET / HTTP/1.1\r\n\r\nGET",
        head_of(LONG_BODY, f"content-length: {len(LONG_BODY)}") + b"GET",
    ],
    ids=[
        "nothing",
        "half a line",
        "empty lines",
        "half a head",
        "half a second request",
        "half while answered",
    ],
)
def test_who_sends_no_whole_head_is_dropped(serve, sent):
    service = serve("--header-s", "0.3", "--keep-alive-s", "1")
    with closing(service.connect()) as connection:
        connection.sendall(sent)
        received(connection)
    # Under load, an honest client may need more than the short time that was given here, too.
    service.until(lambda: answers(service))


def test_who_sends_no_whole_body_is_answered_408_and_dropped(serve):
    service = serve("--body-idle-s", "0.3")
    with closing(service.connect()) as connection:
        connection.sendall(head_of(b'{"suite": ', "content-length: 1000"))
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer


def test_who_reads_nothing_is_dropped_and_its_batch_ends(serve):
    service = serve("--write-s", "0.3")
    sources = ["x"] * 20_000 + [f"# stub: wait {LONG_S * 100}"]
    body = body_of(*sources)
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", service.port))
        connection.sendall(head_of(body, "accept: application/x-ndjson", f"content-length: {len(body)}"))
        assert service.event("request", path="/v1/grade")["client_gone"]


def test_connections_beyond_the_cap_are_told_so(serve):
    service = serve("--max-connections", "5", "--header-s", "60")
    crowd = [service.connect() for _ in range(5)]
    try:
        service.until(lambda: b" 503 " in _greeting(service))
    finally:
        for connection in crowd:
            connection.close()
    service.until(lambda: answers(service))


def _greeting(service: Running) -> bytes:
    """What a connection is told that says nothing of its own for a moment."""
    with closing(service.connect()) as connection:
        connection.settimeout(1)
        try:
            return connection.recv(4096)
        except TimeoutError:
            return b""


def test_a_client_that_vanishes_ends_its_batch(serve):
    service = serve()
    for accept in ("application/json", "application/x-ndjson"):
        body = body_of("x", f"# stub: wait {LONG_S * 100}")
        with closing(service.connect()) as connection:
            connection.sendall(
                head_of(body, f"accept: {accept}", f"content-length: {len(body)}", f"x-request-id: {accept}")
            )
            if "ndjson" in accept:
                assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert service.event("request", request_id=accept)["client_gone"]


def test_a_client_that_vanishes_in_its_body_is_no_error(serve):
    service = serve()
    with closing(service.connect()) as connection:
        connection.sendall(head_of(b'{"suite": ', "content-length: 1000", "x-request-id: gone"))
    assert service.event("request", request_id="gone")["client_gone"]
    assert grade(service, "x").status_code == 200
    assert not [event for event in service.events if event["level"] in ("error", "critical")]


def test_bodies_in_chunks_are_taken_and_capped(serve):
    service = serve("--max-body-bytes", "100000")
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=LONG_S)
    with closing(connection):
        body = body_of("x")
        pieces = (body[at : at + 7] for at in range(0, len(body), 7))
        connection.request("POST", "/v1/grade", pieces, {"content-type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        assert len(json.loads(answer.read())["verdicts"]) == 1
        too_much = (b" " * 1000 for _ in range(150))
        connection.request("POST", "/v1/grade", too_much, {"content-type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 413
        assert json.loads(answer.read())["title"]
    declared = head_of(b"", "content-length: 10000000000")
    with closing(service.connect()) as raw:
        raw.sendall(declared)
        assert received(raw).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("before", [b"", LONG_BODY], ids=["first", "while another is answered"])
def test_a_head_without_end_is_refused(serve, before):
    service = serve("--header-s", "60")
    with closing(service.connect()) as connection:
        if before:
            connection.sendall(head_of(before, f"content-length: {len(before)}"))
        connection.sendall(b"GET / HTTP/1.1\r\n")
        try:
            for number in range(10_000):
                connection.sendall(f"x-{number}: {'y' * 1000}\r\n".encode())
        except (ConnectionResetError, BrokenPipeError):
            pass
        else:
            pytest.fail("ten megabytes of head were taken")
        if before:
            assert service.event("request", path="/v1/grade")["client_gone"]
    assert grade(service, "x").status_code == 200


def test_a_next_head_in_pieces_is_answered(serve, tmp_path):
    service, let_go = serve(), tmp_path / "go"
    body = body_of(f"# stub: until {let_go}")
    with closing(service.connect()) as connection:
        connection.sendall(head_of(body, f"content-length: {len(body)}") + b"GET /heal")
        connection.sendall(b"thz HTTP/1.1\r\nhost: x\r\n\r\nGET /suites")
        let_go.touch()
        connection.sendall(b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert re.findall(rb"HTTP/1.1 (\d+)", received(connection)) == [b"200", b"200", b"404"]


@pytest.mark.parametrize("wanted", ["h2c", "websocket"])
@pytest.mark.parametrize("piece_bytes", [1, 100, 10_000])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_an_upgrade_is_ignored_and_the_body_read(upgraded, wanted, piece_bytes, in_chunks):
    headers = [
        "connection: Upgrade, HTTP2-Settings",
        f"upgrade: {wanted}",
        "http2-settings: AAEAAEAAAAIAAAAB",
    ]
    body = body_of("x")
    if in_chunks:
        sent = head_of(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), *headers, "transfer-encoding: chunked")
    else:
        sent = head_of(body, *headers, f"content-length: {len(body)}")
    looks_like_a_request = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n"
    sent += head_of(looks_like_a_request, *headers, f"content-length: {len(looks_like_a_request)}")
    sent += b"GET /healthz HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: close, Upgrade\r\n\r\n"
    with closing(upgraded.connect()) as connection:
        for at in range(0, len(sent), piece_bytes):
            connection.sendall(sent[at : at + piece_bytes])
        answer = received(connection)
    # The second body is no JSON.
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"400", b"200"]
    assert b'"summary"' in answer


@pytest.fixture(scope="module")
def upgraded() -> Iterator[Running]:
    """A service for all requests with an Upgrade."""
    running = Running()
    yield running
    running.end()


def test_what_is_no_http_is_a_problem(serve):
    with closing(serve().connect()) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(serve, tmp_path, number):
    service, let_go = serve(), tmp_path / "go"
    headers = {"content-type": "application/json", "accept": "application/x-ndjson"}
    body = body_of("x", f"# stub: until {let_go}", "y")
    with (
        httpx.Client(timeout=LONG_S) as client,
        client.stream("POST", f"{service.url}/v1/grade", content=body, headers=headers) as answer,
    ):
        lines = answer.iter_lines()
        verdicts = [json.loads(next(lines))]  # it has begun
        os.kill(service.process.pid, number)
        service.event("draining")
        refused = httpx.post(f"{service.url}/v1/grade", content=b"{}", timeout=LONG_S)
        assert (refused.status_code, refused.json()["title"]) == (503, "Draining")
        assert "retry-after" in refused.headers
        assert httpx.get(f"{service.url}/readyz", timeout=LONG_S).status_code == 503
        let_go.touch()
        verdicts += [json.loads(line) for line in lines]
    assert [row["status"] for row in verdicts[:-1]] == ["passed"] * 3
    assert verdicts[-1]["summary"]["samples"] == 3
    assert service.process.wait(LONG_S) == 0


def test_a_second_signal_ends_at_once(serve):
    service = serve()
    body = body_of("x", f"# stub: wait {LONG_S * 100}")
    with closing(service.connect()) as connection:
        connection.sendall(head_of(body, "accept: application/x-ndjson", f"content-length: {len(body)}"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")  # it has begun
        service.process.terminate()
        service.process.terminate()  # the same one, sent twice
        service.event("draining")
        service.until(lambda: _ends_when_told_again(service))
        assert service.process.returncode == 128 + signal.SIGTERM
        assert not [event for event in service.events if event["level"] in ("error", "critical")]


def _ends_when_told_again(service: Running) -> bool:
    time.sleep(0.25)
    service.process.terminate()
    return service.process.poll() is not None


def test_an_idle_service_ends_at_the_first_signal(serve):
    service = serve()
    with closing(service.connect()):
        service.process.terminate()
        assert service.process.wait(LONG_S) == 0
