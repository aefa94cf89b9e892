"""How much the CPU time of one call varies with what the machine's processors share, and how much of it a limit sees.

    python loadtest/bench_pace.py [--calls 8] [--busy 0,1,3] [--backends namespaces,docker,docker+runsc]

The same call runs again and again in one cell, beside so many busy processes. Printed are the least and the most CPU
seconds that the kernel counted, the same counted as limits are (``grader.sandbox.runner.pace``), and how far apart each
pair is. Does not fail: what neighbours outside of the machine do is not ours to choose.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import one_run

from grader import settings
from grader.limits import Limits
from grader.sandbox import factory
from grader.sandbox.cell import Done
from grader.sandbox.options import CellOptions

# Calls, comparisons and small numbers.
_PROGRAM = """
def paths(left, total):
    return 1 if left == 0 else paths(left - 1, total + left) + paths(left - 1, total - left if total % 3 else total)
def f(depth):
    return paths(depth, 0)
"""
_DEPTH = 23


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--busy", default="0,1,3")
    parser.add_argument("--backends", default="namespaces,docker")
    given = parser.parse_args()
    for name in given.backends.split(","):
        backend, _, runtime = name.partition("+")
        options = CellOptions(sandbox=backend, runtime=runtime or None)
        if missing := factory.unavailable_reason(options):
            raise SystemExit(f"{name}: {missing}")
        limits = Limits(time_floor_s=100.0)
        cell = factory.prepare(options, settings.cache_dir()).make(limits)
        try:
            ends = []
            for busy in map(int, given.busy.split(",")):
                with _busy(busy):
                    some = [one_run.run(cell, limits, _PROGRAM, _DEPTH) for _ in range(given.calls)]
                _print(f"{name}, {busy} busy", some)
                ends += some
            _print(f"{name}, all", ends)
        finally:
            cell.close()


@contextmanager
def _busy(number: int) -> Iterator[None]:
    crowd = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(number)]
    for one in crowd:
        one.start()
    try:
        yield
    finally:
        for one in crowd:
            one.kill()
            one.join()


def _spin() -> None:
    while True:
        pass


def _print(name: str, ends: list[Done]) -> None:
    used = [end.cpu_s for end in ends]
    work = [end.cpu_s / end.slowness for end in ends]
    print(
        f"{name:<26}{len(ends):>4} calls: {min(used):.2f} to {max(used):.2f} s of CPU time "
        f"({max(used) / min(used):.2f}), "
        f"{min(work):.2f} to {max(work):.2f} s as limits count ({max(work) / min(work):.2f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
