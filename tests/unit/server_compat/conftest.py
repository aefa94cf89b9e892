"""Services that speak foreign APIs, in the test's own process, over a grading that runs nothing."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from grader.server.app import create_app
from grader.server.parts import standard_parts
from grader.server.settings import ServerSettings

_NOOP = Path(__file__).parents[3] / "loadtest" / "noop_service.py"


def _noop_module() -> Any:
    spec = importlib.util.spec_from_file_location("noop_service_of_compat_tests", _NOOP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NOOP = _noop_module()


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """Keep structlog's default, which draws every traceback with its variables, out of the tests."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


class Compat:
    """A service with some foreign APIs."""

    def __init__(self, *apis: str, keys: Path | None = None, reward: Any = None) -> None:
        self.grading = NOOP.NoopGrading()
        settings = ServerSettings(api_keys_file=keys, reward=reward)
        self.app = create_app(settings, self.grading, standard_parts(None, apis))
        self.service = self.app.state.service

    def talk(self, conversation: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            transport = httpx.ASGITransport(self.app)
            async with (
                self.app.router.lifespan_context(self.app),
                httpx.AsyncClient(transport=transport, base_url="http://front") as client,
            ):
                return await conversation(client)

        return asyncio.run(main())

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.talk(lambda client: client.post(path, json=body, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.talk(lambda client: client.get(path, **more))


@pytest.fixture
def compat() -> type[Compat]:
    return Compat
