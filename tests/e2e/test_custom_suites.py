"""Suites of one's own, with each kind of test, from file to verdict."""

from __future__ import annotations

import hashlib
import json

import pytest

REFERENCE = "def area(width, height):\n    return width * height\n"
SUITE = [
    {"suite": "shapes", "version": "v3", "description": "one task of each kind"},
    {
        "task_id": "Shapes/given",
        "entry_point": "area",
        "comparison": {"kind": "close", "atol": 0.01},
        "groups": [
            {"name": "base", "kind": "function", "tests": [{"args": [2, 3], "expected": 6}]},
            {"name": "more", "kind": "function", "tests": [{"args": [0.5, 0.5], "expected": 0.25}]},
        ],
    },
    {
        "task_id": "Shapes/made",
        "entry_point": "area",
        "reference": REFERENCE,
        "groups": [
            {"name": "base", "kind": "function", "tests": [{"args": [2, 3]}]},
            {"name": "more", "kind": "function", "tests": [{"args": [-1, 7]}, {"args": [10**30, 10**30]}]},
        ],
    },
    {
        "task_id": "Shapes/printed",
        "reference": "width, height = map(int, input().split())\nprint(width * height)\n",
        "groups": [
            {"name": "base", "kind": "stdio", "tests": [{"stdin": "2 3\n", "stdout": "6\n"}]},
            {"name": "more", "kind": "stdio", "comparison": "float", "tests": [{"stdin": "5 5\n"}]},
        ],
    },
    {
        "task_id": "Shapes/asserted",
        "entry_point": "area",
        "reference": REFERENCE,
        "groups": [
            {
                "name": "base",
                "kind": "assertions",
                "tests": ["assert area(2, 3) == 6", "assert area(0, 3) == 0"],
            },
            {
                "name": "more",
                "kind": "assertions",
                "setup": "UNIT = 1",
                "tests": ["assert area(UNIT, height=1) == UNIT"],
            },
        ],
    },
    {
        "task_id": "Shapes/mixed",
        "entry_point": "area",
        "reference": REFERENCE,
        "groups": [
            {"name": "base", "kind": "function", "tests": [{"args": [2, 3]}]},
            {"name": "more", "kind": "assertions", "tests": ["assert area(2, 2) == 4"]},
        ],
    },
]
FUNCTION_TASKS = ("Shapes/given", "Shapes/made", "Shapes/asserted", "Shapes/mixed")
PRINTS = "width, height = input().split()\nprint({})\n"

PROGRAMS = {
    "right": (REFERENCE, "passed"),
    "adds": ("def area(width, height):\n    return width + height\n", "wrong_answer"),
    "raises": ("def area(width, height):\n    raise KeyError(width)\n", "runtime_error"),
    "exits": ("import os\ndef area(width, height):\n    os._exit(0)\n", "runtime_error"),
    "kills itself": (
        "import os\ndef area(width, height):\n    os.kill(os.getpid(), 11)\n    1 / 0\n",
        "runtime_error",
    ),
    "has no such function": ("def volume():\n    return 1\n", "runtime_error"),
    "does not compile": ("def area(width, height)\n    return 1\n", "compile_error"),
    "hangs": ("def area(width, height):\n    while True: pass\n", "time_limit"),
    "hangs at once": ("while True: pass\n", "time_limit"),
    "attacks": (
        "import ctypes\ndef area(w, h):\n    ctypes.CDLL(None).unshare(0x10000000)\n",
        "security_violation",
    ),
    "hoards": ("def area(w, h):\n    return bytearray(b'x' * (1 << 40))\n", "memory_limit"),
    "says it is equal": (
        "class Equal(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n"
        "def area(width, height):\n    return Equal(1)\n",
        "wrong_answer",
    ),
}
PRINTING = {
    "right": (PRINTS.format("int(width) * int(height)"), "passed"),
    "with more white space": (PRINTS.format("' ', int(width) * int(height), '\\n\\n'"), "passed"),
    "wrong": (PRINTS.format("width"), "wrong_answer"),
    "silent": ("pass", "wrong_answer"),
    "exits with an error": (
        PRINTS.format("int(width) * int(height)") + "raise SystemExit(3)\n",
        "runtime_error",
    ),
    "raises": ("input()\nraise ValueError", "runtime_error"),
    "reads on": ("while True: input()", "runtime_error"),
    "does not compile": ("print(", "compile_error"),
    "hangs": ("while True: pass", "time_limit"),
    "prints without end": ("while True: print('x' * 100000)", "output_limit"),
}


@pytest.fixture
def suite(tools, tmp_path):
    return tools.write_lines(tmp_path / "shapes.jsonl", SUITE)


@pytest.fixture
def statuses_of(command, tools, tmp_path, suite):
    """Grade programs for tasks; returns verdicts by (task, name)."""

    def graded(programs, task_ids, *arguments):
        rows = [
            {"task_id": task_id, "sample_id": f"{task_id}|{name}", "solution": source}
            for task_id in task_ids
            for name, (source, _) in programs.items()
        ]
        samples = tools.write_lines(tmp_path / "programs.jsonl", rows)
        verdicts = command.score(samples, suite, "--time-floor", "0.5", *arguments)
        return {tuple(verdict["sample_id"].split("|")): verdict for verdict in verdicts}

    return graded


def expected(programs, task_ids):
    return {(task_id, name): status for task_id in task_ids for name, (_, status) in programs.items()}


def statuses(verdicts):
    return {key: verdict["status"] for key, verdict in verdicts.items()}


@pytest.mark.parametrize("flags", [(), ("--no-fail-fast",)], ids=["fail fast", "all tests"])
def test_functions_and_assertions(statuses_of, flags):
    verdicts = statuses_of(PROGRAMS, FUNCTION_TASKS, *flags)
    assert statuses(verdicts) == expected(PROGRAMS, FUNCTION_TASKS)


@pytest.mark.parametrize("flags", [(), ("--no-fail-fast",)], ids=["fail fast", "all tests"])
def test_whole_programs(statuses_of, flags):
    verdicts = statuses_of(PRINTING, ["Shapes/printed"], "--time-floor", "2", *flags)
    assert statuses(verdicts) == expected(PRINTING, ["Shapes/printed"])


def test_errors_are_told_with_their_line(statuses_of):
    verdicts = statuses_of({"raises": PROGRAMS["raises"]}, FUNCTION_TASKS)
    for verdict in verdicts.values():
        assert verdict["error"] == {"type": "KeyError", "message": "2", "line": 2}


def test_a_suite_of_ones_own_has_its_name_and_version(command, tools, tmp_path, suite):
    samples = tools.write_lines(tmp_path / "one.jsonl", [{"task_id": "Shapes/made", "completion": REFERENCE}])
    ended = command("score", samples, "--suite", suite, "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)["suite"]
    assert found == {
        "name": "shapes",
        "version": "v3",
        "sha256": hashlib.sha256(suite.read_bytes()).hexdigest(),
    }


def test_a_changed_suite_has_answers_of_its_own(command, tools, tmp_path):
    """The expected answers of the first file must not be used for the second, whose reference differs."""
    verdicts = []
    for factor in (2, 3):
        task = {
            "task_id": "T/0",
            "entry_point": "f",
            "reference": f"def f(n):\n    return {factor} * n\n",
            "groups": [{"name": "base", "kind": "function", "tests": [{"args": [5]}]}],
        }
        suite = tools.write_lines(tmp_path / f"suite-{factor}.jsonl", [task])
        rows = [{"task_id": "T/0", "sample_id": "twice", "solution": "def f(n):\n    return 2 * n\n"}]
        verdicts += command.score(tools.write_lines(tmp_path / "rows.jsonl", rows), suite)
    assert [verdict["status"] for verdict in verdicts] == ["passed", "wrong_answer"]


def test_long_programs_that_print_much(command, tools, tmp_path, suite):
    """More than the pipes between engine, worker and cell hold, in all directions at once."""
    source = "#" + "x" * 300_000 + "\n" + "def area(w, h):\n    print('y' * 200_000)\n    return w * h\n"
    rows = [{"task_id": "Shapes/made", "sample_id": f"s{n}", "solution": source} for n in range(12)]
    verdicts = command.score(tools.write_lines(tmp_path / "long.jsonl", rows), suite, "--no-cache")
    assert [verdict["status"] for verdict in verdicts] == ["passed"] * 12
    assert {len(verdict["stdout_tail"]) for verdict in verdicts} == {64 * 1024}


SPIN = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"


@pytest.mark.parametrize(
    ("kind", "tests"),
    [
        ("function", [{"args": [1]}, {"args": [7]}]),
        ("assertions", ["assert f(1) == 2", "assert f(7) == 14"]),
        ("stdio", [{"stdin": "1"}, {"stdin": "7"}]),
    ],
)
def test_a_slow_reference_makes_for_a_longer_limit(command, tools, tmp_path, kind, tests):
    """Half a second for the second test, where the floor is a tenth of that; and no more than four times as much."""
    slow = SPIN.replace("\n", "\n        ")
    body = f"    if n == 7:\n        {slow}pass\n"
    if kind == "stdio":
        program = (
            f"n = int(input())\nif n == 7:\n    {SPIN.replace(chr(10), chr(10) + '    ')}\nprint(2 * n)\n"
        )
        hanging = "while True: pass"
    else:
        program, hanging = f"def f(n):\n{body}    return 2 * n\n", "def f(n):\n    while True: pass\n"
    task = {
        "task_id": "T/0",
        "reference": program,
        "groups": [{"name": "base", "kind": kind, "tests": tests}],
    }
    task |= {} if kind == "stdio" else {"entry_point": "f"}
    suite = tools.write_lines(tmp_path / "suite.jsonl", [task])
    rows = [
        {"task_id": "T/0", "sample_id": name, "solution": source}
        for name, source in (("right", program), ("hangs", hanging))
    ]
    verdicts = command.score(tools.write_lines(tmp_path / "rows.jsonl", rows), suite, "--time-floor", "0.1")
    found = {verdict["sample_id"]: verdict for verdict in verdicts}
    assert found["right"]["status"] == "passed", found["right"]["error"]
    assert found["hangs"]["status"] == "time_limit"
