"""After a run nothing of it is left, however it ended, and an interrupted run goes on where it stopped."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest


def statuses(verdicts):
    return {verdict["sample_id"]: verdict["status"] for verdict in verdicts}


@pytest.fixture
def begin(watched, toy, tools, tmp_path):
    """Start a run and wait until it is in the middle; returns (process, output file)."""

    def started():
        output = tmp_path / "verdicts.jsonl"
        process = watched.start("score", toy.samples, "--suite", toy.suite, "--output", output, "--no-cache")
        tools.wait_until(lambda: output.exists() and output.read_bytes().count(b"\n") >= 5, "some verdicts")
        assert process.poll() is None
        return process, output

    return started


@pytest.fixture
def resume(watched, toy, tools):
    """Go on with a run and check that it grades what was left, that alone, and right."""

    def resumed(output):
        kept = output.read_bytes().rpartition(b"\n")[0].splitlines()
        assert 5 <= len(kept) < len(toy.statuses)
        ended = watched(
            "score", toy.samples, "--suite", toy.suite, "--output", output, "--no-cache", "--resume", "--json"
        )
        assert ended.returncode == 0, ended.stderr
        lines = output.read_bytes().splitlines()
        assert lines[: len(kept)] == kept, "verdicts of the first part were changed"
        assert len(lines) == len(toy.statuses), "a sample was lost or graded twice"
        assert statuses(tools.read_lines(output)) == toy.statuses

    return resumed


def test_a_run_leaves_nothing(watched, toy, tools):
    verdicts = watched.score(toy.samples, toy.suite)
    assert statuses(verdicts) == toy.statuses
    assert tools.traces_of(watched) == []


def test_the_traces_of_a_run_would_be_found(begin, watched, tools):
    """The tests here are worth nothing if they look in the wrong place."""
    process, _ = begin()
    process.send_signal(signal.SIGSTOP)  # or the run may end while we look
    assert any(map(is_supervisor, tools.traces_of(watched))), "no supervisor among them"
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=120)


def is_supervisor(trace):
    return trace.startswith("process") and "import runner" in trace


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_an_interrupted_run_leaves_nothing_and_can_be_resumed(begin, resume, watched, tools, number, code):
    process, output = begin()
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert "--resume" in err
    assert "Traceback" not in err
    assert tools.traces_of(watched) == []
    resume(output)
    assert tools.traces_of(watched) == []


def test_a_killed_main_process_leaves_nothing_and_can_be_resumed(begin, resume, watched, tools):
    process, output = begin()
    process.kill()
    process.wait()
    tools.assert_nothing_is_left(watched)
    resume(output)
    tools.assert_nothing_is_left(watched)


def test_a_killed_worker_costs_no_verdict(begin, watched, toy, tools):
    process, output = begin()
    workers = tools.children_of(process.pid)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    verdicts = tools.read_lines(output)
    assert len(verdicts) == len(toy.statuses)
    assert statuses(verdicts) == toy.statuses
    assert max(verdict["attempts"] for verdict in verdicts) <= 4
    assert "infrastructure" not in out
    tools.assert_nothing_is_left(watched)


def test_a_killed_cell_costs_no_verdict(begin, watched, toy, tools):
    process, output = begin()
    worker = tools.children_of(process.pid)[0]
    (launcher,) = tools.wait_until(lambda: tools.children_of(worker), "the worker has a cell")
    os.kill(launcher, signal.SIGKILL)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert statuses(tools.read_lines(output)) == toy.statuses
    tools.assert_nothing_is_left(watched)


def test_workers_that_keep_dying_are_given_up_in_the_end(begin, watched, tools):
    """Killed whenever one begins: an end with an error and exit code 3, not a run without end."""
    process, _ = begin()

    def kill_them():
        for worker in tools.children_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        return process.poll() is not None

    tools.wait_until(kill_them, "the run gives up")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "workers end as soon as they start" in err
    assert "Traceback" not in err
    tools.assert_nothing_is_left(watched)
