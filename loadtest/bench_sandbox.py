"""What a sandbox costs: a trivial program in every kind of cell, beside a bare fork and the usual ways of isolation.

    python loadtest/bench_sandbox.py [--samples 300] [--backends namespaces,docker,docker+runsc] [--no-bounds]

Printed are the seconds that a cell needs to start, milliseconds of wall-clock time from a worker's request to the end
of the sample (median and 90th percentile), and milliseconds of CPU time a sample, as medians: of the sample itself, of
everything in the cell (supervisor and zygote included), how much of it is above a bare fork, and of the engine.
A bare fork is fork, exit and wait in an interpreter of about the zygote's size. What it costs depends on what the
neighbours of the machine do, and changes within seconds to twice as much and back. So samples are run in short rounds,
with bare forks before and after each, and what is above them is the median over all rounds; "in forks" is the same as a
multiple of the forks beside it, which changes less. What is above a bare fork is bounded: 1.5 ms (namespaces) and 3 ms
(docker with runc); above that, or where such a backend is missing, the exit code is 1. Needs Docker for the rows that
have it in their name.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import one_run

from grader import settings
from grader.limits import Limits
from grader.sandbox import cgroup, factory
from grader.sandbox.cell import Cell, Done
from grader.sandbox.options import CellOptions

_ROUND = 20  # samples
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_ENGINE = ("dockerd", "containerd", "containerd-shim")
_BOUNDS_S = {"namespaces": 0.0015, "docker": 0.003}  # CPU time above a bare fork
_PROGRAM = "def f(n):\n    return n\n"
_COMMAND = "def f(n):\n    return n\nprint(f(3))\n"
_FORKS = """
import os, sys, time
import collections, datetime, decimal, fractions, functools, hashlib, heapq, itertools, json, math, random, re, typing
for _ in range(int(sys.argv[1])):
    begin, own = time.perf_counter(), time.process_time()
    if (pid := os.fork()) == 0:
        os._exit(0)
    usage = os.wait4(pid, 0)[2]
    print(time.perf_counter() - begin, time.process_time() - own + usage.ru_utime + usage.ru_stime)
"""


@dataclass(frozen=True)
class Row:
    """Costs of one way to run a program; times in seconds a sample, NaN where they cannot be told."""

    name: str
    walls: list[float]
    start: float = float("nan")
    sample_cpu: float = float("nan")
    cell_cpu: float = float("nan")
    above_fork: float = float("nan")
    in_forks: float = float("nan")
    engine_cpu: float = float("nan")

    def print(self) -> None:
        """Print a line of the table."""
        walls = sorted(self.walls)
        numbers = (
            statistics.median(walls),
            walls[len(walls) * 9 // 10],
            self.sample_cpu,
            self.cell_cpu,
            self.above_fork,
            self.in_forks / 1000,  # no time
            self.engine_cpu,
        )
        widths = (11, 11, 11, 11, 17, 10, 11)
        cells = "".join(
            f"{1000 * number:>{width}.2f}" if number == number else f"{'-':>{width}}"
            for number, width in zip(numbers, widths, strict=True)
        )
        start = f"{self.start:>8.2f}" if self.start == self.start else f"{'-':>8}"
        print(f"{self.name:<26}{start}{cells}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--backends", default="namespaces,docker,docker+runsc")
    parser.add_argument("--no-bounds", action="store_true", help="print alone: exit with 0 whatever it costs")
    args = parser.parse_args()
    print(
        f"{'':<26}{'start/s':>8}{'wall/ms':>11}{'p90/ms':>11}{'sample CPU':>11}{'cell CPU':>11}{'above bare fork':>17}"
        f"{'in forks':>10}{'engine CPU':>11}"
    )
    _bare_fork(args.samples).print()
    broken = []
    for name in args.backends.split(","):
        backend, _, runtime = name.partition("+")
        options = CellOptions(sandbox=backend, runtime=runtime or None)
        missing = factory.unavailable_reason(options)
        if missing:
            print(f"{name}: {missing}", file=sys.stderr)
            broken += [f"{name} was not measured"] if name in _BOUNDS_S else []
            continue
        row = _measure_cell(name, options, args.samples)
        row.print()
        broken += _broken_bounds(row)
    _measure_command("subprocess", [sys.executable, "-I", "-c", _COMMAND], 20).print()
    if "docker" in args.backends and not factory.unavailable_reason(CellOptions(sandbox="docker")):
        for row in _docker_commands():
            row.print()
    if broken and not args.no_bounds:
        sys.exit("; ".join(broken))


def _broken_bounds(row: Row) -> list[str]:
    bound = _BOUNDS_S.get(row.name)
    if bound is None or row.above_fork <= bound:
        return []
    return [
        f"{row.name} costs {1000 * row.above_fork:.2f} ms above a bare fork: more than {1000 * bound:g} ms"
    ]


def _bare_fork(samples: int) -> Row:
    command = [sys.executable, "-I", "-S", "-c", _FORKS, str(samples)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    walls, cpus = zip(*(map(float, line.split()) for line in lines), strict=True)
    return Row("bare fork", list(walls), sample_cpu=statistics.median(cpus))


def _measure_cell(name: str, options: CellOptions, samples: int) -> Row:
    if options.backend == "docker":
        from grader.sandbox import images

        images.build()
    limits = Limits()
    source = factory.prepare(options, settings.cache_dir())
    begin = time.perf_counter()
    cell = source.make(limits)
    try:
        start = time.perf_counter() - begin
        for _ in range(5):
            _run(cell, limits)
        engine, forks, rounds = _engine_cpu(), [_bare_fork(_ROUND).sample_cpu], []
        for _ in range(samples // _ROUND):
            rounds.append(_measure_samples(cell, limits, _ROUND))
            forks.append(_bare_fork(_ROUND).sample_cpu)
        beside = map(statistics.mean, itertools.pairwise(forks))
        pairs = [(whole, fork) for (_, _, whole), fork in zip(rounds, beside, strict=True)]
        return Row(
            name,
            [wall for walls, _, _ in rounds for wall in walls],
            start,
            statistics.median(own for _, own, _ in rounds),
            statistics.median(whole for _, _, whole in rounds),
            statistics.median(whole - fork for whole, fork in pairs),
            statistics.median(whole / fork - 1 for whole, fork in pairs),
            _since(engine) / samples if options.backend == "docker" else float("nan"),
        )
    finally:
        cell.close()


def _measure_samples(cell: Cell, limits: Limits, samples: int) -> tuple[list[float], float, float]:
    """Wall-clock times, and the medians of what a sample's process and its whole cell use, in CPU seconds."""
    first = _first_process(cell)
    gvisor = cgroup.cpu_counter_of(first) if not cell.exact_clocks else None  # its threads come and go
    runner = list(_tree(first))
    walls, own, whole = [], [], []
    used = cgroup.read_cpu_s(gvisor) if gvisor else _run_time_of(runner)
    for _ in range(samples):
        begin = time.perf_counter()
        own.append(_run(cell, limits).cpu_s)
        walls.append(time.perf_counter() - begin)
        before, used = used, cgroup.read_cpu_s(gvisor) if gvisor else _run_time_of(runner)
        whole.append(used - before + (0.0 if gvisor else own[-1]))
    return walls, statistics.median(own), statistics.median(whole)


def _run(cell: Cell, limits: Limits) -> Done:
    return one_run.run(cell, limits, _PROGRAM, 3)


def _first_process(cell: Cell) -> int:
    if cell.backend == "namespaces":
        return int(cell._process.pid)  # type: ignore[attr-defined]
    state = cell._client.inspect_container(cell._container)["State"]  # type: ignore[attr-defined]
    return int(state["Pid"])


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))


def _named(names: tuple[str, ...]) -> Iterator[int]:
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            if file.read_text().strip() in (name[:15] for name in names):
                yield int(file.parent.name)
        except OSError:
            continue


def _run_time_of(pids: list[int]) -> float:
    """Seconds that single-threaded processes have run, without their children (proc_pid_schedstat)."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def _engine_cpu() -> dict[int, float]:
    """Seconds that each process of the container engine has used (proc_pid_stat(5), fields 14 and 15)."""
    used = {}
    for pid in _named(_ENGINE):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used[pid] = sum(map(int, fields[11:13])) * _TICK_S
    return used


def _since(before: dict[int, float]) -> float:
    """Seconds that the engine's processes have used since, as far as they are still there."""
    return sum(used - before[pid] for pid, used in _engine_cpu().items() if pid in before)


def _measure_command(name: str, command: list[str], times: int) -> Row:
    walls, cpus = [], []
    for _ in range(times):
        begin, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - begin)
        after = os.times()
        cpus.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    own = (
        statistics.mean(cpus) if name == "subprocess" else float("nan")
    )  # else it is not our child that runs it
    return Row(name, walls, sample_cpu=own)


def _docker_commands() -> Iterator[Row]:
    from grader.sandbox import docker_engine, docker_orphans, images

    image = images.reference()
    python = ["/python/bin/python3", "-I", "-S", "-c"]
    run = ["docker", "run", "--rm", "--network=none", "--entrypoint", python[0], image, *python[1:], _COMMAND]
    yield _measure_command("docker run", run, 10)
    client = docker_engine.connect()
    container = client.create_container(
        image, entrypoint=python[:1], command=[*python[1:], "import time; time.sleep(600)"],
        labels=docker_orphans.own_labels(),
    )["Id"]  # fmt: skip
    try:
        client.start(container)
        yield _measure_command("docker exec", ["docker", "exec", container, *python, _COMMAND], 10)
    finally:
        docker_orphans.remove(client, container)
        client.close()


if __name__ == "__main__":
    main()
