"""SandboxFusion's API: from requests to runs, from what programs did to answers, and how load is shed."""

from __future__ import annotations

import base64
from dataclasses import replace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.limits import MIB, Limits
from grader.server.batches import Owner
from grader.server.compat.sandbox_fusion import RunCodeRequest, RunCodeResponse, response_of, wanted_of
from grader.server.compat.sandbox_fusion_datasets import (
    EvalResult,
    Result,
    id_of,
    metrics_of,
    task_of,
)
from grader.server.compat.scalebox import TestCases, inline_tests
from grader.server.keys import add_key
from grader.server.problems import Refused
from grader.suites import registry
from grader.suites.inline import inline_task
from grader.worker.execution import Executed

STARTER = registry.load("starter")
DONE = Executed("exited", 0, 0, b"out\n", b"", 0.1, 0.2, 1000)
VERL = {
    "compile_timeout": 10, "run_timeout": 7, "code": "print(input())", "stdin": "a", "memory_limit_MB": 512,
    "language": "python", "files": {}, "fetch_files": [],
}  # fmt: skip


def test_what_verl_sends():
    run = wanted_of(RunCodeRequest.model_validate(VERL), Owner())
    assert (run.execution.source, run.execution.stdin, run.execution.time_s) == ("print(input())", b"a", 7.0)
    assert run.limits.memory_bytes == 512 * MIB


def test_defaults_and_fields_that_are_not_known():
    request = RunCodeRequest.model_validate(
        {"code": "x", "language": "python", "expected_stdout": "1", "stdin": None, "memory_limit_MB": -1}
    )
    run = wanted_of(request, Owner())
    assert (run.execution.stdin, run.execution.time_s) == (b"", 10.0)
    assert run.limits.memory_bytes == Limits().memory_bytes


def test_files_are_base64():
    files = {"data/a.txt": base64.b64encode(b"\x00\xff").decode(), "skipped": None}
    request = RunCodeRequest(code="x", language="python", files=files, fetch_files=["b", "b"])
    run = wanted_of(request, Owner())
    assert run.execution.files == {"data/a.txt": b"\x00\xff"}
    assert run.execution.fetch == ("b",)


@pytest.mark.parametrize("language", ["cpp", "Python", "pytest", "", "x" * 1000])
def test_other_languages_are_refused(language):
    with pytest.raises(Refused) as caught:
        wanted_of(RunCodeRequest(code="x", language=language), Owner())
    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("change", "status", "run_status", "code"),
    [
        ({}, "Success", "Finished", 0),
        ({"code": 1}, "Failed", "Finished", 1),
        ({"ended": "signalled", "signal": 11}, "Failed", "Finished", -11),
        ({"ended": "time_limit", "signal": 9}, "Failed", "TimeLimitExceeded", None),
        ({"ended": "memory_limit", "signal": 9}, "Failed", "Finished", -9),
        ({"ended": "output_limit", "signal": 9}, "Failed", "Finished", -9),
    ],
)
def test_answers(change, status, run_status, code):
    answer = response_of(replace(DONE, **change), Limits())
    RunCodeResponse.model_validate(answer)
    run = answer["run_result"]
    assert (answer["status"], run["status"], run["return_code"]) == (status, run_status, code)
    assert run["stdout"] == "out\n"
    assert run["stderr"] is not None
    assert answer["compile_result"] is None


@given(
    st.binary(max_size=200),
    st.binary(max_size=200),
    st.dictionaries(st.text(max_size=5), st.binary(max_size=9)),
)
def test_any_output_can_be_answered(stdout, stderr, files):
    answer = response_of(replace(DONE, stdout=stdout, stderr=stderr, files=files), Limits())
    RunCodeResponse.model_validate(answer)
    assert {name: base64.b64decode(data) for name, data in answer["files"].items()} == files


def test_a_program_is_run(compat):
    answer = compat("sandbox-fusion").post("/run_code", VERL)
    assert answer.status_code == 200
    assert answer.json()["run_result"]["stdout"] == "a"


@pytest.mark.parametrize("stub", ["overload", "break"])
def test_what_is_our_failure_is_tried_again(compat, stub):
    answer = compat("sandbox-fusion").post("/run_code", {**VERL, "code": f"# stub: {stub}"})
    assert answer.status_code == 504
    assert "retry-after" in answer.headers
    assert "/var/lib" not in answer.text


def test_metrics_see_runs_and_what_there_was_no_room_for(compat):
    front = compat("sandbox-fusion")

    async def conversation(client: httpx.AsyncClient) -> str:
        for stub in ("", "fail", "overload", "break"):
            await client.post("/run_code", json={**VERL, "code": f"# stub: {stub}" if stub else "pass"})
        return (await client.get("/metrics")).text

    lines = front.talk(conversation).splitlines()
    assert {
        'grader_runs_total{ended="exited"} 2.0',
        'grader_runs_total{ended="not_started"} 1.0',
        'grader_runs_total{ended="failed"} 1.0',
        'grader_grading_cpu_seconds_count{suite="run"} 2.0',
        'grader_backpressure_refusals_total{route="/run_code"} 1.0',
    } <= set(lines)


def test_a_drain_is_told_with_a_504(compat):
    front = compat("sandbox-fusion")

    async def conversation(client: httpx.AsyncClient) -> list[int]:
        front.service.draining = True
        return [
            (await client.post(path, json={})).status_code
            for path in ("/run_code", "/submit", "/common_evaluate_batch", "/v1/grade")
        ]

    assert front.talk(conversation) == [504, 504, 504, 503]


def test_keys_and_their_rates(compat, tmp_path):
    keys = tmp_path / "keys.jsonl"
    key = add_key(keys, "team", requests_per_s=0.01)
    front = compat("sandbox-fusion", keys=keys)

    async def conversation(client: httpx.AsyncClient) -> list[int]:
        headers = {"authorization": f"Bearer {key}"}
        without = (await client.post("/run_code", json=VERL)).status_code
        rest = [(await client.post("/run_code", json=VERL, headers=headers)).status_code for _ in range(4)]
        return [without, rest[0], rest[-1]]

    assert front.talk(conversation) == [401, 200, 504]


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/run_code", VERL, "code"),
        ("/submit", {"dataset": "starter", "id": 0}, "completion"),
    ],
)
def test_what_finds_no_room_does_not_use_up_the_rate(compat, tmp_path, path, body, text):
    key = add_key(tmp_path / "keys.jsonl", "team", samples_per_s=0.001)
    front = compat("sandbox-fusion", keys=tmp_path / "keys.jsonl")
    headers = {"authorization": f"Bearer {key}"}
    found = [
        front.post(path, {**body, text: f"{source}\ndef f(x):\n    return x\n"}, headers=headers).status_code
        for source in ("# stub: overload", "# stub: overload", "x = 1", "x = 1")
    ]
    assert found == [504, 504, 200, 504]


def test_a_slow_queue_is_answered_before_the_client_gives_up(compat, monkeypatch):
    monkeypatch.setattr("grader.server.compat.sandbox_fusion._PATIENCE_S", 0.0)
    body = {**VERL, "code": "# stub: wait 60", "compile_timeout": 0.01, "run_timeout": 0.01}
    assert compat("sandbox-fusion").post("/run_code", body).status_code == 504


def test_bad_bodies(compat):
    front = compat("sandbox-fusion")
    for change in (
        {"code": None}, {"run_timeout": 0}, {"run_timeout": 1e9}, {"memory_limit_MB": 10**9}, {"files": {"../a": ""}},
        {"files": {"a": "%"}}, {"fetch_files": ["/etc/passwd"]}, {"stdin": 3}, {"language": "go"},
    ):  # fmt: skip
        answer = front.post("/run_code", {**VERL, **change})
        assert answer.status_code == 422, (change, answer.text)
        assert isinstance(answer.json()["detail"], str)
    assert front.grading.executed == 0


def test_prompts(compat):
    front = compat("sandbox-fusion")
    assert front.get("/v1/ping").json() == "pong"
    assert "starter" in front.get("/list_datasets").json()
    ids = front.post("/list_ids", {"dataset": "starter", "config": {}}).json()
    assert ids == [id_of(task_id) for task_id in STARTER.tasks]
    prompts = front.post("/get_prompts", {"dataset": "starter", "config": {}, "offset": 1, "limit": 2}).json()
    assert [prompt["id"] for prompt in prompts] == ids[1:3]
    one = front.post("/get_prompt_by_id", {"dataset": "starter", "config": {}, "id": ids[1]}).json()
    assert one == prompts[0]
    assert front.post("/get_prompt_by_id", {"dataset": "starter", "id": "x"}).status_code == 404
    assert front.post("/get_prompts", {"dataset": "x", "config": {}}).status_code == 400


def test_submissions(compat):
    front = compat("sandbox-fusion")
    body = {"dataset": "starter", "id": 0, "completion": "```python\nx = 1\n```", "config": {}}
    answer = front.post("/submit", body)
    assert answer.status_code == 200, answer.text
    found = EvalResult.model_validate(answer.json())
    assert found.accepted
    assert (found.id, found.test_code) == (0, None)
    for change in (
        {"config": {"language": "cpp"}}, {"config": {"custom_extract_logic": "submit_code_blocks([])"}},
        {"config": {"provided_data": []}},
    ):  # fmt: skip
        assert front.post("/submit", {**body, **change}).status_code == 422
    name = STARTER.tasks[next(iter(STARTER.tasks))].entry_point
    unjudged = {**body, "completion": f"# stub: path\ndef {name}(*_): pass\n"}
    assert front.post("/submit", unjudged).status_code == 504, "never a failed test"


def test_ids():
    assert id_of("HumanEval/3") == 3
    assert id_of("a/03") == "a/03"
    assert id_of("plain") == "plain"
    name = next(iter(STARTER.tasks))
    assert task_of(STARTER, name) is task_of(STARTER, id_of(name)) is task_of(STARTER, str(id_of(name)))


def test_metrics():
    results = [Result(id=1, accepted=True), Result(id=1, accepted=False), Result(id=2, accepted=True)]
    assert metrics_of(results) == {"accepted": 2, "total": 3, "pass@1": 0.75}
    assert metrics_of([])["pass@1"] is None


CASES = [
    {"type": "stdin_stdout", "input": ["1", "2"], "output": ["1", "2"], "fn_name": None},
    {"type": "function_call", "input": [[1], [2]], "output": [[1], [2]], "fn_name": "f"},
    {"input": ["1\n2", "2\n3"], "output": ["1", "2"], "fn_name": "f", "json_input": True},
]


@pytest.mark.parametrize("cases", CASES)
def test_cases_become_inline_tests(cases):
    read = TestCases.model_validate(cases)
    assert len(inline_tests(read, "t", each=False)) == 1
    each = inline_tests(read, "t", each=True)
    assert [place for place, _ in each] == ["t[0]", "t[1]"]
    for place, tests in each:
        inline_task(tests, place)


def test_asserts_become_inline_tests():
    source = "def check(candidate):\n    assert candidate(1) == 2\ncheck(inc)\n"
    ((_, tests),) = inline_tests(TestCases(type="assert", test=source, entry_point="inc"), "t", each=True)
    assert tests["tests"] == ["check(inc)"]
    assert "check(inc)" not in tests["setup"]
    ((_, tests),) = inline_tests(
        TestCases(type="assert", test="assert inc(1) == 2", entry_point="inc"), "t", each=True
    )
    assert tests["tests"] == ["assert inc(1) == 2"]


@pytest.mark.parametrize(
    "cases",
    [
        {"type": "stdin_stdout", "input": [], "output": []},
        {"type": "stdin_stdout", "input": ["1"], "output": []},
        {"type": "function_call", "input": [[1]], "output": [[1]]},
        {"type": "function_call", "input": [1], "output": [[1]], "fn_name": "f"},
        {"type": "assert", "test": "assert f()"},
        {"type": "assert", "test": "def f(:", "entry_point": "f"},
        {"type": "assert", "test": "assert f() == 0x" + "f" * 5000, "entry_point": "f"},
        {"type": "assert", "test": "assert f" + ".a" * 400, "entry_point": "f"},
        {"type": "assert", "test": "def check(f):\n    assert f" + ".a" * 400, "entry_point": "f"},
    ],
)
def test_cases_that_cannot_be_meant(cases):
    with pytest.raises(Refused):
        inline_tests(TestCases.model_validate(cases), "t", each=False)


def test_a_batch_of_cases(compat):
    front = compat("sandbox-fusion")
    config = {
        "language": "python",
        "provided_data": {"test_cases": CASES[0]},
        "extra": {"run_all_cases": True},
    }
    answer = front.post(
        "/common_evaluate_batch", {"completion": "```python\nprint(1)\n```", "config": config}
    )
    assert answer.status_code == 200, answer.text
    assert [test["passed"] for test in answer.json()["tests"]] == [True, True]
    del config["language"]
    answer = front.post("/common_evaluate_batch", {"completion": "", "config": config})
    assert answer.status_code == 400
