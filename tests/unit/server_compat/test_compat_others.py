"""Foreign APIs but SandboxFusion's: from requests to runs, and from what programs did to answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.judge.stream import Raised
from grader.limits import Limits
from grader.server.batches import Owner
from grader.server.compat import nemo_skills, open_instruct, open_r1, piston
from grader.server.compat.cells import RESULT_FILE, with_result
from grader.server.compat.running import MAX_TIME_S
from grader.server.problems import Refused
from grader.suites.inline import inline_task
from grader.worker.execution import Executed

DONE = Executed("exited", 0, 0, b"out\n", b"", 0.1, 0.2, 1000)


# -- Piston


def piston_request(**fields):
    body = {"language": "python", "version": "*", "files": [{"content": "print(1)"}], **fields}
    return piston.PistonRequest.model_validate(body)


def test_piston_requests():
    files = [
        {"name": "data.bin", "content": "AP8=", "encoding": "base64"},
        {"name": "main.py", "content": "print(1)"},
        {"content": "ff", "encoding": "hex"},
    ]
    run = piston.wanted_of(
        piston_request(files=files, args=["a"], run_timeout=500, run_memory_limit=-1), Owner()
    )
    assert run.execution.source == "print(1)"
    assert run.execution.files == {"data.bin": b"\x00\xff", "main.py": b"print(1)", "file2.code": b"\xff"}
    assert (run.execution.args, run.execution.time_s) == (("a",), 0.5)
    assert run.limits.memory_bytes == Limits().memory_bytes
    assert piston.wanted_of(piston_request(run_timeout=0), Owner()).execution.time_s == 3.0
    assert (
        piston.wanted_of(piston_request(run_timeout=900, run_cpu_time=100), Owner()).execution.time_s == 0.1
    )


@pytest.mark.parametrize(
    "files",
    [
        [{"content": "AA==", "encoding": "base64"}],
        [{"content": "x"}, {"content": "zz", "encoding": "hex"}],
        [{"content": "x", "name": "../x"}],
    ],
)
def test_piston_files_that_cannot_be_meant(files):
    with pytest.raises(Refused):
        piston.wanted_of(piston_request(files=files), Owner())


@pytest.mark.parametrize(
    ("selector", "meant"),
    [("*", True), ("3", True), ("3.11", True), ("3.11.x", True), ("3.x.x", True), ("3.11.7", True),
     ("3.12", False), ("2", False), ("3.11.7.1", False), ("", False), ("3.1", False)],
)  # fmt: skip
def test_piston_versions(selector, meant):
    assert piston.is_version(selector, "3.11.7") is meant


@pytest.mark.parametrize(
    ("change", "code", "name", "status"),
    [
        ({}, 0, None, None),
        ({"code": 2}, 2, None, "RE"),
        ({"ended": "signalled", "signal": 11}, None, "SIGSEGV", "SG"),
        ({"ended": "time_limit"}, None, "SIGKILL", "TO"),
        ({"ended": "memory_limit"}, None, "SIGKILL", "SG"),
        ({"ended": "output_limit"}, None, "SIGKILL", "OL"),
    ],
)
def test_piston_answers(change, code, name, status):
    stage = piston.stage_of(replace(DONE, **change), Limits())
    piston.PistonStage.model_validate(stage)
    assert (stage["code"], stage["signal"], stage["status"]) == (code, name, status)
    assert stage["output"] == stage["stdout"] + stage["stderr"]


def test_piston_errors(compat):
    front = compat("piston")
    body = {"language": "python", "version": "*", "files": [{"content": "x"}]}
    for change in (
        {"language": "cms_ioi"},
        {"version": "2"},
        {"files": []},
        {"files": None},
        {"language": ""},
    ):
        answer = front.post("/api/v2/execute", {**body, **change})
        assert answer.status_code == 400, answer.text
        assert set(answer.json()) == {"message"}
    assert (
        front.post("/api/v2/execute", {**body, "files": [{"content": "# stub: overload"}]}).status_code == 503
    )
    assert front.post("/api/v2/piston/execute", body).status_code == 200


# -- cells


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ("x = 2\nx * 3", "6"), ("x = 2\nx * 3  # why", "6"), ("(1,\n 2)\n", "(1, 2)"), ("'é' + 'b'", "'éb'"),
        ("a = 1; a", "1"), ("x = 1", None), ("5;", None), ("None", None), ("", None), ("def f(:", None),
        ("'''a\nb'''", "'a\\nb'"), ("f'{1}'\r\n", "'1'"),
    ],
)  # fmt: skip
def test_the_result_of_a_cell(script, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = with_result(script)
    if script != "def f(:":
        exec(compile(source, "cell", "exec"), {})
    file = tmp_path / RESULT_FILE
    assert (file.read_text("utf-8") if file.exists() else None) == value


@given(st.text(max_size=60))
def test_any_text_can_be_a_cell(text):
    with_result(text)


# -- open-r1

SCRIPT = """
    import subprocess
    import json

    def evaluate_code(code, test_cases):
        passed = 0
        total = len(test_cases)
        exec_timeout = 3

        for case in test_cases:
            process = subprocess.run(
                ["python3", "-c", code], input=case["input"], text=True, capture_output=True, timeout=exec_timeout
            )
            if process.returncode != 0:
                continue
            if process.stdout.strip() == case["output"].strip():
                passed += 1
        return passed / total

    code_snippet = {code}
    test_cases = json.loads({test_cases})

    evaluate_code(code_snippet, test_cases)
    """
TESTS = [{"input": "1\n", "output": "2"}, {"input": "2\n", "output": "4", "type": "stdin_stdout"}]


def script(code="print(2 * int(input()))", tests=TESTS, template=SCRIPT):
    return template.format(code=json.dumps(code), test_cases=json.dumps(json.dumps(tests)))


def test_the_script_of_open_r1_is_recognised():
    found = open_r1.evaluation_in(script("def f():\n    '''\n  x'''\nprint(1)"))
    assert found is not None
    assert (found.program, len(found.cases), found.case_s) == ("def f():\n    '''\n  x'''\nprint(1)", 2, 3.0)


def test_a_script_with_an_endless_time_out_has_the_longest_that_there_is():
    found = open_r1.evaluation_in(script(template=SCRIPT.replace("timeout = 3", "timeout = 0x" + "f" * 400)))
    assert found is not None
    assert found.case_s == MAX_TIME_S


@pytest.mark.parametrize(
    "other",
    [
        "print(1)",
        script(
            template=SCRIPT.replace("evaluate_code(code_snippet, test_cases)\n    ", "print(evaluate_code)")
        ),
        script(template=SCRIPT.replace('["python3", "-c", code]', '["sh", "-c", code]')),
        script(template="    import os\n    os.listdir()\n" + SCRIPT),
        script(tests=[]),
        script(tests=[{"input": 1, "output": "2"}]),
        script(tests={}),
        "evaluate_code (",
        script(template=SCRIPT.replace("total = len(test_cases)", "total = 0x" + "f" * 5000)),
        script(template=SCRIPT.replace("total = len(test_cases)", "total = a" + ".a" * 400)),
    ],
)
def test_other_scripts_are_not(other):
    assert open_r1.evaluation_in(other) is None


def test_outcomes_of_scripts():
    good = open_r1.outcome_of(replace(DONE, files={RESULT_FILE: b"0.5"}), "", "")
    assert good.text == "0.5"
    assert open_r1.e2b_result(good)["execution"]["results"] == [{"text": "0.5", "is_main_result": True}]
    assert open_r1.morph_result(good) == {"text": "0.5", "exception_str": None}
    raised = open_r1.outcome_of(replace(DONE, code=1, error=Raised("ValueError", "no", 1)), "", "trace")
    assert open_r1.e2b_result(raised)["execution"]["error"] == {
        "name": "ValueError", "value": "no", "traceback": "trace",
    }  # fmt: skip
    assert open_r1.morph_result(raised) == {"text": "", "exception_str": "ValueError: no"}
    late = open_r1.outcome_of(replace(DONE, ended="time_limit"), "", "")
    assert open_r1.e2b_result(late)["execution"] is None
    assert open_r1.morph_result(late)["text"] == ""
    ours = open_r1.Outcome(why_none="later")
    assert open_r1.e2b_result(ours) == {"execution": None, "exception_str": "later"}
    assert open_r1.morph_result(ours)["text"] == "nan"
    assert open_r1.morph_result(open_r1.outcome_of(DONE, "", ""))["text"] == "out\n"


def test_a_batch_of_scripts(compat):
    front = compat("open-r1-e2b")
    assert front.get("/health").json() == {"status": "ok"}
    body = {"scripts": [script(), "# stub: break", "1"], "languages": ["python", "python", "javascript"],
            "timeout": 5, "request_timeout": 5}  # fmt: skip
    found = front.post("/execute_batch", body).json()
    assert found[0]["execution"]["results"][0]["text"] == "1.0"
    assert [one["execution"] for one in found[1:]] == [None, None]
    assert "javascript" in found[2]["exception_str"]
    answer = front.post("/execute_batch", {**body, "languages": ["python"]})
    assert answer.json()["errors"][0]["place"] == "languages"
    assert front.post("/execute_batch", {**body, "scripts": [], "languages": []}).json() == []
    deep = script(template=SCRIPT.replace("exec_timeout = 3", "exec_timeout = a" + ".a" * 400))
    both = {"scripts": [deep, script()], "language": "python", "timeout": 5, "request_timeout": 5}
    found = front.post("/execute_batch", both).json()
    assert len(found) == 2
    assert found[1]["execution"]["results"][0]["text"] == "1.0"
    single = {"scripts": ["1"], "language": "python", "timeout": 5, "request_timeout": 5}
    assert compat("open-r1-morph").post("/execute_batch", single).json()[0].keys() == {
        "text",
        "exception_str",
    }


def test_what_is_no_fault_of_a_program_is_no_reward_of_0(compat):
    """The morph router's client takes "" for 0, and NaN for a reward that is not there."""
    lost, refused = script("# stub: path"), script(tests=[{"input": "\ud800", "output": ""}])
    scripts = [script(), "1", lost, refused]
    languages = ["python", "javascript", "python", "python"]
    body = {"scripts": scripts, "languages": languages, "timeout": 5, "request_timeout": 5}
    answer = compat("open-r1-morph").post("/execute_batch", body)
    assert answer.status_code == 200, answer.text
    assert [one["text"] for one in answer.json()] == ["1.0", "nan", "nan", "nan"], answer.text


# -- NeMo-Skills


def nemo_request(**fields):
    return nemo_skills.NemoSkillsRequest.model_validate({"generated_code": "x", "timeout": 2.0, **fields})


@pytest.mark.parametrize(
    ("language", "change", "status"),
    [
        ("python", {}, "completed"), ("python", {"code": 1}, "completed"), ("ipython", {}, "completed"),
        ("ipython", {"code": 1}, "error"), ("python", {"ended": "time_limit"}, "timeout"),
        ("ipython", {"ended": "memory_limit"}, "error"), ("python", {"ended": "signalled"}, "error"),
    ],
)  # fmt: skip
def test_nemo_skills_answers(language, change, status):
    answer = nemo_skills.answer_of(replace(DONE, **change), Limits(), nemo_request(language=language))
    nemo_skills.NemoSkillsAnswer.model_validate(answer)
    assert answer["process_status"] == status
    assert answer.get("new_session_created") is (True if language == "ipython" else None)


def test_nemo_skills_cuts_long_output():
    answer = nemo_skills.answer_of(
        replace(DONE, stdout=b"x" * 50), Limits(), nemo_request(max_output_characters=10)
    )
    assert answer["stdout"] == "x" * 10 + "<output cut>"


def test_nemo_skills_endpoints(compat):
    front = compat("nemo-skills")
    body = {"generated_code": "x", "timeout": 2, "std_input": "hi", "language": "python"}
    assert front.post("/execute", body).json() == {
        "process_status": "completed",
        "stdout": "hi",
        "stderr": "",
    }
    cell = {**body, "language": "ipython"}
    assert front.post("/execute", cell).status_code == 400
    assert front.post("/execute", cell, headers={"X-Session-ID": "1"}).json()["new_session_created"] is True
    assert front.post("/execute", {**body, "language": "lean4"}).status_code == 422
    failed = front.post("/execute", {**body, "generated_code": "# stub: break"})
    assert (failed.status_code, failed.json()["process_status"]) == (503, "error")
    assert front.get("/health").json()["status"] == "healthy"
    assert front.talk(lambda client: client.delete("/sessions/abc")).status_code == 200


# -- open-instruct


@pytest.mark.parametrize(
    "test",
    [
        "assert add(1, 2) == 3", "assert math.isclose(area(2), 12.5)", "assert list(map(inc, [1])) == [2]",
        "assert f(g(1)) == 2", "p = Point(1)\nassert dist(p, p) == 0", "from solution import f\nassert f(1)",
        "x = 3\nassert f(x) == [y for y in range(x)]", "check(f)",
    ],
)  # fmt: skip
def test_assertions_become_inline_tests(test):
    if test == "check(f)":
        with pytest.raises(Refused):
            open_instruct.assertion_test(test, "tests[0]")
        return
    inline_task(open_instruct.assertion_test(test, "tests[0]"), "tests[0]")


def test_modules_that_a_test_forgot_are_imported():
    found = open_instruct.assertion_test("assert math.isclose(f(1), 1)", "tests[0]")
    assert (found["setup"], found["entry_point"]) == ("import math", "f")
    called = open_instruct.assertion_test("assert copy(1) == 1", "tests[0]")
    assert (called["setup"], called["entry_point"]) == ("", "copy"), "the program's function, and no module"


@pytest.mark.parametrize("test", ["assert 1 == 1", "assert (", "", 3, None])
def test_assertions_that_test_nothing(test):
    with pytest.raises(Refused):
        open_instruct.assertion_test(test, "tests[0]")


def test_open_instruct_endpoints(compat):
    front = compat("open-instruct")
    body = {
        "program": "def f(x): return x",
        "tests": ["assert f(1) == 1", "assert f(2) == 2"],
        "max_execution_time": 1,
    }
    found = front.post("/test_program", body).json()
    assert found["results"] == [1, 1]
    assert len(found["runtimes"]) == 2
    stdio = {"program": "print(input())", "tests": [{"input": "1", "output": "1"}]}
    assert front.post("/test_program_stdio", stdio).json()["results"] == [1]
    assert front.post("/test_program", {**body, "tests": []}).json() == {"results": [], "runtimes": []}
    wrong = front.post("/test_program", {**body, "tests": ["assert f(1)", "assert ("]})
    assert wrong.json()["errors"][0]["place"] == "tests[1]"
    assert front.post("/test_program_stdio", {**stdio, "tests": ["x"]}).status_code == 422
    assert front.post("/test_program", {**body, "program": "# stub: path"}).status_code == 503


# -- NeMo-Gym


@pytest.mark.parametrize("rewards", [[10**400], [-(10**400)], [1.7e308, 1.7e308], ["1"], [True], [None]])
def test_rewards_that_cannot_be_added_up(compat, rewards):
    body = {"verify_responses": [{"reward": 1.0}, *({"reward": reward} for reward in rewards)]}
    answer = compat("nemo-gym").post("/aggregate_metrics", body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["place"] == "verify_responses[1].reward"


def test_rewards_are_added_up(compat):
    answer = compat("nemo-gym").post("/aggregate_metrics", {"verify_responses": [{"reward": 1e300}] * 3})
    assert answer.json()["key_metrics"] == {"mean/reward": 1e300}
