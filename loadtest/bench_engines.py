"""What the Ray engine costs against the local engine, on the same processors and the same samples.

    GRADER_DATA_DIR=... python loadtest/bench_engines.py SAMPLES.jsonl.gz --suite humaneval+

Both engines have their workers ready before the clock starts, and expected answers made. The engines take turns, so
that a machine that is slow for a while is slow for both. Verdicts must be equal.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
from collections.abc import Sequence
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
from grader.suites import registry
from grader.worker.program import Program

_MEASURED = {"cpu_s", "wall_s", "peak_memory_bytes", "attempts", "stdout_tail", "sandbox"}


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of wall-clock time for a batch, and of CPU in its programs."""

    wall_s: float
    programs_cpu_s: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("--suite", default="humaneval+")
    parser.add_argument("--copies", type=int, default=3, help="how often each sample is graded in a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--at-most", type=float, help="fail where Ray needs more than so many times the local wall"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    suite = registry.load(args.suite)
    given = read_samples(args.samples, suite)
    suite = only_named(suite, given)
    once = [program_of(sample, suite) for sample in given]
    programs = [
        replace(one, sample_id=f"{one.sample_id}#{copy}") for copy in range(args.copies) for one in once
    ]
    limits = Limits()
    pools: dict[str, Pool] = {
        "local": LocalPool(limits=limits, workers=args.workers),
        "ray": RayPool(limits=limits, workers=args.workers),
    }
    found: dict[str, list[Timing]] = {name: [] for name in pools}
    verdicts: dict[str, dict[str, Any]] = {}
    with (
        BlockingEngine(pools["local"], suite, limits=limits) as local,
        BlockingEngine(pools["ray"], suite, limits=limits) as ray,
    ):
        engines = {"local": local, "ray": ray}
        for engine in engines.values():
            _wait_for(engine, args.workers)
            _graded(engine, once)  # bundles are mapped, costs are learned
        for turn in range(args.turns):
            for name in list(engines)[:: 1 if turn % 2 else -1]:
                timing, said = _graded(engines[name], programs)
                found[name].append(timing)
                assert verdicts.setdefault("first", said) == said, f"{name} says something else"
                print(f"  turn {turn + 1}, {name:5}: {timing.wall_s:.2f} s", flush=True)
    _show(args.samples.name, len(programs), args.workers, found, args.at_most)


def _wait_for(engine: BlockingEngine, workers: int) -> None:
    while engine.pool.state().get("ready", 0) < workers:
        time.sleep(0.05)


def _graded(engine: BlockingEngine, programs: Sequence[Program]) -> tuple[Timing, dict[str, Any]]:
    began = time.perf_counter()
    verdicts = list(engine.grade(programs))
    wall = time.perf_counter() - began
    said = {
        verdict["sample_id"]: {name: value for name, value in verdict.items() if name not in _MEASURED}
        for verdict in verdicts
    }
    assert len(said) == len(verdicts) == len(programs)
    return Timing(wall, sum(verdict["cpu_s"] for verdict in verdicts)), said


def _show(
    name: str, samples: int, workers: int, found: dict[str, list[Timing]], at_most: float | None
) -> None:
    medians = {
        engine: statistics.median(timing.wall_s for timing in timings) for engine, timings in found.items()
    }
    print(f"{name}: {samples} samples a turn, {workers} workers, {len(found['ray'])} turns")
    for engine, timings in found.items():
        walls = sorted(timing.wall_s for timing in timings)
        cpu = statistics.median(timing.programs_cpu_s for timing in timings)
        print(
            f"  {engine:5} {samples / medians[engine]:7.1f} samples/s   wall {medians[engine]:.2f} s "
            f"({walls[0]:.2f} to {walls[-1]:.2f})   CPU of programs {cpu:.2f} s"
        )
    ratios = [ray.wall_s / local.wall_s for local, ray in zip(found["local"], found["ray"], strict=True)]
    print(f"  ray / local: wall {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    if at_most is not None and statistics.median(ratios) > at_most:
        raise SystemExit(f"the Ray engine needs more than {at_most} times the local engine's time")


if __name__ == "__main__":
    main()
