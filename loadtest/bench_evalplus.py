"""Grade the same samples with EvalPlus and with `grader score`, on the same cores at the same limits.

    python loadtest/bench_evalplus.py FILE.jsonl.gz ... [--repeats 3] [--evalplus-python PYTHON]

A file with "mbpp" in its name is graded against MBPP+, others against HumanEval+; GRADER_DATA_DIR must have both.
EvalPlus 0.3.1 is installed in an environment of its own unless one is given. Expected answers of both graders are
made before anything is measured. "Bare" is the CPU time that the programs themselves need: every program run in a plain
loop over the inputs that decide its verdict, without sandbox, encoding or comparison, as many at a time as there are
workers.

Printed are seconds of wall-clock and of CPU time, all processes counted, and the ratios, pair by pair. With
--at-least-wall, --at-least-cpu and --at-most-bare the exit code is 1 where the median of a ratio is worse for a file,
and with --at-most-bare-together where that is so for the CPU time of all files: what every run costs, however few
samples it has, is a second or two.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bare_loop
import measure

import grader

_EVALPLUS = "evalplus==0.3.1"
_FLOOR_S, _FACTOR = 1.0, 4.0  # EvalPlus 0.3.1's defaults

_MAKE_GROUND_TRUTH = """
import sys
from evalplus.evaluate import get_groundtruth
from evalplus.data import *
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
if sys.argv[1] == "humaneval":
    get_groundtruth(get_human_eval_plus(), get_human_eval_plus_hash(), [])
else:
    get_groundtruth(get_mbpp_plus(), get_mbpp_plus_hash(), MBPP_OUTPUT_NOT_NONE_TASKS)
"""


@dataclass(frozen=True)
class _Found:
    """Medians of one file's runs: the ratios by name, and CPU seconds of ours and of the bare loop."""

    ratios: dict[str, float]
    cpu_s: float
    bare_cpu_s: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--evalplus-python", type=Path)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-bare", action="store_true", help="do not measure the bare loop")
    parser.add_argument("--at-least-wall", type=float, help="bound on EvalPlus / grader, wall-clock time")
    parser.add_argument("--at-least-cpu", type=float, help="bound on EvalPlus / grader, CPU time")
    parser.add_argument("--at-most-bare", type=float, help="bound on grader / bare loop, CPU time")
    parser.add_argument("--at-most-bare-together", type=float, help="the same, for all files together")
    args = parser.parse_args()
    if args.no_bare and (args.at_most_bare, args.at_most_bare_together) != (None, None):
        parser.error("--at-most-bare and --at-most-bare-together need the bare loop")
    data = Path(os.environ["GRADER_DATA_DIR"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = args.evalplus_python or _install_evalplus(folder / "evalplus")
        missed = []
        cpu_s = bare_cpu_s = 0.0
        for file in args.files:
            found = _compare(file, data, python, folder, args.repeats, args.workers, bare=not args.no_bare)
            missed += _missed(file, found.ratios, args)
            cpu_s += found.cpu_s
            bare_cpu_s += found.bare_cpu_s
    if not args.no_bare:
        together = cpu_s / bare_cpu_s
        print(
            f"all files: grader CPU {cpu_s:.2f} s, bare loop CPU {bare_cpu_s:.2f} s; grader / bare: {together:.2f}"
        )
        if args.at_most_bare_together is not None and together > args.at_most_bare_together:
            missed.append(
                f"all files: the ratio bare is {together:.2f}, and its bound {args.at_most_bare_together:g}"
            )
    if missed:
        sys.exit("\n".join(missed))


def _missed(file: Path, ratios: dict[str, float], args: argparse.Namespace) -> list[str]:
    """Say which bounds do not hold for a file."""
    bounds = (("wall", args.at_least_wall, 1), ("cpu", args.at_least_cpu, 1), ("bare", args.at_most_bare, -1))
    return [
        f"{file.name}: the ratio {name} is {ratios[name]:.2f}, and its bound {bound:g}"
        for name, bound, sign in bounds
        if bound is not None and sign * ratios[name] < sign * bound
    ]


def _install_evalplus(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", _EVALPLUS], check=True)
    return python


def _compare(
    file: Path, data: Path, python: Path, folder: Path, repeats: int, workers: int, *, bare: bool
) -> _Found:
    """Measure and print for one file."""
    dataset = "mbpp" if "mbpp" in file.name else "humaneval"
    environment = _override_paths(data, folder)
    rows = _read(file)
    measure.run([python, "-c", _MAKE_GROUND_TRUTH, dataset], environment)
    ours = _our_command(file, dataset, workers)
    # As pip did when it installed EvalPlus.
    compileall.compile_dir(Path(grader.__file__).parent, quiet=1)
    measure.run(ours)
    runs = bare_loop.runs_of(rows, dataset, data, floor_s=_FLOOR_S) if bare else []
    theirs, mine, needed = [], [], []
    for _ in range(repeats):
        theirs.append(_run_evalplus(rows, dataset, python, folder, environment, workers))
        mine.append(measure.run(ours))
        if bare:
            needed.append(bare_loop.cpu_seconds(runs, workers))
    print(
        f"{file.name}: {len(rows)} samples, {workers} workers, limits max({_FLOOR_S:g} s, {_FACTOR:g} x reference)"
    )
    for name, used in (("EvalPlus", theirs), ("grader", mine)):
        walls, cpus = [one.wall_s for one in used], [one.cpu_s for one in used]
        print(f"  {name:9} wall {statistics.median(walls):7.2f} s   CPU {statistics.median(cpus):7.2f} s")
    wall = [other.wall_s / own.wall_s for other, own in zip(theirs, mine, strict=True)]
    cpu = [other.cpu_s / own.cpu_s for other, own in zip(theirs, mine, strict=True)]
    print(f"  EvalPlus / grader: wall {_spread(wall)}, CPU {_spread(cpu)}", flush=True)
    ratios = {"wall": statistics.median(wall), "cpu": statistics.median(cpu)}
    if bare:
        above = [own.cpu_s / alone for own, alone in zip(mine, needed, strict=True)]
        print(
            f"  bare loop: CPU {statistics.median(needed):.2f} s; grader / bare: {_spread(above)}", flush=True
        )
        ratios["bare"] = statistics.median(above)
    cpu_s, bare_cpu_s = statistics.median(one.cpu_s for one in mine), statistics.median(needed or [0.0])
    return _Found(ratios, cpu_s, bare_cpu_s)


def _spread(ratios: list[float]) -> str:
    ordered = sorted(ratios)
    return f"{statistics.median(ordered):.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})"


def _override_paths(data: Path, folder: Path) -> dict[str, str]:
    """EvalPlus reads its data from plain files named by these variables."""
    environment = {}
    for variable, name in (("HUMANEVAL_OVERRIDE_PATH", "HumanEvalPlus"), ("MBPP_OVERRIDE_PATH", "MbppPlus")):
        plain = folder / f"{name}.jsonl"
        if not plain.exists():
            plain.write_bytes(gzip.decompress((data / f"{name}.jsonl.gz").read_bytes()))
        environment[variable] = str(plain)
    return environment


def _read(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _run_evalplus(
    rows: list[dict[str, Any]],
    dataset: str,
    python: Path,
    folder: Path,
    environment: dict[str, str],
    workers: int,
) -> measure.Usage:
    samples = folder / "samples.jsonl"
    samples.write_text(
        "".join(json.dumps({k: row[k] for k in ("task_id", "solution")}) + "\n" for row in rows)
    )
    (folder / "samples_eval_results.json").unlink(missing_ok=True)
    options: list[str | Path] = ["--dataset", dataset, "--samples", samples, "--parallel", str(workers)]
    command: list[str | Path] = [python, "-m", "evalplus.evaluate", *options]
    return measure.run(command, environment)


def _our_command(file: Path, dataset: str, workers: int) -> list[str | Path]:
    grader = Path(sys.executable).parent / "grader"
    limits = ["--time-floor", str(_FLOOR_S), "--time-factor", str(_FACTOR)]
    return [grader, "score", file, "--suite", f"{dataset}+", "--workers", str(workers), "--json", *limits]


if __name__ == "__main__":
    main()
