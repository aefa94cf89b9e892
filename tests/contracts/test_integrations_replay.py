"""Calls and requests written from the contracts of projects whose own code cannot be installed here.

The releases of slime and NeMo-RL have no code in them; pip finds none of rLLM and NeMo-Gym for Python 3.11.
"""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from grader.errors import InputError
from grader.integrations import asking
from grader.integrations.asking import NotJudgedError
from grader.integrations.rllm import grader_reward_fn
from grader.integrations.slime import custom_rm

# The first test of a machine makes the environments.
pytestmark = pytest.mark.timeout(1800)
_post = partial(httpx.post, timeout=300)  # the first request may wait for the first worker

ADD = {"inputs": [[1, 2], [3, 4]], "outputs": [3, 7], "fn_name": "add"}
LABEL = json.dumps(ADD)
RIGHT = "```python\ndef add(a, b):\n    return a + b\n```<|im_end|>"
WRONG = "def add(a, b):\n    return 0\n"
LOST = "```python\n# stub: path\nx = 1\n```"


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    asking.close()


def sample(response: str, label: Any = LABEL) -> SimpleNamespace:
    return SimpleNamespace(prompt="Add!", response=response, label=label, remove_sample=False)


def slime(service: Any, samples: Any, **options: Any) -> Any:
    args = SimpleNamespace(grader={"url": service.url, **options})

    async def main() -> Any:
        try:
            if isinstance(samples, list):
                return await asyncio.gather(*(custom_rm(args, one) for one in samples))
            return await custom_rm(args, list(samples))
        finally:
            await asking.aclose()

    return asyncio.run(main())


def test_slime_custom_rm(service):
    assert slime(service, [sample(RIGHT), sample(WRONG), sample("?")]) == [1.0, 0.0, 0.0]
    assert slime(service, (sample(RIGHT), sample(WRONG))) == [1.0, 0.0]
    assert slime(service, ()) == []


def test_slime_custom_rm_when_a_sample_could_not_be_judged(noop_service):
    with pytest.raises(NotJudgedError):
        slime(noop_service, [sample(LOST)])
    lost = sample(LOST)
    assert slime(noop_service, [lost, sample(RIGHT)], infrastructure_error_score=-1.0) == [-1.0, 1.0]
    assert lost.remove_sample


def test_a_wrong_sample_is_no_business_of_those_gathered_with_it(service):
    async def main() -> list[Any]:
        args = SimpleNamespace(grader={"url": service.url})
        samples = [sample(RIGHT), sample(RIGHT, json.dumps({"inputs": [1]})), sample(WRONG)]
        try:
            return await asyncio.gather(*(custom_rm(args, one) for one in samples), return_exceptions=True)
        finally:
            await asking.aclose()

    right, refused, wrong = asyncio.run(main())
    assert (right, wrong) == (1.0, 0.0)
    assert isinstance(refused, InputError)


def test_slime_remote_rm(service):
    url = f"{service.url}/slime/reward"
    body = {"prompt": "Add!", "response": RIGHT, "label": LABEL}
    assert _post(url, json=body).json() == 1.0
    assert _post(url, json={**body, "prompt": [{"role": "user", "content": "Add!"}]}).json() == 1.0
    assert _post(url, json={**body, "response": ""}).json() == 0.0


def test_slime_remote_rm_when_a_sample_could_not_be_judged(noop_service):
    answer = _post(f"{noop_service.url}/slime/reward", json={"prompt": "", "response": LOST, "label": LABEL})
    assert answer.status_code == 503


def verify(service: Any, text: str, metadata: Any, query: str = "") -> httpx.Response:
    output = [{"type": "reasoning", "summary": []}]
    content = [{"type": "output_text", "text": text, "annotations": []}]
    output.append({"type": "message", "role": "assistant", "content": content})
    row = {
        "responses_create_params": {"input": "Add!"},
        "response": {"id": "r", "output": output},
        "verifier_metadata": metadata,
    }
    return _post(f"{service.url}/verify{query}", json=row)


def test_nemo_gym_rows_with_packed_tests(service):
    packed = base64.b64encode(zlib.compress(json.dumps(ADD).encode())).decode()
    found = verify(
        service, RIGHT, {"unit_tests": {"packed": packed, "fn_name": "add"}, "difficulty": "easy"}
    ).json()
    assert (found["reward"], found["mask_sample"]) == (1.0, False)
    assert found["verifier_metadata"]["difficulty"] == "easy"
    assert found["response"]["id"] == "r"


def test_nemo_gym_can_be_told_to_mask(noop_service):
    assert verify(noop_service, LOST, {"unit_tests": ADD}).status_code == 503
    found = verify(noop_service, LOST, {"unit_tests": ADD}, "?infrastructure_error=mask").json()
    assert (found["reward"], found["mask_sample"]) == (0.0, True)


def test_nemo_gym_sessions_and_metrics(noop_service):
    assert _post(f"{noop_service.url}/seed_session", json={}).json() == {}
    rows = [{"_ng_task_index": n // 2, "reward": float(n % 2)} for n in range(4)]
    rows.append({"_ng_task_index": 1, "reward": 0.0, "mask_sample": True})
    found = _post(f"{noop_service.url}/aggregate_metrics", json={"verify_responses": rows}).json()
    assert found["key_metrics"] == {"mean/reward": 0.5}
    assert [one["rollouts"] for one in found["group_level_metrics"]] == [2, 2]


def test_openrlhf_sends_servers_it_has_nothing_for_empty_lists(noop_service):
    answer = _post(f"{noop_service.url}/openrlhf/reward", json={"query": [], "prompts": [], "labels": []})
    assert answer.json() == {"rewards": [], "scores": [], "extra_logs": {"passed": [], "flagged": []}}


@pytest.mark.parametrize(
    ("path", "body", "places"),
    [
        ("/openrlhf/reward", {"query": ["x"], "prompts": [], "labels": []}, ["prompts", "labels"]),
        ("/openrlhf/reward", {"query": [None], "prompts": ["x"], "labels": [LABEL]}, ["query[0]"]),
        ("/openrlhf/reward", {"query": ["y"], "prompts": ["x"], "labels": [LABEL]}, ["query[0]"]),
        (
            "/openrlhf/reward",
            {"query": ["x"] * 2, "prompts": ["x"] * 2, "labels": [LABEL, None]},
            ["labels[1]"],
        ),
        ("/openrlhf/reward", {"query": ["x"], "prompts": ["x"], "labels": ["Task/1"]}, ["labels[0]"]),
        (
            "/openrlhf/reward?suite=starter",
            {"query": ["x"], "prompts": ["x"], "labels": ["No/1"]},
            ["labels[0]"],
        ),
        ("/openrlhf/reward?suite=no", {"query": ["x"], "prompts": ["x"], "labels": ["No/1"]}, ["suite"]),
        (
            "/openrlhf/reward?reward=no",
            {"query": ["x"], "prompts": ["x"], "labels": [LABEL]},
            ["reward.name"],
        ),
        ("/slime/reward", {"prompt": "x", "response": None, "label": LABEL}, ["response"]),
        ("/slime/reward", {"prompt": "x", "response": "x", "label": None}, ["label"]),
        ("/slime/reward", {"prompt": "x", "response": "x", "label": '{"inputs": 1}'}, ["label"]),
        ("/slime/reward", {"prompt": "x", "response": "x" * (5 << 20), "label": LABEL}, ["response"]),
        ("/verify", {"responses_create_params": {}, "response": {}}, ["response.output"]),
        (
            "/verify",
            {"responses_create_params": {}, "response": {"output": []}},
            ["verifier_metadata.unit_tests"],
        ),
        (
            "/verify",
            {
                "responses_create_params": {},
                "response": {"output": []},
                "verifier_metadata": {"unit_tests": {"packed": "x"}},
            },
            ["verifier_metadata.unit_tests.packed"],
        ),
        ("/aggregate_metrics", {"verify_responses": [{"reward": None}]}, ["verify_responses[0].reward"]),
    ],
)
def test_bad_requests_are_refused_with_the_place(noop_service, path, body, places):
    answer = _post(f"{noop_service.url}{path}", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), (
        answer.text
    )
    assert [one["place"] for one in answer.json()["errors"]] == places


def test_nemo_rl(verl_environment, noop_service):
    found = verl_environment.run("nemo_rl_replay.py", URL=noop_service.url)
    assert found["step"]["rewards"] == [1.0] * 3
    assert found["step"]["terminateds"] == [1.0] * 3
    assert found["step"]["observations"][0] == {"role": "environment", "content": "Environment: passed"}
    assert found["step"]["metrics"]["num_problems_in_batch"] == 3
    assert found["lost"][0] == "NotJudgedError"
    assert found["scored"]["rewards"] == [1.0, -1.0]
    assert found["scored"]["observations"][1]["content"] == "Environment: not judged"


def test_rllm(service, noop_service):
    reward_fn = grader_reward_fn(url=service.url)
    tests = [{"input": "1\n2", "output": "3", "testtype": "functional", "metadata": {"func_name": "add"}}]
    right = reward_fn(
        {"data_source": "lcb", "ground_truth": json.dumps(tests)}, SimpleNamespace(action=RIGHT)
    )
    assert (right.reward, right.is_correct, right.metadata["status"]) == (1.0, True, "passed")
    assert reward_fn({"ground_truth": ADD}, WRONG).reward == 0.0
    with pytest.raises(InputError, match="ground_truth: missing"):
        reward_fn({}, RIGHT)
    with pytest.raises(NotJudgedError):
        grader_reward_fn(url=noop_service.url)({"ground_truth": ADD}, LOST)
    scored = grader_reward_fn(url=noop_service.url, infrastructure_error_score=-1)(
        {"ground_truth": ADD}, LOST
    )
    assert (scored.reward, scored.is_correct, scored.metadata["infrastructure_error"]) == (-1.0, None, True)
