"""The reward function for TRL: its form, its columns, and what it makes of answers of the service."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from grader.client import RequestRefused
from grader.errors import InputError
from grader.integrations import asking
from grader.integrations.trl import code_reward


class Contract(ThreadingHTTPServer):
    """Answers ``POST /v1/rewards`` by what a completion says of itself, and keeps the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.status = 200
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Contract

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(asked)
        kinds = [json.dumps(completion) for completion in asked["completions"]]
        rewards = [None if "lost" in kind else float("right" in kind) for kind in kinds]
        answer: dict[str, Any] = {
            "rewards": rewards,
            "components": [{"binary": reward} for reward in rewards],
            "flags": [["exit_call"] if "cheat" in kind else [] for kind in kinds],
            "verdicts": [
                {"passed": reward == 1, "status": "infrastructure_error" if reward is None else "passed"}
                for reward in rewards
            ],
        }
        if self.server.status != 200:
            answer = {"title": "no", "status": self.server.status, "detail": "refused on demand"}
        body = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def contract(monkeypatch: pytest.MonkeyPatch) -> Iterator[Contract]:
    for name in ("GRADER_URL", "GRADER_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Contract() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(function: Any, completions: list[Any], **more: Any) -> list[float | None]:
    """Call a reward function as TRL does, on an event loop of its own."""

    async def main() -> list[float | None]:
        try:
            return await function(
                prompts=["p"] * len(completions),
                completions=completions,
                completion_ids=[[1]] * len(completions),
                trainer_state=None,
                **more,
            )
        finally:
            await asking.aclose()

    return asyncio.run(main())


def test_it_is_a_coroutine_function_with_a_name_and_can_be_sent_to_other_processes(
    contract: Contract,
) -> None:
    function = code_reward(url=contract.url, suite="starter", name="passes")
    for form in (function, functools.partial(function), pickle.loads(pickle.dumps(function))):
        assert inspect.iscoroutinefunction(form)
        assert asyncio.iscoroutinefunction(form)
    sent = pickle.loads(pickle.dumps(function))
    assert (sent.__name__, function.__name__) == ("passes", "passes")
    assert run(sent, ["right"], task_id=["Starter/0"]) == [1.0]


def test_a_step_is_one_request_in_the_order_of_the_completions(contract: Contract) -> None:
    function = code_reward(url=contract.url, suite="starter", reward="tiered", limits={"time_floor_s": 1.0})
    found = run(function, ["right", "lost", "wrong"], task_id=["a", "b", "c"])
    assert found == [1.0, None, 0.0]
    (asked,) = contract.requests
    assert asked["completions"] == ["right", "lost", "wrong"]
    assert (asked["suite"], asked["task_ids"], asked["reward"]) == ("starter", ["a", "b", "c"], "tiered")
    assert asked["limits"] == {"time_floor_s": 1.0}


def test_of_messages_the_last_one_by_the_assistant_counts(contract: Contract) -> None:
    right, tool, no = (
        {"role": "assistant", "content": "right"},
        {"role": "tool", "content": "right"},
        {"role": "assistant", "content": "no"},
    )
    called = {"role": "assistant", "content": None, "tool_calls": []}
    completions = [[right], [right, tool, no], [called], []]
    found = run(code_reward(url=contract.url, suite="s"), completions, task_id=["a"] * 4)
    assert found == [1.0, 0.0, 0.0, 0.0]
    assert contract.requests[0]["completions"] == [[right], [no], "", ""]


def test_rows_without_a_label_are_not_meant_for_it(contract: Contract) -> None:
    told: dict[str, Any] = {}
    found = run(
        code_reward(url=contract.url, suite="s"),
        ["right", "right", "wrong"],
        task_id=["a", None, "a"],
        log_metric=told.__setitem__,
        log_extra=told.__setitem__,
    )
    assert found == [1.0, None, 0.0]
    assert told["code_reward/infrastructure_error_rate"] == 0
    assert told["code_reward/status"] == ["passed", None, "passed"]
    assert run(code_reward(url=contract.url, suite="s"), ["right"], task_id=[None]) == [None]
    assert len(contract.requests) == 1


def test_tests_come_from_a_column_with_the_prompts(contract: Contract) -> None:
    tests = {"kind": "stdio", "tests": [{"stdin": "1", "expected": "2"}]}
    function = code_reward(url=contract.url, column="tests")
    assert run(function, ["right", "wrong"], tests=[tests, json.dumps(tests)]) == [1.0, 0.0]
    (asked,) = contract.requests
    assert (asked["tests"], asked["prompts"]) == ([tests, tests], ["p", "p"])
    assert "suite" not in asked


def test_rates_and_latency_are_logged(contract: Contract) -> None:
    told: dict[str, float] = {}
    function = code_reward(url=contract.url, suite="s", name="r")
    run(function, ["right", "cheat", "lost", "right"], task_id=["a"] * 4, log_metric=told.__setitem__)
    assert told.pop("r/latency_s") > 0
    assert told == {"r/infrastructure_error_rate": 0.25, "r/pass_rate": 2 / 3, "r/flagged_rate": 1 / 3}


def test_where_the_service_fails_there_is_no_reward_and_no_pass_rate(
    contract: Contract, caplog: pytest.LogCaptureFixture
) -> None:
    contract.status = 500
    told: dict[str, Any] = {}
    function = code_reward(url=contract.url, suite="s")
    found = run(
        function,
        ["right", "wrong"],
        task_id=["a", "a"],
        log_metric=told.__setitem__,
        log_extra=told.__setitem__,
    )
    assert found == [None, None]
    assert told["code_reward/infrastructure_error_rate"] == 1
    assert "code_reward/pass_rate" not in told
    assert told["code_reward/status"] == ["infrastructure_error"] * 2
    assert "no reward for 2 completions" in caplog.text


def test_what_the_service_refuses_stops_the_training(contract: Contract) -> None:
    contract.status = 422
    with pytest.raises(RequestRefused, match="refused on demand"):
        run(code_reward(url=contract.url, suite="s"), ["right"], task_id=["unknown"])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"tests": ["t"]}, "no column 'task_id', but tests"),
        ({}, "no column 'task_id', but none"),
        ({"task_id": ["a", "b"]}, "different lengths"),
        ({"task_id": [7]}, r"task_id\[0\]: 7 is no ground truth"),
        ({"task_id": ["{'kind':"]}, r"task_id\[0\]: begins like JSON"),
    ],
)
def test_unusable_columns_are_named(contract: Contract, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(code_reward(url=contract.url, suite="s"), ["right"], **columns)
    assert contract.requests == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reward": "binray"}, "binray"),
        ({"url": None}, "GRADER_URL"),
        ({"url": "127.0.0.1:8000"}, "http://"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"name": ""}, "empty"),
    ],
)
def test_misconfiguration_is_refused_before_the_training(
    contract: Contract, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        code_reward(**{"url": contract.url, "suite": "s", **options})


def test_an_empty_step_asks_nothing(contract: Contract) -> None:
    assert run(code_reward(url=contract.url, suite="s"), [], task_id=[]) == []
    assert contract.requests == []
