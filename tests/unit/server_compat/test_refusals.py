"""Malformed requests: logged once a kind, and counted by route."""

from __future__ import annotations

import logging

import pytest
import structlog

from grader.server.refusals import Refusals

CPP = {"code": "x", "language": "cpp"}
NO_TEST = {"completion": "x", "config": {"provided_data": {"test_cases": {"type": "?"}}}}
UNKNOWN_TASK = {"suite": "starter", "task_ids": ["no"], "completions": ["x"]}


@pytest.fixture(autouse=True)
def warnings_are_logged(quiet_log):
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


@pytest.mark.parametrize(
    ("api", "path", "body", "status"),
    [
        ("sandbox-fusion", "/run_code", CPP, 422),
        ("sandbox-fusion", "/submit", {"dataset": "starter", "id": "no", "completion": "x"}, 404),
        ("sandbox-fusion", "/get_prompts", {"dataset": "no"}, 400),
        ("sandbox-fusion", "/common_evaluate_batch", NO_TEST, 422),
        (
            "piston",
            "/api/v2/execute",
            {"language": "cobol", "version": "*", "files": [{"content": "x"}]},
            400,
        ),
        ("open-r1-e2b", "/execute_batch", {"scripts": ["1"], "languages": [], "timeout": 5}, 422),
        ("open-r1-e2b", "/execute_batch", {"scripts": ["1"], "languages": ["lean"], "timeout": 5}, 200),
        ("nemo-skills", "/execute", {"generated_code": "x", "language": "lean", "timeout": 1}, 422),
        ("nemo-skills", "/execute", {"generated_code": "x", "language": "ipython", "timeout": 1}, 400),
        ("open-instruct", "/test_program", {"program": "x = 1", "tests": ["assert True"]}, 422),
        ("open-instruct", "/test_program_stdio", {"program": 1}, 422),
        ("openrlhf", "/openrlhf/reward", {"query": [1]}, 422),
        ("slime", "/slime/reward", {"prompt": "p", "response": None, "label": "x"}, 422),
        ("slime", "/slime/reward?suite=" + "x" * 300, {}, 422),
        ("nemo-gym", "/verify", {}, 422),
        ("sandbox-fusion", "/v1/rewards", UNKNOWN_TASK, 422),
        ("sandbox-fusion", "/v1/rewards", {"completions": 1}, 422),
    ],
)
def test_mistakes_are_logged_once_a_kind_and_counted(compat, api, path, body, status):
    front = compat(api)

    async def conversation(client):
        answers = [await client.post(path, json=body) for _ in range(3)]
        return answers, (await client.get("/metrics")).text

    with structlog.testing.capture_logs() as lines:
        answers, metrics = front.talk(conversation)
    assert {answer.status_code for answer in answers} == {status}, answers[0].text
    route = path.partition("?")[0]
    assert f'grader_bad_requests_total{{route="{route}"}} 3.0' in metrics
    (line,) = [line for line in lines if line["event"] == "request_refused"]
    assert line["kind"].startswith(route)
    assert line["count"] == 1


def test_load_is_no_mistake(compat):
    async def conversation(client):
        body = {
            "completions": ["```python\n# stub: overload\nx = 1\n```"],
            "tests": [{"inputs": ["1"], "outputs": ["1"]}],
        }
        answer = await client.post("/v1/rewards", json=body)
        return answer.status_code, (await client.get("/metrics")).text

    status, metrics = compat("sandbox-fusion").talk(conversation)
    assert status == 429
    assert "grader_bad_requests_total{" not in metrics


def test_a_kind_is_logged_when_it_has_grown_tenfold():
    refusals = Refusals()
    with structlog.testing.capture_logs() as lines:
        for number in range(150):
            refusals.note("/x", 422, f"rows[{number}]", "no")
    assert [line["count"] for line in lines] == [1, 10, 100]


def test_kinds_are_bounded():
    refusals = Refusals()
    with structlog.testing.capture_logs() as lines:
        for number in range(1100):
            refusals.note("/x", 422, "f" * (1 + number % 80) + "g" * (number // 80), "no")
    assert len({line["kind"] for line in lines}) <= 1001
