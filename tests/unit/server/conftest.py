"""The service's application in the test's own process, over a grading that does nothing."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from grader.server.app import create_app
from grader.server.settings import ServerSettings
from grader.suites import registry

_NOOP = Path(__file__).parents[3] / "loadtest" / "noop_service.py"
STARTER = registry.load("starter")
TASKS = list(STARTER.tasks)


def _noop_module():
    spec = importlib.util.spec_from_file_location("noop_service_of_unit_tests", _NOOP)
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


class Front:
    """Makes the application, has a conversation with it, and ends it."""

    def __init__(self, settings: ServerSettings | None = None, grading: Any = None, parts: Any = ()) -> None:
        self.grading = grading or NOOP.NoopGrading()
        self.app = create_app(settings or ServerSettings(), self.grading, parts)
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

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.talk(lambda client: client.request(method, path, **more))

    def grade(self, *sources: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        samples = [
            {"task_id": TASKS[n % len(TASKS)], "sample_id": f"s{n}", "solution": source}
            for n, source in enumerate(sources)
        ]
        body = {"suite": "starter", "samples": samples, **fields}
        return self.ask("POST", "/v1/grade", json=body, headers=headers)

    def send(self, body: bytes, **headers: str) -> httpx.Response:
        named = {"content-type": "application/json"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", "/v1/grade", content=body, headers=named)


@pytest.fixture
def make_front() -> type[Front]:
    return Front


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.fixture
def body() -> bytes:
    """A request that is graded."""
    return json.dumps({"suite": "starter", "samples": [{"task_id": TASKS[0], "solution": "x = 1"}]}).encode()


def is_problem(answer: httpx.Response, status: int, *places: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), (
        answer.text
    )
    found = answer.json()
    assert found["status"] == status
    assert found["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert "/var/lib" not in answer.text
    assert tuple(error["place"] for error in found.get("errors") or ()) == places
    return found


@pytest.fixture
def problem_in() -> Callable[..., dict[str, Any]]:
    return is_problem
