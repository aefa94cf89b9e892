"""Rows as benchmarks have them, graded in real cells: our own problems, and programs that their graders would take."""

from __future__ import annotations

from typing import Any

import pytest

from grader.limits import Limits
from grader.run import Options, Reporter, make_engine, program_of
from grader.samples import GivenSample
from grader.suites.inline import InlineTasks

PAIR = {"inputs": ["[2, 7, 11]\n9", "[3, 3]\n6"], "outputs": ["[0, 1]", "[0, 1]"], "fn_name": "pairSum"}
PAIR_VALUES = {"inputs": [[[2, 7, 11], 9]], "outputs": [[[0, 1]]], "fn_name": "pairSum"}
COUNTS = {"inputs": ["[1, 1, 2]"], "outputs": ['{"1": 2, "2": 1}'], "fn_name": "counts"}
MEAN = {"inputs": ["3\n1 2 4\n", "1\n5\n"], "outputs": ["2.3333333333\n", "5\n"]}
GRID = {"inputs": ["2\n"], "outputs": ["1 0\n0 1\n"]}
ANSWER = {"input": ["7\n"], "output": ["YES\n3.5\n"]}
STACK = """
import pytest
from solution import Stack, parse

def test_push_and_pop():
    stack = Stack()
    stack.push(1)
    stack.push(2)
    assert [stack.pop(), stack.pop()] == [2, 1]

def test_pop_of_an_empty_stack():
    with pytest.raises(IndexError):
        Stack().pop()

def test_parse():
    assert parse("1,2") == [1, 2]
    assert parse("0.1")[0] + 0.2 == pytest.approx(0.3)
"""
METHOD = "class Solution:\n    def pairSum(self, nums: List[int], target: int) -> List[int]:\n"
LOOP = """        for i, j in combinations(range(len(nums)), 2):
            if nums[i] + nums[j] == target:
                return {}
"""
PRINTED = "n = int(input())\nvalues = list(map(int, input().split()))\nprint({})\n"
GUARDED = """
def main():
    n = int(input())
    print(sum(map(int, input().split())) / n)

if __name__ == '__main__':
    main()
"""
IMPLEMENTED = """
class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        return self.items.pop()


def parse(text):
    return [float(part) for part in text.split(",")]
"""

ROWS: list[tuple[str, Any, str, str]] = [
    ("a method, with the names that the graders provide", PAIR, METHOD + LOOP.format("[i, j]"), "passed"),
    ("a tuple for a list", PAIR, METHOD + LOOP.format("(i, j)"), "passed"),
    ("a function in place of the class", PAIR, "def pairSum(nums, target):\n    return [0, 1]\n", "passed"),
    ("the other order", PAIR, METHOD + LOOP.format("[j, i]"), "wrong_answer"),
    (
        "a method of another name",
        PAIR,
        "class Solution:\n    def pair_sum(self, a, b): return [0, 1]\n",
        "runtime_error",
    ),
    (
        "a class that cannot be made",
        PAIR,
        "class Solution:\n    def __init__(self, x): pass\n    def pairSum(self, a, b): return 1\n",
        "runtime_error",
    ),
    (
        "expected values in a list of one",
        PAIR_VALUES,
        "def pairSum(nums, target):\n    return [0, 1]\n",
        "passed",
    ),
    ("int keys", COUNTS, "def counts(values):\n    return dict(Counter(values))\n", "passed"),
    ("too many decimals", MEAN, PRINTED.format("sum(values) / n"), "passed"),
    ("a float for an int", MEAN, PRINTED.format("'%.6f' % (sum(values) / n)"), "passed"),
    ("too few decimals", MEAN, PRINTED.format("round(sum(values) / n, 1)"), "wrong_answer"),
    ("a guarded main", MEAN, GUARDED, "passed"),
    (
        "an exit at the end",
        GRID,
        "import sys\nprint('1 0 ')\nprint(' 0 1')\nprint()\nsys.exit(0)\n",
        "passed",
    ),
    ("all in one line", GRID, "print('1 0 0 1')\n", "wrong_answer"),
    ("another case, in one line", ANSWER, "print('yes', 7 / 2)\n", "passed"),
    ("another number", ANSWER, "print('yes', 3.4)\n", "wrong_answer"),
    ("a test module", {"kind": "assertions", "tests": STACK}, IMPLEMENTED, "passed"),
    (
        "a test module, and a fault",
        {"kind": "assertions", "tests": STACK},
        IMPLEMENTED.replace("pop()", "pop(0)"),
        "wrong_answer",
    ),
    (
        "assertions",
        ["assert twice(2) == 4", "assert twice('a') == 'aa'"],
        "def twice(x):\n    return 2 * x\n",
        "passed",
    ),
    (
        "a reference in place of expected values",
        {"kind": "function", "entry_point": "f", "inputs": [[1], [2]], "reference": "def f(x): return {x}"},
        "def f(x):\n    return {x}\n",
        "passed",
    ),
]


def grade(rows):
    tasks = InlineTasks()
    samples = [
        GivenSample(tasks.add(tests, f"tests[{number}]"), str(number), source, is_solution=False)
        for number, (_, tests, source, _) in enumerate(rows)
    ]
    options = Options(engine="local", workers=1, fail_fast=False, limits=Limits(time_floor_s=1.0))
    with make_engine(tasks.suite, ("base",), options, Reporter()) as engine:
        verdicts = list(engine.grade(program_of(sample, tasks.suite) for sample in samples))
    return {int(verdict["sample_id"]): verdict for verdict in verdicts}


@pytest.fixture(scope="module")
def verdicts(sandbox_root):
    return grade(ROWS)


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_rows_are_judged_as_their_graders_would(verdicts, number):
    name, _, _, status = ROWS[number]
    assert verdicts[number]["status"] == status, (name, verdicts[number])


def test_a_setup_that_fails_is_no_fault_of_the_program(sandbox_root):
    module = "{}\nfrom solution import f\ndef test_f():\n    assert f(1) == 1\n"
    right, forger = "def f(x):\n    return x\n", "raise ImportError('no module')\n"
    rows = [
        (
            "a module that is not there",
            {"kind": "assertions", "tests": module.format("import no_such_module")},
            right,
            "",
        ),
        (
            "a name that is not there",
            {"kind": "assertions", "tests": module.format("LIMIT = nothing")},
            right,
            "",
        ),
        (
            "the program's own fault",
            {"kind": "assertions", "tests": module.format("import math")},
            forger,
            "",
        ),
        (
            "after a call",
            {"kind": "assertions", "tests": module.format("") + "\nFIRST = f(1)['x']\n"},
            right,
            "",
        ),
    ]
    found = grade(rows)
    assert [found[number]["status"] for number in range(4)] == [
        "infrastructure_error",
        "infrastructure_error",
        "runtime_error",
        "runtime_error",
    ]
    assert "no_such_module" in found[0]["error"]["message"]
    assert [found[number]["reward"] for number in range(4)] == [None, None, 0.0, 0.0]


def test_a_program_cannot_say_that_the_tests_are_broken(sandbox_root):
    forged = "import os, struct\nos.write(3, struct.pack('<IB', 0, ord('B')))\ndef f(x):\n    return 2\n"
    rows = [
        ("before it is loaded", ["assert f(1) == 1"], forged, ""),
        (
            "by function tests",
            {"kind": "function", "entry_point": "f", "inputs": [[1]], "expected": [1]},
            forged,
            "",
        ),
    ]
    found = grade(rows)
    assert {found[number]["status"] for number in range(2)} == {"security_violation"}
