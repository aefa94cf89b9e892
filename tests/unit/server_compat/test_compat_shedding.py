"""Drains and keys' rates are told in each foreign contract's own words, as load is."""

from __future__ import annotations

import httpx
import pytest

from grader.server.keys import add_key

SCRIPTS = {"scripts": ["1", "2"], "timeout": 5}
ENDPOINTS = [
    ("sandbox-fusion", "/run_code", {"code": "x", "language": "python"}, 504, {"title"}),
    ("piston", "/api/v2/execute", {}, 503, {"message"}),
    ("open-r1-e2b", "/execute_batch", SCRIPTS, 200, {"execution": None}),
    ("open-r1-morph", "/execute_batch", SCRIPTS, 200, {"text": "nan"}),
    ("nemo-skills", "/execute", {}, 503, {"process_status": "error", "stdout": ""}),
    ("open-instruct", "/test_program", {}, 503, {"title"}),
    ("openrlhf", "/openrlhf/reward", {}, 503, {"title"}),
    ("slime", "/slime/reward", {}, 503, {"title"}),
    ("nemo-gym", "/verify", {}, 503, {"title"}),
]


def is_later(answer: httpx.Response, status: int, fields: set[str] | dict[str, object]) -> None:
    assert answer.status_code == status, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    rows = answer.json() if isinstance(answer.json(), list) else [answer.json()]
    assert len(rows) == (2 if status == 200 else 1)
    for row in rows:
        if isinstance(fields, dict):
            assert fields.items() <= row.items()
        else:
            assert fields <= row.keys()


@pytest.mark.parametrize(("api", "path", "body", "status", "fields"), ENDPOINTS)
def test_a_drain(compat, api, path, body, status, fields):
    front = compat(api)

    async def conversation(client: httpx.AsyncClient) -> httpx.Response:
        front.service.draining = True
        assert (await client.post("/v1/grade", json={})).status_code == 503
        return await client.post(path, json=body)

    answer = front.talk(conversation)
    is_later(answer, status, fields)
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(("api", "path", "body", "status", "fields"), ENDPOINTS)
def test_a_keys_rate(compat, tmp_path, api, path, body, status, fields):
    key = add_key(tmp_path / "keys.jsonl", "team", requests_per_s=0.01)
    front = compat(api, keys=tmp_path / "keys.jsonl")

    async def conversation(client: httpx.AsyncClient) -> list[httpx.Response]:
        headers = {"x-api-key": key}
        stranger = await client.post(path, json=body)
        front.service.draining = True
        drained = await client.post(path, json=body)
        front.service.draining = False
        return [
            stranger,
            drained,
            *[await client.post(path, json=body, headers=headers) for _ in range(2)],
        ]

    stranger, drained, _, refused = front.talk(conversation)
    is_later(refused, status, fields)
    assert (stranger.status_code, drained.status_code) == (401, 401)
