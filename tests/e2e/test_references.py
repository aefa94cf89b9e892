"""Every suite's own solutions pass its own tests: nothing is lost between a suite's file and a verdict."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from grader.suites import registry

# The special comparisons of MBPP+: alternatives, sets, not-None; and the task whose answers fill 744 MB.
SPECIAL = ("164", "295", "558", "581", "2", "737", "787", "794", "255")
# Its reference needs 21 s of CPU, as long as all others here together.
SLOW = {"Mbpp/599"}
# Bytes resident in a worker, with what it has mapped of expected answers: 300 MB for both suites together.
MOST_RESIDENT = 150 * 10**6


@pytest.fixture
def peaks(tools):
    """The most that was resident in each worker of the commands that run here, looked at ten times a second."""
    found: dict[int, int] = {}
    over = threading.Event()

    def watch():
        while not over.wait(0.1):
            for command in tools.children_of(os.getpid()):
                with contextlib.suppress(OSError, IndexError):  # one that has just ended
                    for worker in tools.children_of(command):
                        status = Path(f"/proc/{worker}/status").read_text()
                        found[worker] = 1024 * int(status.partition("VmHWM:")[2].split()[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield found
    over.set()
    watcher.join()


def check(command, tools, suite, task_ids, *arguments):
    tasks = registry.load(suite).tasks
    rows = [
        {"task_id": task_id, "sample_id": task_id, "solution": tasks[task_id].reference}
        for task_id in task_ids
    ]
    samples = tools.write_lines(command.scratch.parent / "references.jsonl", rows)
    verdicts = command.score(samples, suite, *arguments)
    failed = {v["sample_id"]: (v["status"], v["error"], v["groups"]) for v in verdicts if not v["passed"]}
    assert failed == {}
    assert {verdict["sample_id"] for verdict in verdicts} == set(task_ids)
    for verdict in verdicts:
        assert all(group["passed"] == group["total"] > 0 for group in verdict["groups"].values() if group)


@pytest.mark.dataset
def test_humaneval_plus(data_dir, command, tools, peaks):
    check(command, tools, "humaneval+", list(registry.load("humaneval+").tasks))
    assert 0 < max(peaks.values()) < MOST_RESIDENT, peaks


@pytest.mark.dataset
def test_mbpp_plus(data_dir, command, tools, peaks):
    known = list(registry.load("mbpp+").tasks)
    chosen = set(known[::8]) | {f"Mbpp/{number}" for number in SPECIAL}
    check(command, tools, "mbpp+", [task_id for task_id in known if task_id in chosen - SLOW])
    assert 0 < max(peaks.values()) < MOST_RESIDENT, peaks


@pytest.mark.dataset
@pytest.mark.parametrize("suite", ["humaneval", "mbpp-sanitized"])
def test_suites_of_assertions(data_dir, command, tools, suite):
    # The reference of Mbpp/123 needs some seconds for one test: its limit is made of that, not of the floor.
    check(command, tools, suite, list(registry.load(suite).tasks), "--time-floor", "1")


@pytest.mark.dataset
def test_mbpp(data_dir, command, tools):
    tasks = registry.load("mbpp").tasks
    challenged = [name for name, task in tasks.items() if len(task.groups) > 1]
    check(command, tools, "mbpp", sorted({*list(tasks)[::4], *challenged}))


@pytest.mark.dataset
def test_a_solution_of_another_task_passes_none(data_dir, command, tools):
    """The same tests, given the next task's solution under this one's name, all fail."""
    tasks = list(registry.load("humaneval").tasks.values())[:40]
    rows = [
        {
            "task_id": task.task_id,
            "sample_id": task.task_id,
            "solution": f"{other.reference}\n\n{task.entry_point} = {other.entry_point}\n",
        }
        for task, other in zip(tasks, [*tasks[1:], tasks[0]], strict=True)
        if task.entry_point != other.entry_point
    ]
    samples = tools.write_lines(command.scratch.parent / "others.jsonl", rows)
    verdicts = command.score(samples, "humaneval")
    assert [verdict["sample_id"] for verdict in verdicts if verdict["passed"]] == []
    assert {verdict["status"] for verdict in verdicts} <= {"wrong_answer", "runtime_error"}
