"""The bundled samples: every verdict is the one written down, whatever way they are graded."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import subprocess
import sys

import pytest

import grader
from grader.schema import Summary, Verdict

# So that samples that hang or hoard cost less; the others need far less than this anyway.
FLOOR_S, MEMORY_BYTES = 1.0, 256 << 20
QUICK = ("--time-floor", FLOOR_S, "--memory-limit", MEMORY_BYTES)


def statuses(verdicts):
    return {verdict["sample_id"]: verdict["status"] for verdict in verdicts}


@pytest.fixture(scope="module")
def graded(sandbox_root, starter_samples, tmp_path_factory):
    """One run with the default limits, and all the files that it can write."""
    folder = tmp_path_factory.mktemp("starter")
    ended = subprocess.run(
        [sys.executable, "-P", "-c", "from grader.cli import main; main()", "score", starter_samples, "--suite",
         "starter", "--json", "--output", folder / "verdicts.jsonl", "--summary", folder / "summary.json",
         "--evalplus-output", folder / "evalplus.json", "--workers", "2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ended, folder


@pytest.fixture
def verdicts(graded, tools):
    return tools.read_lines(graded[1] / "verdicts.jsonl")


def test_it_ends_well(graded):
    assert graded[0].returncode == 0, graded[0].stderr
    assert "Traceback" not in graded[0].stderr


def test_every_verdict_is_the_one_written_down(verdicts, starter_expected):
    assert statuses(verdicts) == starter_expected


def test_every_verdict_is_valid(verdicts):
    for verdict in verdicts:
        found = Verdict.model_validate(verdict)
        assert found.passed == (found.status == "passed")
        assert found.reward == float(found.passed)
        assert found.cpu_s >= 0
        assert set(found.groups) == {"base", "plus"}
        for group in found.groups.values():
            assert group is None or 0 <= group.passed <= group.total


def test_every_verdict_says_what_isolated_the_program(verdicts):
    for verdict in verdicts:
        assert verdict["sandbox"]["backend"] == "namespaces"
        assert {"seccomp", "netns", "readonly_root"} <= set(verdict["sandbox"]["layers"])


def test_no_verdict_tells_an_expected_value(verdicts):
    """An error may go back to the model: it says what went wrong inside the program, and no more."""
    for verdict in verdicts:
        if verdict["status"] == "wrong_answer":
            assert verdict["error"] is None


def test_standard_output_is_the_summary_alone_and_valid(graded, starter_expected):
    summary = Summary.model_validate_json(graded[0].stdout)
    assert summary.samples == len(starter_expected)
    assert summary.infrastructure_errors == 0
    assert sum(summary.statuses.values()) == summary.samples
    assert summary.pass_at_k["base"]["1"] >= summary.pass_at_k["plus"]["1"]
    assert summary == Summary.model_validate_json((graded[1] / "summary.json").read_text())


def test_evalplus_s_format_agrees_with_the_verdicts(graded, verdicts, starter_samples, tools):
    found = json.loads((graded[1] / "evalplus.json").read_text())["eval"]
    by_sample = {verdict["sample_id"]: verdict for verdict in verdicts}
    words = {"passed": "pass", "time_limit": "timeout"}
    counts: dict[str, int] = {}
    for row in tools.read_lines(starter_samples):
        task_id = row["task_id"]
        result = found[task_id][counts.get(task_id, 0)]
        counts[task_id] = counts.get(task_id, 0) + 1
        for group in ("base", "plus"):
            judged = by_sample[row["sample_id"]]["groups"][group]
            assert result[f"{group}_status"] == (judged and words.get(judged["status"], "fail"))
    assert {task_id: len(rows) for task_id, rows in found.items()} == counts


def test_without_the_cache_the_verdicts_are_the_same(command, starter_samples, starter_expected, tools):
    doubled = [
        row | {"sample_id": f"{row['sample_id']}#{copy}"}
        for row in tools.read_lines(starter_samples)
        for copy in range(2)
        if starter_expected[row["sample_id"]] not in ("time_limit", "memory_limit")
    ]
    samples = tools.write_lines(command.scratch.parent / "doubled.jsonl", doubled)
    cached = command.score(samples, "starter")
    alone = command.score(samples, "starter", "--no-cache")
    assert tools.judged(cached) == tools.judged(alone)
    assert any(verdict["cached"] for verdict in cached)
    assert not any(verdict["cached"] for verdict in alone)
    assert statuses(alone) == {
        row["sample_id"]: starter_expected[row["sample_id"].rpartition("#")[0]] for row in doubled
    }


def test_a_gzipped_file_gives_the_same(command, starter_samples, starter_expected, tmp_path):
    packed = tmp_path / "samples.jsonl.gz"
    packed.write_bytes(gzip.compress(starter_samples.read_bytes()))
    assert statuses(command.score(packed, "starter", *QUICK)) == starter_expected


def test_evalplus_s_folder_layout_gives_the_same(command, starter_samples, starter_expected, tools, tmp_path):
    expected = {}
    for row in tools.read_lines(starter_samples):
        if "solution" in row:
            file = (
                tmp_path
                / "folder"
                / row["task_id"].replace("/", "_")
                / f"{row['sample_id'].rpartition('/')[2]}.py"
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(row["solution"])
            expected[f"{row['task_id']}:{file.stem}"] = starter_expected[row["sample_id"]]
    assert len(expected) > 20
    assert statuses(command.score(tmp_path / "folder", "starter", *QUICK)) == expected


def test_without_fail_fast_both_groups_are_judged(command, starter_samples, starter_expected):
    verdicts = command.score(starter_samples, "starter", "--no-fail-fast", *QUICK)
    assert statuses(verdicts) == starter_expected
    for verdict in verdicts:
        if verdict["status"] != "no_code":
            assert None not in verdict["groups"].values()


def test_one_group_can_be_run_alone(command, starter_samples, starter_expected):
    verdicts = command.score(starter_samples, "starter", "--groups", "base", *QUICK)
    assert {name for verdict in verdicts for name in verdict["groups"]} == {"base"}
    assert all(
        verdict["passed"] for verdict in verdicts if starter_expected[verdict["sample_id"]] == "passed"
    )


def test_the_python_interface_gives_the_same(sandbox_root, starter_samples, starter_expected, tools):
    limits = grader.Limits(time_floor_s=FLOOR_S, memory_bytes=MEMORY_BYTES)
    summary = grader.score(starter_samples, suite="starter", limits=limits, workers=2, k=[1])
    assert summary.samples == len(starter_expected)
    assert summary.statuses["passed"] == list(starter_expected.values()).count("passed")
    rows = [
        row for row in tools.read_lines(starter_samples) if starter_expected[row["sample_id"]] != "time_limit"
    ]
    found = {
        verdict.sample_id: verdict.status
        for verdict in grader.grade(rows, suite="starter", limits=limits, workers=2)
    }
    assert found == {row["sample_id"]: starter_expected[row["sample_id"]] for row in rows}
    assert grader.pass_at_k(n=10, c=3, k=1) == pytest.approx(0.3)


def test_an_iterator_that_is_left_early_ends_its_workers(sandbox_root, starter_samples, tools):
    before = set(tools.children_of(os.getpid()))  # other tests in this process may keep an engine
    verdicts = grader.grade(tools.read_lines(starter_samples), suite="starter", workers=2)
    next(verdicts)
    workers = set(tools.children_of(os.getpid())) - before
    assert len(workers) >= 2
    verdicts.close()
    assert not workers & set(tools.children_of(os.getpid()))


def _burn(stop):
    while not stop.is_set():
        sum(range(10_000))


@pytest.fixture
def busy_machine():
    """Four processes that want every processor all the time."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    processes = [context.Process(target=_burn, args=(stop,), daemon=True) for _ in range(4)]
    for process in processes:
        process.start()
    yield
    stop.set()
    for process in processes:
        process.join()
        process.close()


def test_a_busy_machine_changes_no_verdict(busy_machine, command, starter_samples, starter_expected, tools):
    """The long way, with twenty runs of real samples, is loadtest/repeat_under_load.py."""
    runs = [command.score(starter_samples, "starter", "--no-cache", *QUICK) for _ in range(3)]
    assert all(statuses(run) == starter_expected for run in runs)
    assert all(tools.judged(run) == tools.judged(runs[0]) for run in runs)
