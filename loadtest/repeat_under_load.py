"""Grade a file again and again on a machine that is busy with something else, and show that no verdict changes.

    GRADER_DATA_DIR=... python loadtest/repeat_under_load.py FILE ... [--suite humaneval+] [--repeats 20] [--busy 8]

Busy processes compute all the time, more of them than there are processors. Every run is made with --no-cache, so that
every program runs each time. Compared with the first run of a file are each verdict's status, groups (status, passed,
total, first_failed) and the type of its error. Exits with 1 where any differs. Without --suite, a file with "mbpp"
in its name is graded against MBPP+, others against HumanEval+.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grader import api

Judged = dict[str, object]


def main() -> None:
    """Repeat and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--suite")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--busy", type=int, default=8, help="processes that want a processor all the time")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--sandbox", default="auto", help="auto, namespaces or docker")
    args = parser.parse_args()
    changed = 0
    with busy_machine(args.busy):
        for file in args.files:
            suite = args.suite or ("mbpp+" if "mbpp" in file.name else "humaneval+")
            changed += repeat(file, suite, args.repeats, args.workers, args.sandbox)
    print(f"{changed} verdicts changed")
    sys.exit(min(changed, 1))


def repeat(file: Path, suite: str, repeats: int, workers: int | None, sandbox: str) -> int:
    """Grade a file so many times; returns how many verdicts differ from those of the first time."""
    first: Judged = {}
    changed = 0
    for number in range(1, repeats + 1):
        found, wall_s = graded(file, suite, workers, sandbox)
        first = first or found
        assert found.keys() == first.keys(), "samples are missing"
        different = [sample for sample in found if found[sample] != first[sample]]
        load = os.getloadavg()[0]
        print(
            f"{file.name}, run {number} of {repeats}: {len(found)} verdicts, {len(different)} differ from the first "
            f"run's; {wall_s:.1f} s at a load of {load:.1f}",
            flush=True,
        )
        for sample in different:
            print(f"  {sample}: first {first[sample]}, now {found[sample]}", flush=True)
        changed += len(different)
    return changed


def graded(file: Path, suite: str, workers: int | None, sandbox: str) -> tuple[Judged, float]:
    """What is said of each sample of a file, and the seconds that it took."""
    with tempfile.TemporaryDirectory(prefix="grader-repeat-") as folder:
        output = Path(folder) / "verdicts.jsonl"
        begin = time.monotonic()
        api.score(file, suite=suite, workers=workers, sandbox=sandbox, use_cache=False, output=output)
        wall_s = time.monotonic() - begin
        verdicts = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    found = {f"{verdict['task_id']} {verdict['sample_id']}": judged(verdict) for verdict in verdicts}
    assert len(found) == len(verdicts), "a sample has two verdicts"
    assert not any(verdict["cached"] for verdict in verdicts)
    return found, wall_s


def judged(verdict: dict[str, Any]) -> object:
    """What may not depend on what else the machine does."""
    groups = {
        name: group and {field: group[field] for field in ("status", "passed", "total", "first_failed")}
        for name, group in verdict["groups"].items()
    }
    return verdict["status"], groups, verdict["error"] and verdict["error"]["type"]


@contextlib.contextmanager
def busy_machine(count: int) -> Iterator[None]:
    """Have so many processes compute."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_compute, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _compute() -> None:
    while True:
        sum(range(10_000))


if __name__ == "__main__":
    main()
