"""Grade many trivial programs in a pool of container cells, and show that nothing grows and nothing is left.

    python loadtest/pool_soak.py [--samples 100000] [--workers 2] [--runtime runsc] [--max-runs 10000] [--one-shot]

Prints the resident memory of the workers and the memory charged to the containers as it goes, then what is left when
all is closed: containers, processes, files in the temporary folder and in /dev/shm, System V objects. Fails if a
verdict is wrong, if a worker has grown by more than 8 MiB since the first tenth, or if anything is left. Processes and
files of other graders on the machine that start meanwhile would be counted as left.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from grader.dispatch.blocking import BlockingEngine
from grader.engines.local import LocalPool
from grader.limits import MIB, Limits
from grader.sandbox import cgroup, docker_engine, docker_orphans, images
from grader.sandbox.options import CellOptions
from grader.sandbox.renewal import Renewal
from grader.suites import registry
from grader.suites.task import Suite
from grader.worker.program import Program

MAX_GROWTH = 8 * MIB


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runtime")
    parser.add_argument("--max-runs", type=int, default=10_000)
    parser.add_argument("--one-shot", action="store_true")
    options = parser.parse_args()
    images.build()
    before = leftovers(set())
    limits = Limits()
    renewal = Renewal(one_shot=options.one_shot, max_runs=options.max_runs)
    cells = CellOptions(sandbox="docker", runtime=options.runtime, renewal=renewal)
    pool = LocalPool(limits=limits, workers=options.workers, cells=cells)
    suite = one_task(registry.load("starter"))
    began = time.monotonic()
    with BlockingEngine(pool, suite, limits=limits, fail_fast=True) as engine:
        workers: set[int] = set()
        grown = soak(engine, pool, suite, options.samples, workers)
    took = time.monotonic() - began
    left = {kind: found - before[kind] for kind, found in leftovers(workers).items()}
    print(f"{options.samples} samples in {took:.0f} s, {options.samples / took:.0f} a second")
    for kind, found in left.items():
        print(f"{kind} left: {len(found)}{' ' + ', '.join(sorted(found)[:5]) if found else ''}")
    if grown > MAX_GROWTH or any(left.values()):
        sys.exit(f"a worker grew by {grown / MIB:.1f} MiB, left: {left}")


def one_task(suite: Suite) -> Suite:
    """The suite with its first task alone."""
    name = next(iter(suite.tasks))
    return replace(suite, tasks={name: suite.tasks[name]})


def soak(engine: BlockingEngine, pool: LocalPool, suite: Suite, samples: int, workers: set[int]) -> int:
    """Grade; returns how many bytes the worker that grew most did since the first tenth. Adds the process ids of all
    ``workers``."""
    (task,) = suite.tasks.values()

    def programs() -> Iterator[Program]:
        for number in range(samples):
            right = number % 2 == 0
            body = task.reference if right else f"def {task.entry_point}(*arguments):\n    return {number}\n"
            yield Program(task.task_id, f"{number}", f"{body}\n# {number}\n")

    first: dict[str, int] = {}
    last: dict[str, int] = {}
    step = max(1, samples // 10)
    for done, verdict in enumerate(engine.grade(programs()), start=1):
        right = int(verdict["sample_id"]) % 2 == 0
        if verdict["passed"] is not right or verdict["attempts"] != 1:
            sys.exit(f"sample {verdict['sample_id']}: {verdict}")
        if done % step == 0:
            workers.update(pool.processes().values())
            last = {name: resident(pid) for name, pid in pool.processes().items()}
            first = first or last
            shown = ", ".join(f"{name} {size / MIB:.1f} MiB" for name, size in sorted(last.items()))
            print(f"{done:>8} done: {shown}; containers {container_memory(workers)}", flush=True)
    return max(size - first.get(name, size) for name, size in last.items())


def resident(pid: int) -> int:
    """Bytes of memory resident in a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def container_memory(workers: set[int]) -> str:
    """What is charged to the containers that the workers have now."""
    sizes = []
    for pid in container_processes(workers):
        group = cgroup.group_of(pid)
        for name in ("memory.usage_in_bytes", "memory.current"):
            if group is not None and (group.memory / name).exists():
                sizes.append(f"{int((group.memory / name).read_text()) / MIB:.1f} MiB")
    return ", ".join(sizes) or "none"


def container_processes(workers: set[int]) -> list[int]:
    """The first processes of the workers' containers."""
    client = docker_engine.connect()
    try:
        return [client.inspect_container(name)["State"]["Pid"] for name in containers(client, workers)]
    finally:
        client.close()


def containers(client: Any, workers: set[int]) -> set[str]:
    """The ids of the workers' containers, whatever their state."""
    label = f"{docker_orphans.ROLE_LABEL}={docker_orphans.CELL}"
    return {
        found["Id"]
        for found in client.containers(all=True, filters={"label": label})
        if int(found["Labels"][docker_orphans.OWNER_LABEL].split("/")[2]) in workers
    }


def leftovers(workers: set[int]) -> dict[str, set[str]]:
    """Everything that the cells of these workers could leave on this machine."""
    client = docker_engine.connect()
    try:
        found = {"containers": containers(client, workers)}
    finally:
        client.close()
    found["processes"] = set(cell_processes())
    found["files"] = {
        str(path) for place in (tempfile.gettempdir(), "/dev/shm") for path in Path(place).iterdir()
    }
    found["System V objects"] = {
        line
        for kind in ("shm", "sem", "msg")
        for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
    }
    return found


def cell_processes() -> Iterator[str]:
    """The processes of container cells, by what they run: supervisors, zygotes, samples, and gVisor's."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if command.endswith(b"\0/runner\0") or command.startswith(b"runsc-sandbox"):
            yield f"{folder.name} {command.replace(bytes(1), b' ')[:60].decode(errors='replace')}"


if __name__ == "__main__":
    main()
