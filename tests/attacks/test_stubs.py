"""The mirror of the attacks: programs that do nothing at all must fail every task, or the task tests nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grader.dispatch.blocking import BlockingEngine
from grader.engines.local import LocalPool
from grader.limits import Limits
from grader.status import Status
from grader.suites import registry
from grader.worker.program import Program

STUBS = {
    "none": "return None",
    "zero": "return 0",
    "empty-list": "return []",
    "empty-text": "return ''",
    "true": "return True",
    "first-argument": "return arguments[0] if arguments else None",
    "raise": "raise NotImplementedError",
    "exit": "import os; os._exit(0)",
}

# Tasks that a stub passes by their tests' own fault; docs/attacks.md says why for each.
NO_DISCRIMINATING_TEST: dict[str, set[tuple[str, str]]] = {
    "starter": set(),
    "humaneval+": set(),
    "mbpp+": set(),
    "humaneval": set(),
}
# HumanEval's own tests cost 30 s of CPU time, and are for fewer answers of the same tasks: only on request.
SUITES = ["humaneval+", "mbpp+", *(["humaneval"] if os.environ.get("GRADER_ATTACKS") == "all" else [])]


def passing(suite_name: str) -> set[tuple[str, str]]:
    """(task, stub) of every stub that passes."""
    suite = registry.load(suite_name)
    programs = [
        Program(task.task_id, stub, f"def {task.entry_point or 'main'}(*arguments):\n    {body}\n")
        for task in suite.tasks.values()
        for stub, body in STUBS.items()
    ]
    limits = Limits(time_floor_s=1.0)
    with BlockingEngine(LocalPool(limits=limits), suite, limits=limits) as engine:
        verdicts = list(engine.grade(programs))
    assert len(verdicts) == len(programs)
    lost = [verdict for verdict in verdicts if verdict["status"] == Status.INFRASTRUCTURE_ERROR]
    assert not lost, lost[0]
    return {(verdict["task_id"], verdict["sample_id"]) for verdict in verdicts if verdict["passed"]}


def test_no_stub_passes_a_task_of_the_starter_suite() -> None:
    assert passing("starter") == NO_DISCRIMINATING_TEST["starter"]


@pytest.mark.dataset
@pytest.mark.timeout(3000)  # a suite's expected answers are made, and thousands of programs graded
@pytest.mark.parametrize("suite_name", SUITES)
def test_stubs_pass_only_the_tasks_known_to_test_nothing(suite_name: str, data_dir: Path) -> None:
    assert passing(suite_name) == NO_DISCRIMINATING_TEST[suite_name]
