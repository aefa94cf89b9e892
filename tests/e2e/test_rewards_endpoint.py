"""``POST /v1/rewards`` over real workers and cells: rows in, rewards out; mistakes are refused with their place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from grader.dispatch.making import PoolOptions, make_grading
from grader.limits import Limits
from grader.server.app import create_app
from grader.server.parts import standard_parts
from grader.server.settings import ServerSettings
from grader.suites import registry

STARTER = registry.load("starter")
TASK = next(iter(STARTER.tasks.values()))
ADD = {
    "kind": "function",
    "entry_point": "add",
    "inputs": [[n, 1] for n in range(10)],
    "reference": "def add(a, b): return a + b",
}
RIGHT = "def add(a, b):\n    return a + b\n"
HALF = "def add(a, b):\n    return a + b if a < 5 else 0\n"
WRONG = "def add(a, b):\n    return 0\n"
BROKEN = "def add(a, b:\n"
MISWEIGHED = {"sum": ["binary", {"name": "tiered", "weights": {"base": "1"}}]}
RAISES = {**ADD, "reference": "def add(a, b): return a / 0"}
PRINTS = {"kind": "stdio", "inputs": ["1\n"], "reference": "print(1 / 0)"}
IMPORTS = {
    "kind": "assertions",
    "tests": "import no_such_module\nfrom solution import add\ndef test_it():\n    assert add(1, 2) == 3",
}
APIS = ("openrlhf", "slime", "nemo-gym", "open-instruct")
CHEAT = "import os\ndef add(a, b):\n    os._exit(0)\n"


class Service:
    """The application with one worker, in the test's process."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        grading = make_grading(PoolOptions(workers=1, limits=Limits(time_floor_s=1.0)))
        self.app = create_app(ServerSettings(), grading, standard_parts(None, APIS))
        self.lifespan = self.app.router.lifespan_context(self.app)
        self.runner.run(self.lifespan.__aenter__())
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://front", timeout=300
        )

    def post(self, path: str = "/v1/rewards", **body: Any) -> httpx.Response:
        return self.runner.run(self.client.post(path, json=body))

    def rewards(self, completions: list[Any], **body: Any) -> dict[str, Any]:
        answer = self.post(completions=completions, **body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def close(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.run(self.lifespan.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def service(sandbox_root: Any) -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def test_rewards_come_in_the_order_of_the_completions(service):
    completions = [
        WRONG,
        RIGHT,
        BROKEN,
        "I do not know.",
        CHEAT,
        f"Sure:\n```python\n{RIGHT}```<|im_end|>",
        "",
    ]
    found = service.rewards(
        completions, tests=[ADD] * len(completions), include_verdicts=True, include_feedback=True
    )
    assert found["rewards"] == [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert found["components"] == [{"binary": reward} for reward in found["rewards"]]
    assert [verdict["status"] for verdict in found["verdicts"]] == [
        "wrong_answer", "passed", "compile_error", "no_code", "runtime_error", "passed", "no_code",
    ]  # fmt: skip
    assert found["flags"] == [[], [], [], [], ["exit_call"], [], []]
    assert found["feedback"][1] == "The program passed all tests."
    assert "Line 1: def add(a, b:" in found["feedback"][2]


def test_rows_of_a_suite(service):
    right = [TASK.prompt + "    raise ValueError\n", TASK.reference]
    found = service.rewards(
        right, suite="starter", task_ids=[TASK.task_id] * 2, groups=["base"], include_verdicts=True
    )
    assert found["rewards"] == [0.0, 1.0]
    assert list(found["verdicts"][0]["groups"]) == ["base"]
    assert found["verdicts"][0]["task_id"] == TASK.task_id


def test_conversations(service):
    chat = [{"role": "user", "content": "Add!"}, {"role": "assistant", "content": f"```python\n{RIGHT}```"}]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": RIGHT}]}]
    found = service.rewards([chat, parts, [*chat, {"role": "user", "content": "Thanks"}]], tests=[ADD] * 3)
    assert found["rewards"] == [1.0, 1.0, 1.0]


def test_a_prompt_that_a_bare_completion_continues(service):
    found = service.rewards(["    return a + b\n"], tests=[ADD], prompts=["def add(a, b):\n"])
    assert found["rewards"] == [1.0]


def test_a_fraction_counts_every_test(service):
    found = service.rewards(
        [HALF, RIGHT, WRONG, ""], tests=[ADD] * 4, reward="fraction", include_verdicts=True
    )
    assert found["rewards"] == [0.5, 1.0, 0.0, 0.0]
    assert found["verdicts"][0]["groups"]["base"]["first_failed"] == 5


def test_a_reward_composed_of_others(service):
    spec = {
        "sum": [
            "tiered",
            {"name": "penalties", "max_characters": 10},
            {"name": "flags", "values": {"exit_call": -1}},
        ],
        "weights": [1, 0.5, 1],
    }
    found = service.rewards([RIGHT, CHEAT], tests=[ADD] * 2, reward=spec)
    assert found["components"][0]["tiered"] == pytest.approx(1.0)
    assert found["components"][0]["penalties.length"] == -0.1
    assert found["components"][1]["flags"] == -1.0
    assert found["rewards"][0] == pytest.approx(0.95)
    assert found["rewards"][1] < 0
    assert found["components"][0].keys() == found["components"][1].keys()


def test_efficiency_is_held_against_the_reference(service):
    slow = (
        "import time\ndef add(a, b):\n"
        "    end = time.process_time() + 0.4\n    while time.process_time() < end: pass\n    return a + b\n"
    )
    # What a quick program has is the machine's, not its own: it is not told from the reference within half a second.
    spec = {"name": "efficiency", "resolution_s": 0.5}
    found = service.rewards([RIGHT, slow, WRONG], tests=[ADD] * 3, reward=spec)
    assert found["rewards"][0] == 1.0
    assert 0.1 <= found["rewards"][1] < 1.0
    assert found["rewards"][2] == 0.0
    given = {"inputs": ["1"], "outputs": ["1"]}
    assert service.rewards(["print(1)"], tests=[given], reward="efficiency", reference_cpu_s=[1.0])[
        "rewards"
    ] == [1.0]
    refused = service.post(completions=["print(1)"], tests=[given], reward="efficiency")
    assert refused.json()["errors"][0]["place"] == "reference_cpu_s[0]"


def test_groups_of_completions(service):
    other = {**ADD, "inputs": [[2, 2]]}
    found = service.rewards([RIGHT, RIGHT, WRONG, WRONG], tests=[ADD, ADD, other, other], task_ids=["a", "a", "b", "b"],
                            include_group_features=True)  # fmt: skip
    first, second = found["group_features"]
    assert (first["group"], first["rows"], first["all_pass"], first["all_fail"]) == ("a", [0, 1], True, False)
    assert (second["group"], second["rows"], second["all_fail"], second["mean_pass_rate"]) == (
        "b",
        [2, 3],
        True,
        0.0,
    )
    found = service.rewards(
        [WRONG, RIGHT], tests=[other, other], group_ids=[7, 7], include_group_features=True
    )
    (group,) = found["group_features"]
    assert (group["group"], group["pass_rate"], group["all_pass"]) == (7, 0.5, False)
    assert 0.0 < group["mean_pass_rate"] < 0.5


def test_feedback_shows_inputs_of_visible_groups_only(service):
    hidden = service.rewards([HALF], tests=[ADD], include_feedback=True)["feedback"][0]
    assert "add(5, 1)" not in hidden
    shown = service.rewards([HALF], tests=[ADD], include_feedback=True, visible_groups=["base"])["feedback"][
        0
    ]
    assert "Test 6 of 10 failed.\nIt called add(5, 1)." in shown


def test_tests_that_cannot_be_used_are_no_reason_for_a_reward_of_0(service):
    tests = [RAISES, RAISES, PRINTS, IMPORTS, ADD]
    found = service.rewards(
        [RIGHT] * 5, tests=tests, reward={"sum": ["binary", "tiered"]}, include_verdicts=True
    )
    assert found["rewards"] == [None] * 4 + [pytest.approx(2.0)]
    assert set(found["components"][0].values()) == {None}
    assert {verdict["status"] for verdict in found["verdicts"][:4]} == {"infrastructure_error"}
    assert [(entry["row"], entry["type"]) for entry in found["unjudged"]] == [
        (row, "BrokenTests") for row in range(4)
    ]
    whys = [entry["message"] for entry in found["unjudged"]]
    assert "ZeroDivisionError: division by zero" in whys[0]
    assert whys[0] == whys[1]
    assert "the reference program ended with runtime_error" in whys[2]
    assert "no_such_module" in whys[3]


def test_tests_of_a_sample_that_cannot_be_used_leave_the_others_alone(service):
    samples = [
        {"task_id": name, "sample_id": name, "solution": RIGHT, "tests": tests}
        for name, tests in (("broken", RAISES), ("good", ADD))
    ]
    answer = service.post("/v1/grade", samples=samples).json()
    assert [verdict["status"] for verdict in answer["verdicts"]] == ["infrastructure_error", "passed"]
    assert answer["verdicts"][0]["error"]["type"] == "BrokenTests"
    assert "ZeroDivisionError" in answer["verdicts"][0]["error"]["message"]


def test_foreign_apis_say_which_tests_cannot_be_used(service):
    label = json.dumps(RAISES)
    asked = {"prompt": "Add!", "response": RIGHT, "label": label}
    places = {
        "label": service.post("/slime/reward", **asked),
        "labels[0]": service.post(
            "/openrlhf/reward", query=[f"Add!{RIGHT}"], prompts=["Add!"], labels=[label]
        ),
        "tests[1]": service.post(
            "/test_program",
            program=RIGHT,
            tests=["assert add(1, 2) == 3", "from solution import add\nimport no_such\nassert add(1, 2)"],
            max_execution_time=1.0,
        ),
    }
    for place, answer in places.items():
        assert answer.status_code == 422, answer.text
        assert [error["place"] for error in answer.json()["errors"]] == [place]
    assert "ZeroDivisionError" in places["label"].text
    said = {"output": [{"type": "message", "content": [{"type": "output_text", "text": RIGHT}]}]}
    row = {"responses_create_params": {}, "response": said, "verifier_metadata": {"unit_tests": RAISES}}
    assert service.post("/verify", **row).status_code == 422
    masked = service.post("/verify?infrastructure_error=mask", **row).json()
    assert (masked["mask_sample"], masked["reward"]) == (True, 0.0)
    assert "ZeroDivisionError" in masked["failure_reason"]


def test_a_row_that_was_not_judged_in_time_has_no_reward(service):
    sleeper = "import time\ndef add(a, b):\n    while True: pass\n"
    found = service.rewards([sleeper] * 3, tests=[ADD] * 3, timeout_s=0.2, use_cache=False)
    assert None in found["rewards"]
    assert found["rewards"].count(0.0) + found["rewards"].count(None) == 3


def test_an_empty_batch_has_an_empty_answer(service):
    assert service.rewards([]) == {"rewards": [], "components": [], "flags": [], "unjudged": []}
    assert service.rewards([], suite="starter", task_ids=[], include_verdicts=True)["verdicts"] == []


def test_a_completion_of_a_megabyte_is_judged(service):
    prose = "word " * 200_000
    found = service.rewards([prose, f"```python\n{RIGHT}```\n{prose}"], tests=[ADD] * 2)
    assert found["rewards"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"completions": [None, RIGHT, 7], "tests": [ADD] * 3}, ["completions[0]", "completions[2]"]),
        ({"completions": [[{"role": "user", "content": "x"}]], "tests": [ADD]}, ["completions[0]"]),
        ({"completions": [[{"role": "assistant", "content": None}]], "tests": [ADD]}, ["completions[0][0].content"]),
        ({"completions": [["x"]], "tests": [ADD]}, ["completions[0][0]"]),
        ({"completions": ["x" * (5 << 20)], "tests": [ADD]}, ["completions[0]"]),
        ({"completions": [RIGHT], "tests": [ADD, ADD]}, ["tests"]),
        ({"completions": [RIGHT], "tests": [ADD], "task_ids": [], "group_ids": [1, 2]}, ["task_ids", "group_ids"]),
        ({"completions": [], "task_ids": ["x"]}, ["task_ids"]),
        ({"completions": [RIGHT], "suite": "starter", "task_ids": ["No/1"]}, ["task_ids[0]"]),
        ({"completions": [RIGHT], "suite": "starter", "task_ids": [None]}, ["task_ids[0]"]),
        ({"completions": [RIGHT], "suite": "starter"}, ["task_ids"]),
        ({"completions": [RIGHT], "suite": "no-such", "task_ids": ["x"]}, ["suite"]),
        ({"completions": [RIGHT], "task_ids": ["x"]}, ["suite"]),
        ({"completions": [RIGHT], "suite": "starter", "tests": [ADD]}, ["tests"]),
        ({"completions": [RIGHT], "suite": "starter", "task_ids": [TASK.task_id], "prompts": ["p"]}, ["prompts"]),
        ({"completions": [RIGHT] * 2, "tests": [ADD, {"kind": "function"}]}, ["tests[1]"]),
        ({"completions": [RIGHT], "tests": [None]}, ["tests[0]"]),
        ({"completions": [RIGHT], "tests": [ADD], "reward": "binray"}, ["reward.name"]),
        ({"completions": [RIGHT], "tests": [ADD], "reward": MISWEIGHED}, ["reward.sum[1].weights.base"]),
        ({"completions": [], "reward": {"name": "nothing"}}, ["reward.name"]),
        ({"completions": [RIGHT], "tests": [ADD], "reward": "fraction", "fail_fast": True}, ["fail_fast"]),
        ({"completions": [RIGHT], "tests": [ADD], "reward": {"name": "fraction", "groups": ["plus"]}}, ["reward"]),
        ({"completions": [RIGHT], "tests": [ADD], "groups": ["plus"]}, ["groups"]),
        ({"completions": [RIGHT], "tests": [ADD], "limits": {"time_floor_s": 0}}, ["limits.time_floor_s"]),
        ({"tests": [ADD]}, ["completions"]),
        ({"completions": "x", "tests": [ADD]}, ["completions"]),
        ({"completions": [RIGHT], "tests": [ADD], "rewards": "binary"}, ["rewards"]),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)  # fmt: skip
def test_a_request_that_is_wrong_is_refused_with_the_place(service, body, places):
    answer = service.post(**body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), (
        answer.text
    )
    assert [error["place"] for error in answer.json()["errors"]] == places
