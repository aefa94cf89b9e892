"""The reward endpoints over a grading that runs nothing: single samples of many requests are gathered."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from grader.server.app import create_app
from grader.server.compat.catalogue import compat_parts
from grader.server.settings import ServerSettings

_NOOP = Path(__file__).parents[3] / "loadtest" / "noop_service.py"
LABEL = json.dumps({"inputs": [[1]], "outputs": [2], "fn_name": "f"})
OTHER = json.dumps({"inputs": [[1]], "outputs": [3], "fn_name": "f"})
REQUESTS = 60


def _noop_grading() -> Any:
    spec = importlib.util.spec_from_file_location("noop_service_of_integrations", _NOOP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NoopGrading()


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def talk(bodies: list[tuple[str, dict[str, Any]]]) -> tuple[Any, list[httpx.Response]]:
    """Send requests all at once; returns the grading, and the answers in the requests' order."""
    grading = _noop_grading()
    app = create_app(ServerSettings(), grading, compat_parts(["openrlhf", "slime", "nemo-gym"]))

    async def main() -> list[httpx.Response]:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://front") as client,
        ):
            return await asyncio.gather(*(client.post(path, json=body) for path, body in bodies))

    return grading, asyncio.run(main())


def slime(response: str, label: Any = LABEL) -> tuple[str, dict[str, Any]]:
    return "/slime/reward", {"prompt": "Add!", "response": response, "label": label}


def openrlhf(response: str, label: Any = LABEL) -> tuple[str, dict[str, Any]]:
    return "/openrlhf/reward", {"query": [f"Add!{response}"], "prompts": ["Add!"], "labels": [label]}


def test_single_samples_of_many_requests_are_graded_together():
    sent = [openrlhf(f"x = {n}" if n % 2 else f"# stub: fail\nx = {n}") for n in range(REQUESTS)]
    grading, answers = talk(sent)
    assert [answer.json()["rewards"] for answer in answers] == [[float(n % 2)] for n in range(REQUESTS)]
    assert grading.programs == REQUESTS
    assert grading.batches < REQUESTS / 2


def test_all_endpoints_share_batches():
    verify = (
        "/verify",
        {
            "responses_create_params": {},
            "response": {
                "output": [
                    {"type": "message", "content": [{"type": "output_text", "text": "# stub: fail\nx = 1\n"}]}
                ]
            },
            "verifier_metadata": {"unit_tests": json.loads(LABEL)},
        },
    )
    grading, answers = talk([slime("x = 1"), openrlhf("x = 2"), verify, slime("x = 3", OTHER)] * 10)
    assert [answer.status_code for answer in answers] == [200] * 40
    assert [answers[2].json()["reward"], answers[3].json()] == [0.0, 1.0]
    assert grading.batches < 20


def test_a_sample_that_is_lost_or_refused_is_no_business_of_the_others():
    sent = [
        slime("x = 1"),
        slime("# stub: path\nx = 1\n"),
        slime("# stub: fail\nx = 1\n"),
        slime("x = 2", '{"inputs": 1}'),
        slime("x = 3", "Task/1"),
    ]
    _, answers = talk(sent)
    assert [answer.status_code for answer in answers] == [200, 503, 200, 422, 422]
    assert [answers[0].json(), answers[2].json()] == [1.0, 0.0]
    assert answers[1].headers["retry-after"]
    assert [answers[n].json()["errors"][0]["place"] for n in (3, 4)] == ["label", "label"]


def test_when_the_grading_fails_nothing_is_scored():
    _, answers = talk([slime("# stub: break\nx = 1\n"), openrlhf("# stub: break\nx = 1\n")])
    assert [answer.status_code for answer in answers] == [503, 503]
    assert all("/var/lib" not in answer.text for answer in answers)
