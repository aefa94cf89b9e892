"""The service over a grading that does nothing, as a process, and what clients send to it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

from grader.suites import registry

SERVICE = Path(__file__).parents[2] / "loadtest" / "noop_service.py"
TASK = next(iter(registry.load("starter").tasks))
LONG_S = 60.0


class Running:
    """A service in a process of its own, and its log."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, SERVICE, "--port", "0", *options],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        self.events: list[dict] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.url = self.event("serving")["url"]
        self.port = int(self.url.rpartition(":")[2])
        self.until(self._is_up)

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=LONG_S).status_code == 200
        except httpx.TransportError:
            return False

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                if line.startswith(b"{"):
                    self.events.append(json.loads(line))
                self._news.notify_all()

    def event(self, name: str, **fields: object) -> dict:
        """Wait for an event of the log."""

        def found() -> dict | None:
            wanted = {"event": name, **fields}
            return next((one for one in self.events if wanted.items() <= one.items()), None)

        with self._news:
            assert self._news.wait_for(lambda: found() or self.process.poll() is not None, LONG_S)
            event = found()
        assert event is not None, self.events
        return event

    @staticmethod
    def until(condition) -> None:
        deadline = time.monotonic() + LONG_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=LONG_S)

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.kill()
        code = self.process.wait()
        self._reader.join()
        self.process.stderr.close()
        return code


def body_of(*sources: str, **more: object) -> bytes:
    samples = [{"task_id": TASK, "sample_id": str(n), "solution": source} for n, source in enumerate(sources)]
    return json.dumps({"suite": "starter", "samples": samples, "use_cache": False, **more}).encode()


def head_of(body: bytes, *headers: str) -> bytes:
    lines = ("POST /v1/grade HTTP/1.1", "host: x", "content-type: application/json", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def received(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def grade(service: Running, *sources: str, **more: object) -> httpx.Response:
    headers = {"content-type": "application/json"}
    return httpx.post(
        f"{service.url}/v1/grade", content=body_of(*sources, **more), headers=headers, timeout=LONG_S
    )


def answers(service: Running) -> bool:
    try:
        return grade(service, "x").status_code == 200
    except httpx.TransportError:
        return False
