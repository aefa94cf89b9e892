"""What the Ray engine costs against the local engine, on the same processors and the same samples.

    GRADER_DATA_DIR=... python loadtest/bench_engines.py SAMPLES.jsonl.gz ... [--suite humaneval+] [--at-most 1.1]

Each file is measured by itself; without --suite one with "mbpp" in its name is graded against MBPP+, others against
HumanEval+. With --at-most the exit code is 1 where Ray needs more than so many times the local engine's wall-clock time
for a file.

The engines take turns, so that a machine that is slow for a while is slow for both. Their workers are ready, and
expected answers made, before the clock starts. Verdicts must be equal. What all processes of an engine use of the
processors is counted too: on a machine that has other things to do, that is the ratio to go by.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grader.dispatch.blocking import BlockingEngine
from grader.engines.local import LocalPool
from grader.engines.pool import Pool
from grader.engines.ray import RayPool
from grader.limits import Limits
from grader.run import only_named, program_of
from grader.samples import read_samples
from grader.sandbox.liveness import descendants
from grader.suites import registry
from grader.worker.program import Program

_MEASURED = {"cpu_s", "wall_s", "peak_memory_bytes", "attempts", "stdout_tail", "sandbox"}


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds for a batch: of wall-clock time, of CPU in its programs, and of CPU in all processes of the engine."""

    wall_s: float
    programs_cpu_s: float
    cpu_s: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("samples", nargs="+", type=Path)
    parser.add_argument("--suite")
    parser.add_argument("--copies", type=int, default=3, help="how often each sample is graded in a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--at-most", type=float, help="fail where Ray needs more than so many times the local wall"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    slow = []
    for file in args.samples:
        suite = args.suite or ("mbpp+" if "mbpp" in file.name else "humaneval+")
        found, count = _measured(file, suite, args.copies, args.turns, args.workers)
        ratio = _show(file.name, count, args.workers, found)
        if args.at_most is not None and ratio > args.at_most:
            slow.append(
                f"{file.name}: Ray needs {ratio:.3f} times the local time, more than {args.at_most:g}"
            )
    if slow:
        sys.exit("\n".join(slow))


def _measured(
    file: Path, name_of_suite: str, copies: int, turns: int, workers: int
) -> tuple[dict[str, list[Timing]], int]:
    """The timings of a file by engine, and how many samples are graded in a turn."""
    suite = registry.load(name_of_suite)
    given = read_samples(file, suite)
    suite = only_named(suite, given)
    once = [program_of(sample, suite) for sample in given]
    programs = [replace(one, sample_id=f"{one.sample_id}#{copy}") for copy in range(copies) for one in once]
    limits = Limits()
    pools: dict[str, Callable[[], Pool]] = {
        "local": lambda: LocalPool(limits=limits, workers=workers),
        "ray": lambda: RayPool(limits=limits, workers=workers),
    }
    found: dict[str, list[Timing]] = {name: [] for name in pools}
    verdicts: dict[str, dict[str, Any]] = {}
    for turn in range(turns):
        for name in list(pools)[:: 1 if turn % 2 else -1]:
            with BlockingEngine(pools[name](), suite, limits=limits) as engine:
                _wait_for(engine, workers)
                timing, said = _graded(engine, programs)
            found[name].append(timing)
            assert verdicts.setdefault("first", said) == said, f"{name} says something else"
            print(
                f"  turn {turn + 1}, {name:5}: wall {timing.wall_s:.2f} s, CPU {timing.cpu_s:.2f} s",
                flush=True,
            )
    return found, len(programs)


def _wait_for(engine: BlockingEngine, workers: int) -> None:
    while engine.pool.state().get("ready", 0) < workers:
        time.sleep(0.05)


def _graded(engine: BlockingEngine, programs: Sequence[Program]) -> tuple[Timing, dict[str, Any]]:
    used, began = _cpu_s(), time.perf_counter()
    verdicts = list(engine.grade(programs))
    wall, used = time.perf_counter() - began, _cpu_s() - used
    said = {
        verdict["sample_id"]: {name: value for name, value in verdict.items() if name not in _MEASURED}
        for verdict in verdicts
    }
    assert len(said) == len(verdicts) == len(programs)
    return Timing(wall, sum(verdict["cpu_s"] for verdict in verdicts), used), said


def _cpu_s() -> float:
    """CPU seconds of this process, those below it, and those that they have waited for (proc_pid_stat(5))."""
    ticks = 0
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _show(name: str, samples: int, workers: int, found: dict[str, list[Timing]]) -> float:
    """Print what was measured for a file; returns the ratio of the engines' medians of wall-clock time."""
    medians = {
        engine: statistics.median(timing.wall_s for timing in timings) for engine, timings in found.items()
    }
    print(f"{name}: {samples} samples a turn, {workers} workers, {len(found['ray'])} turns")
    for engine, timings in found.items():
        walls = sorted(timing.wall_s for timing in timings)
        programs = statistics.median(timing.programs_cpu_s for timing in timings)
        cpu = statistics.median(timing.cpu_s for timing in timings)
        print(
            f"  {engine:5} {samples / medians[engine]:7.1f} samples/s   wall {medians[engine]:.2f} s "
            f"({walls[0]:.2f} to {walls[-1]:.2f})   CPU {cpu:.2f} s, of that in programs {programs:.2f} s"
        )
    for what, field in (("wall", "wall_s"), ("CPU", "cpu_s")):
        pairs = zip(found["local"], found["ray"], strict=True)
        ratios = [getattr(ray, field) / getattr(local, field) for local, ray in pairs]
        print(
            f"  ray / local: {what} {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    return medians["ray"] / medians["local"]


if __name__ == "__main__":
    main()
