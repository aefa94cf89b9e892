"""Grade the same files in several kinds of cells, and print every sample that is judged differently.

    GRADER_DATA_DIR=... python loadtest/compare_backends.py FILE... --suite humaneval+ \\
        [--backends namespaces,namespaces-rlimit,docker,docker+runsc] [--workers N] [--time-factor F]

"namespaces-rlimit" are embedded cells as on a machine that gives no control groups: memory is held by RLIMIT_AS.
Compared are status, groups, and whether it passed; not times, memory, or texts of errors. For each difference the CPU
time and the memory of both are shown, since what differs is as a rule at the edge of a limit. One resource limit in
place of another is counted by itself. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grader import api
from grader.limits import Limits
from grader.sandbox import cgroup

Verdicts = dict[tuple[str, str], dict[str, Any]]
LIMITS = {"time_limit", "memory_limit", "output_limit"}
RLIMIT = "-rlimit"


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--suite", default="humaneval+")
    parser.add_argument("--backends", default="namespaces,namespaces-rlimit,docker,docker+runsc")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--time-factor", type=float)
    options = parser.parse_args()
    limits = Limits() if options.time_factor is None else Limits(time_factor=options.time_factor)
    names = options.backends.split(",")
    differences = 0
    for file in options.files:
        graded = {name: grade(file, name, options.suite, options.workers, limits) for name in names}
        for name in names[1:]:
            differences += compare(file, names[0], graded[names[0]], name, graded[name])
    sys.exit(min(differences, 1))


def grade(file: Path, backend: str, suite: str, workers: int | None, limits: Limits) -> Verdicts:
    """The verdicts on a file, by task and sample."""
    sandbox, _, runtime = backend.removesuffix(RLIMIT).partition("+")
    groups = no_control_groups() if backend.endswith(RLIMIT) else contextlib.nullcontext()
    with tempfile.TemporaryDirectory(prefix="grader-compare-") as folder, groups:
        output = Path(folder) / "verdicts.jsonl"
        summary = api.score(
            file,
            suite=suite,
            sandbox=sandbox,
            runtime=runtime or None,
            workers=workers,
            limits=limits,
            output=output,
        )
        print(f"{file.name} in {backend}: {summary.samples} samples in {summary.wall_s:.1f} s", flush=True)
        lines = [json.loads(line) for line in output.read_text().splitlines()]
    if backend.endswith(RLIMIT):
        assert all("memory_rlimit" in line["sandbox"]["layers"] for line in lines if line["sandbox"])
    return {(line["task_id"], str(line["sample_id"])): line for line in lines}


@contextlib.contextmanager
def no_control_groups() -> Iterator[None]:
    """Have no control group for embedded cells: this process finds out for all workers whether there is one."""
    real = cgroup.unavailable_reason
    cgroup.unavailable_reason = lambda: "none is wanted"
    try:
        yield
    finally:
        cgroup.unavailable_reason = real


def compare(file: Path, name: str, expected: Verdicts, other: str, found: Verdicts) -> int:
    """Print the differences; returns how many there are."""
    assert expected.keys() == found.keys()
    different = [key for key in expected if judged(expected[key]) != judged(found[key])]
    swaps = [key for key in different if both_limits(expected[key], found[key])]
    print(
        f"{file.name}, {name} and {other}: of {len(expected)} verdicts {len(different)} differ; of these {len(swaps)} "
        "are one limit for another"
    )
    for key in different:
        sort = "limit for limit" if key in swaps else "OTHER"
        print(f"  {sort}: {key[0]} {key[1]}: {shown(expected[key])} | {shown(found[key])}")
    return len(different)


def both_limits(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both were ended by a limit, of whatever sort."""
    return {one["status"], other["status"]} <= LIMITS


def judged(verdict: dict[str, Any]) -> object:
    """What must be the same everywhere."""
    return verdict["status"], verdict["passed"], verdict["groups"]


def shown(verdict: dict[str, Any]) -> str:
    """A verdict in a few words."""
    groups = {
        name: (group["status"], group["passed"], group["first_failed"]) if group else None
        for name, group in verdict["groups"].items()
    }
    return f"{verdict['status']} {groups} {verdict['cpu_s']:.2f} s {verdict['peak_memory_bytes'] >> 20} MiB"


if __name__ == "__main__":
    main()
