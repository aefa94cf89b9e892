"""Ten thousand slow clients: others are served meanwhile, and each of the crowd has its end."""

from __future__ import annotations

import os
import resource
import select
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from running_service import LONG_S, Running, answers, grade, head_of, received

CROWD = 10_000


@pytest.fixture
def serve() -> Iterator:
    running: list[Running] = []

    def start(*options: str) -> Running:
        running.append(Running(*options))
        return running[-1]

    yield start
    for one in running:
        one.end()


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Have room for a crowd in this process, and a soft limit below it in those that are started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = CROWD + 1500
    if hard != resource.RLIM_INFINITY and hard < needed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, needed))
        except (OSError, ValueError):
            reason = f"needs {needed} descriptors: raise the hard limit (ulimit -Hn)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
    _, raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, raised))
    yield
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Slow clients of four kinds: they say nothing, half a line of a head, or a head or a body byte by byte."""

    def __init__(self, service: Running) -> None:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (CROWD + 1400, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        )
        begins = (b"", b"POST /v1/gra", b"GET / HTTP/1.1\r\nx: ", head_of(b"{", "content-length: 999999"))
        self.connections: list[socket.socket] = []
        self.dribbling: list[socket.socket] = []
        self.rounds = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._dribble)
        try:
            for number in range(CROWD):
                # An address has too few ports to be sure of so many.
                source = (f"127.0.0.{2 + number % 8}", 0)
                address = ("127.0.0.1", service.port)
                connection = socket.create_connection(address, LONG_S, source_address=source)
                self.connections.append(connection)
                with suppress(ConnectionError):  # dropped already
                    connection.sendall(begins[number % 4])
                if number % 4 > 1:
                    self.dribbling.append(connection)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._close()

    def heard_from(self) -> list[tuple[int, int]]:
        """Those that were answered, or closed from the other side."""
        poll = select.poll()
        for connection in self.connections:
            poll.register(connection, select.POLLIN)
        return poll.poll(0)

    def _close(self) -> None:
        for connection in self.connections:
            connection.close()

    def _dribble(self) -> None:
        while not self._end.wait(0.1):
            for connection in self.dribbling:
                with suppress(OSError):  # dropped already
                    connection.send(b" ", socket.MSG_DONTWAIT)
            self.rounds += 1


def test_ten_thousand_slow_clients_do_not_keep_others_out(serve, descriptors):
    patience = [f"--{name}-s={10 * LONG_S}" for name in ("header", "body-idle", "keep-alive")]
    service = serve("--max-connections", str(CROWD + 100), *patience)
    opened = Path(f"/proc/{service.process.pid}/fd")
    before = len(list(opened.iterdir()))
    with Crowd(service) as crowd:
        service.until(lambda: len(list(opened.iterdir())) > CROWD)
        rounds = crowd.rounds
        for _ in range(10):
            assert grade(service, "x").json()["summary"]["statuses"] == {"passed": 1}
        service.until(lambda: crowd.rounds > rounds + 1)
        assert grade(service, "x").status_code == 200
        assert crowd.heard_from() == []  # nobody was driven out for it
    service.until(lambda: len(list(opened.iterdir())) <= before + 1)
    assert grade(service, "x").status_code == 200
    assert not [event for event in service.events if event["level"] in ("error", "critical")]


def test_ten_thousand_slow_clients_are_dropped_in_time(serve, descriptors):
    service = serve("--header-s", "1", "--body-idle-s", "1", "--max-connections", str(CROWD + 100))
    with Crowd(service) as crowd:
        crowd.dribbling = [one for number, one in enumerate(crowd.connections) if number % 4 == 2]
        # Under load, an honest client may need more than the short time that was given here, too.
        service.until(lambda: answers(service))
        for number, connection in enumerate(crowd.connections):
            answer = received(connection)
            assert answer == b"" or (number % 4 == 3 and answer.startswith(b"HTTP/1.1 408 "))
        service.until(lambda: answers(service))
