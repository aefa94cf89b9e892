"""Foreign APIs over ``grader serve`` as a user runs it: real workers, real cells."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from grader.suites import registry

GRADER = str(Path(sys.executable).with_name("grader"))
LONG_S = 300.0
STARTER = registry.load("starter")
TASK = next(iter(STARTER.tasks.values()))


def _served(folder: Path, *apis: str) -> tuple[subprocess.Popen[bytes], str]:
    command = [GRADER, "serve", "--port", "0", "--workers", "2", "--no-jobs"]
    command += [part for api in apis for part in ("--compat", api)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    while process.poll() is None:
        for line in (folder / "log").read_text().splitlines():
            if '"serving"' in line and line.endswith("}"):
                url = str(json.loads(line)["url"])
                while httpx.get(f"{url}/readyz", timeout=LONG_S).status_code != 200:
                    assert process.poll() is None
                return process, url
    raise AssertionError((folder / "log").read_text())


def _client(folder: Path, *apis: str) -> Iterator[httpx.Client]:
    process, url = _served(folder, *apis)
    try:
        with httpx.Client(base_url=url, timeout=LONG_S) as client:
            yield client
    finally:
        process.terminate()
        assert process.wait(LONG_S) == 0, (folder / "log").read_text()[-5000:]


@pytest.fixture(scope="module")
def fusion(sandbox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    yield from _client(tmp_path_factory.mktemp("fusion"), "sandbox-fusion", "piston", "open-r1-e2b")


@pytest.fixture(scope="module")
def others(sandbox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    yield from _client(tmp_path_factory.mktemp("others"), "nemo-skills")


@pytest.fixture(scope="module")
def instruct(sandbox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    yield from _client(tmp_path_factory.mktemp("instruct"), "open-instruct")


def run_code(client: httpx.Client, code: str, **fields: Any) -> dict[str, Any]:
    answer = client.post("/run_code", json={"code": code, "language": "python", **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("code", "fields", "status", "return_code", "stdout", "in_stderr"),
    [
        ("print(int(input()) + 1)", {"stdin": "1"}, "Success", 0, "2\n", ""),
        ("print(input())", {"stdin": "é", "expected_stdout": "x"}, "Success", 0, "é\n", ""),
        ("import sys\nprint(repr(sys.stdin.read()))", {}, "Success", 0, "''\n", ""),
        ("input()", {}, "Failed", 1, "", "EOFError"),
        ("def f(:", {}, "Failed", 1, "", "SyntaxError"),
        ("print(1)\n1/0", {}, "Failed", 1, "1\n", "line 2, in <module>\nZeroDivisionError"),
        ("import sys\nsys.excepthook = lambda *e: sys.stderr.write('mine')\n1/0", {}, "Failed", 1, "", "mine"),
        ("import sys\nsys.excepthook = None\n1/0", {}, "Failed", 1, "", "line 3, in <module>\nZeroDivisionError"),
        ("import sys\nsys.exit(7)", {}, "Failed", 7, "", ""),
        ("import os\nos._exit(9)", {}, "Failed", 9, "", ""),
        ("raise SystemExit('no')", {}, "Failed", 1, "", "no"),
        ("import ctypes\nctypes.string_at(0)", {}, "Failed", -11, "", ""),
        ("while True: pass", {"run_timeout": 0.3}, "Failed", None, "", ""),
        ("print('up', flush=True)\nimport time\ntime.sleep(600)", {"run_timeout": 0.3}, "Failed", None, "up\n", ""),
        ("x = bytearray(10**9)\nx[::4096] = x[::4096]", {"memory_limit_MB": 64}, "Failed", -9, "", "64 MiB"),
        ("import sys\nprint(sys.argv[1:])", {"args": ["a", "b"]}, "Success", 0, "['a', 'b']\n", ""),
        ("\0", {}, "Failed", 1, "", "null bytes"),
    ],
)  # fmt: skip
def test_programs(fusion, code, fields, status, return_code, stdout, in_stderr):
    found = run_code(fusion, code, **fields)
    run = found["run_result"]
    assert (found["status"], run["return_code"], run["stdout"]) == (status, return_code, stdout)
    assert run["status"] == ("TimeLimitExceeded" if return_code is None else "Finished")
    assert in_stderr in run["stderr"]
    assert found["message"] == ""


def test_much_output_is_returned_whole(fusion):
    code = "import sys\nfor _ in range(3000): print('x' * 99)\nsys.stderr.write('e' * 200_000)"
    run = run_code(fusion, code)["run_result"]
    assert (len(run["stdout"]), len(run["stderr"])) == (300_000, 200_000)


def test_output_without_end_is_stopped(fusion):
    found = run_code(fusion, "while True: print('x' * 100_000)", run_timeout=60)
    assert found["status"] == "Failed"
    assert "printed more than" in found["run_result"]["stderr"]


def test_files_go_in_and_out(fusion):
    code = "data = open('in/a.bin', 'rb').read()\nopen('b.bin', 'wb').write(data[::-1])"
    files = {"in/a.bin": base64.b64encode(b"\x00\x01\xff").decode(), "left out": None}
    found = run_code(fusion, code, files=files, fetch_files=["b.bin", "missing"])
    assert {name: base64.b64decode(data) for name, data in found["files"].items()} == {
        "b.bin": b"\xff\x01\x00"
    }
    again = run_code(fusion, "import os\nprint(os.listdir())")
    assert again["run_result"]["stdout"] == "[]\n", "nothing of another run is there"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"code": "x", "language": "cpp"}', 422),
        (b'{"code": "x"}', 422),
        (b'{"code": "x", "language": "python", "files": {"../x": ""}}', 422),
        (b'{"code": "x", "language": "python", "run_timeout": -1}', 422),
        (b'{"code": "\\ud800", "language": "python"}', 400),
        (b"{", 400),
        (b"", 400),
    ],
)
def test_malformed_requests(fusion, content, status):
    answer = fusion.post("/run_code", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text


def test_many_at_once_and_equal_ones_have_their_own_results(fusion):
    def ask(number: int) -> str:
        code = "import random\nprint(int(input()) * 2)"
        answer = run_code(fusion, code, stdin=str(number % 40))
        return str(answer["run_result"]["stdout"])

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, range(120)))
    assert found == [f"{number % 40 * 2}\n" for number in range(120)]


def test_submissions_are_judged_and_cannot_be_forged(fusion):
    def submit(completion: str) -> dict[str, Any]:
        body = {"dataset": "starter", "id": TASK.task_id, "completion": completion, "config": {}}
        answer = fusion.post("/submit", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    right = submit(f"Sure:\n```python\n{TASK.reference}\n```")
    assert (right["accepted"], right["extracted_type"]) == (True, "fenced")
    assert [test["test_info"]["group"] for test in right["tests"]] == [group.name for group in TASK.groups]
    forged = submit(f"```python\nimport os\ndef {TASK.entry_point}(*_): os._exit(0)\n```")
    assert forged["accepted"] is False
    assert forged["tests"][0]["exec_info"]["status"] == "Failed"
    assert (submit("I do not know.")["accepted"], submit("")["extracted_type"]) == (False, "empty")


@pytest.mark.parametrize("run_all", [False, True])
def test_cases_that_come_with_a_completion(fusion, run_all):
    def passed(completion: str, cases: dict[str, Any]) -> list[bool]:
        config = {"language": "python", "run_timeout": 5, "provided_data": {"test_cases": cases},
                  "extra": {"run_all_cases": run_all}}  # fmt: skip
        body = {"completion": f"```python\n{completion}\n```", "config": config}
        answer = fusion.post("/common_evaluate_batch", json=body)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["accepted"] == all(test["passed"] for test in found["tests"])
        return [test["passed"] for test in found["tests"]]

    stdio = {"type": "stdin_stdout", "input": ["1", "2", "3"], "output": ["2", "4", "6"], "fn_name": None}
    assert passed("print(2 * int(input()))", stdio) == [True] * 3
    some = passed("n = int(input())\nprint(2 * n if n != 2 else 0)", stdio)
    assert some == ([True, False, True] if run_all else [True, False])
    calls = {"type": "function_call", "input": [[1, 2], [3, 4]], "output": [[3], [7]], "fn_name": "add"}
    assert passed("def add(a, b): return a + b", calls) == [True, True]
    assert passed("class Solution:\n    def add(self, a, b): return a + b", calls) == [True, True]
    assert passed("def add(a, b): return 3", calls) == [True, False]
    source = "def check(candidate):\n    assert candidate(1) == 2\ncheck(inc)"
    asserts = {"type": "assert", "test": source, "entry_point": "inc"}
    assert passed("def inc(x): return x + 1", asserts) == [True]
    assert passed("import sys\ndef inc(x): sys.exit(0)", asserts) == [False]


def test_piston(fusion):
    (runtime,) = fusion.get("/api/v2/runtimes").json()
    body = {"language": "python", "version": runtime["version"], "stdin": "5", "args": ["x"]}
    files = [{"name": "main.py", "content": "import helper, sys\nprint(helper.f(), input(), sys.argv[1])"},
             {"name": "helper.py", "content": "def f(): return 1"}]  # fmt: skip
    found = fusion.post("/api/v2/execute", json={**body, "files": files}).json()
    assert (found["run"]["code"], found["run"]["stdout"]) == (0, "1 5 x\n"), found
    late = {**body, "files": [{"content": "while True: pass"}], "run_timeout": 300}
    found = fusion.post("/api/v2/execute", json=late).json()["run"]
    assert (found["code"], found["signal"], found["status"]) == (None, "SIGKILL", "TO")
    assert fusion.post("/api/v2/execute", json={**body, "version": "2", "files": files}).status_code == 400


def test_open_r1(fusion):
    program, tests = "print(2 * int(input()))", [{"input": "1", "output": "2"}, {"input": "2", "output": "5"}]
    template = (
        "    import subprocess\n    import json\n\n"
        "    def evaluate_code(code, test_cases):\n        passed = 0\n        total = len(test_cases)\n"
        "        for case in test_cases:\n            process = subprocess.run(['python3', '-c', code], "
        "input=case['input'], text=True, capture_output=True, timeout=5)\n"
        "            passed += process.stdout.strip() == case['output'].strip()\n        return passed / total\n"
        f"    code_snippet = {json.dumps(program)}\n"
        f"    test_cases = json.loads({json.dumps(json.dumps(tests))})\n\n"
        "    evaluate_code(code_snippet, test_cases)\n"
    )
    scripts = [template, "x = 0.25\nx * 2", "1/0", "while True: pass"]
    body = {"scripts": scripts, "languages": ["python"] * 4, "timeout": 1, "request_timeout": 28}
    found = fusion.post("/execute_batch", json=body).json()
    assert [one["execution"] and one["execution"]["results"] for one in found] == [
        [{"text": "0.5", "is_main_result": True}], [{"text": "0.5", "is_main_result": True}], [], None,
    ]  # fmt: skip
    assert found[2]["execution"]["error"]["name"] == "ZeroDivisionError"


def test_nemo_skills(others):
    def execute(code: str, language: str = "python", **fields: Any) -> dict[str, Any]:
        body = {"generated_code": code, "timeout": 1.0, "language": language, **fields}
        answer = others.post("/execute", json=body, headers={"X-Session-ID": "7"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert execute("print(input())", std_input="a") == {
        "process_status": "completed",
        "stdout": "a\n",
        "stderr": "",
    }
    cell = execute("x = 20\nx + 1", "ipython")
    assert (cell["process_status"], cell["stdout"], cell["new_session_created"]) == (
        "completed",
        "21\n",
        True,
    )
    assert execute("x", "ipython")["process_status"] == "error", "no state is kept"
    late = execute("while True: pass")
    assert (late["process_status"], late["stderr"]) == ("timeout", "Execution timed out after 1.0 seconds\n")
    assert execute("print('x' * 50)", max_output_characters=3)["stdout"] == "xxx<output cut>"


def test_open_instruct(instruct):
    program = "class P:\n    def __init__(self, x): self.x = x\n    def get(self): return self.x\n\n"
    program += "def add(a, b): return a + b\ndef inc(a): return a + 1\n"
    tests = ["assert add(1, 2) == 3", "assert add(0, 0) == 1", "assert inc(add(1, 1)) == 3",
             "assert math.isclose(add(0.1, 0.2), 0.3)", "p = P(4)\nassert p.get() == 4",
             "assert missing(1) == 1"]  # fmt: skip
    found = instruct.post("/test_program", json={"program": program, "tests": tests}).json()
    assert found["results"] == [1, 0, 1, 1, 1, 0], found
    assert len(found["runtimes"]) == 6
    forged = "import sys\ndef add(a, b): sys.exit(0)"
    found = instruct.post("/test_program", json={"program": forged, "tests": tests[:2]}).json()
    assert found["results"] == [0, 0]
    cases = [{"input": "1\n", "output": "2\n"}, {"input": "5", "output": "7"}]
    body = {"program": "print(int(input()) + 1)", "tests": cases, "max_execution_time": 2.0}
    assert instruct.post("/test_program_stdio", json=body).json()["results"] == [1, 0]


def test_apis_that_contradict_each_other_do_not_start(sandbox_root):
    command = [GRADER, "serve", "--no-jobs", "--compat", "nemo-skills", "--compat", "open-instruct"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "both answer GET /health" in ended.stderr
