"""Both clients against real servers, driven alike."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from grade_server import GradeServer, grade_server

from grader.client import AsyncGraderClient, GraderClient, RetryPolicy

QUICK = RetryPolicy(base_s=0.01, cap_s=0.05, retry_after_cap_s=0.05, aside_s=0.5)


class Client:
    """Calls the synchronous or the asynchronous client, which have the same methods; streams become lists."""

    def __init__(self, kind: str, *arguments: Any, **options: Any) -> None:
        self.kind = kind
        self._make: Callable[[], Any] = lambda: {"sync": GraderClient, "async": AsyncGraderClient}[kind](
            *arguments, **{"retries": QUICK, **options}
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **options: self._call(name, arguments, options)

    def streamed(self, name: str, *arguments: Any, **options: Any) -> tuple[list[Any], Any]:
        """Exhaust a stream; returns what it yielded, and its result."""
        if self.kind == "sync":
            with self._make() as client, getattr(client, name)(*arguments, **options) as stream:
                return list(stream), stream.result

        async def run() -> tuple[list[Any], Any]:
            async with self._make() as client, getattr(client, name)(*arguments, **options) as stream:
                return [verdict async for verdict in stream], stream.result

        return asyncio.run(run())

    def _call(self, name: str, arguments: Any, options: Any) -> Any:
        if self.kind == "sync":
            with self._make() as client:
                return getattr(client, name)(*arguments, **options)

        async def run() -> Any:
            async with self._make() as client:
                return await getattr(client, name)(*arguments, **options)

        return asyncio.run(run())


@pytest.fixture(params=["sync", "async"])
def client_of(request: pytest.FixtureRequest) -> Callable[..., Client]:
    """Makes a client, synchronous or asynchronous."""
    return lambda *arguments, **options: Client(request.param, *arguments, **options)


@pytest.fixture
def server() -> Iterator[GradeServer]:
    """A server that does what the contract says until it is told otherwise."""
    with grade_server() as made:
        yield made


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own server and key are not used."""
    for name in ("GRADER_URL", "GRADER_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
