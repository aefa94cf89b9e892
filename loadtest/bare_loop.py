"""How much CPU time programs need by themselves: a plain loop over the inputs that decide their verdicts."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from grader.suites import registry
from grader.suites.task import FunctionTests

Run = tuple[str, str, list[Any], float]
"""A program, its function, the inputs, and where not 0 the CPU seconds after which a call is cut off."""
_RUNS: list[Run] = []  # for the processes of the pool, which are forks


def runs_of(rows: list[dict[str, Any]], dataset: str, data: Path, *, floor_s: float) -> list[Run]:
    """Return what has to be run for the verdicts that `grader score` gives with ``floor_s`` as the time floor: every
    program on the inputs up to its first failing one."""
    suite = registry.load(f"{dataset}+", data_dir=data)
    verdicts = _judged(rows, dataset, data, floor_s)
    runs = []
    for row in rows:
        verdict = verdicts[row["sample_id"]]
        tests = 0
        for group in verdict["groups"].values():
            if group is not None:
                tests += group["total"] if group["first_failed"] is None else group["first_failed"] + 1
        task = suite.tasks[row["task_id"]]
        inputs: list[Any] = []
        for group_of_task in task.groups:
            assert isinstance(group_of_task.tests, FunctionTests)
            inputs += group_of_task.tests.inputs()
        stopped = verdict["status"] == "time_limit"
        runs.append((row["solution"], task.entry_point, inputs[:tests], floor_s if stopped else 0.0))
    return runs


def cpu_seconds(runs: list[Run], at_a_time: int) -> float:
    """Run each in a fork; returns the CPU seconds of compiling, loading and calling.

    So many run ``at_a_time``: on processors that are two threads of one core, a program beside another one needs up to
    twice the CPU time that it needs alone.
    """
    _RUNS[:] = runs
    with multiprocessing.get_context("fork").Pool(at_a_time) as pool:
        return sum(pool.imap_unordered(_run_number, range(len(runs))))


def _run_number(number: int) -> float:
    return _run(*_RUNS[number])


def _judged(
    rows: list[dict[str, Any]], dataset: str, data: Path, floor_s: float
) -> dict[str, dict[str, Any]]:
    from grader import Limits, grade

    os.environ.setdefault("GRADER_DATA_DIR", str(data))
    samples = [{key: row[key] for key in ("task_id", "sample_id", "solution")} for row in rows]
    limits = Limits(time_floor_s=floor_s)
    verdicts = grade(samples, suite=f"{dataset}+", limits=limits)
    return {verdict.sample_id: json.loads(verdict.model_dump_json()) for verdict in verdicts}


def _run(source: str, entry_point: str, inputs: list[Any], floor_s: float) -> float:
    """CPU seconds of one program, in a fork; a call is cut off after ``floor_s`` seconds (0: it is not)."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.write(writer, json.dumps(_run_here(source, entry_point, inputs, floor_s)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    text = os.read(reader, 100)
    os.close(reader)
    os.wait()
    return float(text or 0)


def _run_here(source: str, entry_point: str, inputs: list[Any], floor_s: float) -> float:
    before = _used()
    with contextlib.suppress(BaseException), open(os.devnull, "w") as quiet:  # noqa: PTH123
        os.chdir(tempfile.gettempdir())
        sys.stdin = io.StringIO()
        sys.stdout = sys.stderr = quiet
        signal.signal(signal.SIGPROF, _stop)
        namespace: dict[str, Any] = {}
        exec(compile(source, "<program>", "exec"), namespace)
        function = namespace[entry_point]
        for arguments in inputs:
            signal.setitimer(signal.ITIMER_PROF, floor_s)
            function(*arguments)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return _used() - before


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _stop(number: int, frame: Any) -> None:
    raise TimeoutError
