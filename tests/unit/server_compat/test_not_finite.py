"""NaN and infinities are no JSON, wherever in a request for rewards they are."""

from __future__ import annotations

import json
import re

import pytest

HONEST = "```python\ndef f(x):\n    return x\n```"
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999"]


def text_with(number: str) -> str:
    return json.dumps({"inputs": [[1]], "outputs": ["?"], "fn_name": "f"}).replace('"?"', number)


def asked(compat, api, path, body, number, *places):
    """Send a body in which "?" is a number."""
    headers = {"content-type": "application/json"}
    content = json.dumps(body).replace('"?"', number)
    answer = compat(api).talk(lambda client: client.post(path, content=content, headers=headers))
    assert answer.status_code == 422, answer.text
    assert tuple(error["place"] for error in answer.json()["errors"]) == places
    # As in /v1/grade.
    assert re.search("JSON|too large for a float", answer.text)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("is_text", [True, False])
def test_in_tests(compat, number, is_text):
    fine = {"inputs": [[1]], "outputs": [1], "fn_name": "f"}
    given = text_with(number) if is_text else {**fine, "outputs": ["?"]}
    body = {"completions": [HONEST, HONEST], "tests": [fine, given]}
    asked(compat, "sandbox-fusion", "/v1/rewards", body, number, "tests[1]")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"reward": {"sum": ["binary"], "weights": ["?"]}}, "reward"),
        ({"completions": [[{"role": "assistant", "content": "x", "score": "?"}]]}, "completions[0]"),
        ({"prompts": [[{"role": "user", "content": "x", "score": "?"}]]}, "prompts[0]"),
        ({"task_ids": ["?"]}, "task_ids[0]"),
    ],
)
def test_elsewhere(compat, change, place):
    body = {"completions": [HONEST], "tests": [{"inputs": [[1]], "outputs": [1], "fn_name": "f"}], **change}
    asked(compat, "sandbox-fusion", "/v1/rewards", body, "NaN", place)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("is_text", [True, False])
def test_in_a_trainers_label(compat, number, is_text):
    label = text_with(number) if is_text else {"inputs": [[1]], "outputs": ["?"], "fn_name": "f"}
    asked(compat, "slime", "/slime/reward", {"response": HONEST, "label": label}, number, "label")
    body = {"query": [HONEST], "prompts": [""], "labels": [label]}
    asked(compat, "openrlhf", "/openrlhf/reward", body, number, "labels[0]")


def test_in_a_trainers_reward(compat):
    path = '/slime/reward?reward={"name":"flags","values":{"exit_call":NaN}}'
    label = {"inputs": [[1]], "outputs": [1], "fn_name": "f"}
    asked(compat, "slime", path, {"response": HONEST, "label": label}, "0", "reward")
