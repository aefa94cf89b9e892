"""The driver of assertion tests, from a suite's file to the verdict: what tests may do beside calling the program."""

from __future__ import annotations

import json

import pytest

import grader

THREADS = "from concurrent.futures import ThreadPoolExecutor"
MANY_CALLS = (
    "with ThreadPoolExecutor(4) as pool:\n    assert list(pool.map(solve, range(100))) == list(range(1, 101))"
)
DRAWN = "for _ in range(20):\n    drawn = {}\n    assert solve(drawn - 1) == drawn"
RIGHT = "def solve(n):\n    return n + 1\n"


@pytest.fixture
def status_of(tmp_path, own_cache):
    """Grades a program by tests, with or without the program's numpy."""

    def status_of(setup, test, program):
        group = {"name": "base", "kind": "assertions", "setup": setup, "tests": [test]}
        task = {"task_id": "Driven/0", "entry_point": "solve", "reference": RIGHT, "groups": [group]}
        suite = tmp_path / "suite.jsonl"
        suite.write_text("\n".join(map(json.dumps, [{"suite": "driven", "version": "1"}, task])) + "\n")
        sample = {"task_id": "Driven/0", "sample_id": "0", "solution": program}
        (verdict,) = grader.grade([sample], suite=str(suite), workers=1)
        return verdict.status.value

    return status_of


def test_tests_may_call_from_several_threads(status_of):
    assert status_of(THREADS, MANY_CALLS, RIGHT) == "passed"


@pytest.mark.parametrize("module", ["random", "numpy.random"])
def test_a_program_does_not_draw_the_numbers_that_its_tests_draw(status_of, module):
    """Nor any other way around: that it passed would be the grader's doing."""
    number = f"int({module}.random() * 1e9)"
    draws = f"import {module}\ndef solve(n):\n    return {number}\n"
    assert status_of(f"import {module}", DRAWN.format(number), RIGHT) == "passed"
    assert status_of(f"import {module}", DRAWN.format(number), draws) == "wrong_answer"
