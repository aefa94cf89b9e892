"""Grade trivial programs over HTTP for a long time, and show that nothing grows and nothing is left.

    python loadtest/soak.py [--samples 1000000] [--batch 512] [--clients 4] [--workers 2] [--engine local]

Starts ``grader serve`` with keys and jobs as a user would, drives it with clients of ``grader.client``, and prints
resident memory, open descriptors and processes of the service and all that it started, ten times. Then it stops the
service and prints what is left. Fails if a verdict is wrong or missing, if a process has grown by more than 16 MiB
since the third tenth (caches have bounds, and are full by then), or if anything is left.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grader.client import AsyncGraderClient
from grader.suites import registry

MIB = 1 << 20
MAX_GROWTH = 16 * MIB
_STEPS = 10
_SETTLED = 3  # the first measurement of that many is what growth is counted from


@dataclass
class Soak:
    """How far the soak has come, and what its processes used on the way."""

    service: int
    samples: int
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    history: list[dict[int, int]] = field(default_factory=list)

    def passed(self, count: int) -> None:
        """Count samples; print a line at every tenth."""
        self.done += count
        while self.done * _STEPS >= self.samples * (len(self.history) + 1):
            self._measure()

    def _measure(self) -> None:
        pids = [self.service, *sorted(descendants(self.service))]
        sizes = {pid: size for pid in pids if (size := resident(pid))}
        self.history.append(sizes)
        rate = self.done / (time.monotonic() - self.began)
        total = sum(sizes.values()) / MIB
        handles = sum(map(descriptors, pids))
        print(
            f"{self.done:>9} done, {rate:6.0f}/s: service {sizes.get(self.service, 0) / MIB:.1f} MiB, "
            f"{len(sizes)} processes {total:.1f} MiB, {handles} descriptors",
            flush=True,
        )

    def growth(self) -> int:
        """Bytes by which the process that grew most did, once everything was warm."""
        early, late = self.history[min(_SETTLED, len(self.history)) - 1], self.history[-1]
        return max(late[pid] - early[pid] for pid in late if pid in early)


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", default="local")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        service, url = start_service(Path(folder), options.workers, options.engine)
        try:
            soak = Soak(service.pid, options.samples)
            asyncio.run(drive(url, soak, options.batch, options.clients))
            family = descendants(service.pid)
            service.send_signal(signal.SIGTERM)
            status = service.wait(60)
        finally:
            service.kill()
            service.wait()
    left = sorted(pid for pid in family if Path(f"/proc/{pid}/stat").exists())
    growth = soak.growth()
    print(
        f"{soak.done} samples; a process grew by {growth / MIB:.1f} MiB at the most; "
        f"the service ended with {status}; processes left: {len(left)}"
    )
    if growth > MAX_GROWTH or left or status:
        sys.exit("something grew, is left, or did not end well")


def start_service(folder: Path, workers: int, engine: str) -> tuple[subprocess.Popen[str], str]:
    """Start ``grader serve``; return it and its address."""
    command = [sys.executable, "-c", "from grader.cli import main; main()", "serve", "--port", "0"]
    command += ["--workers", str(workers), "--engine", engine]
    environment = {**os.environ, "GRADER_DATABASE_URL": f"sqlite:///{folder}/jobs.sqlite3"}
    log = folder / "log"
    with log.open("w") as file:
        service = subprocess.Popen(command, stderr=file, stdout=file, env=environment, text=True)
    for _ in range(600):
        said = log.read_text()
        if '"url": "' in said:
            return service, said.split('"url": "')[1].split('"')[0]
        if service.poll() is not None:
            sys.exit(f"the service did not start: {said[-2000:]}")
        time.sleep(0.1)
    service.kill()
    sys.exit(f"the service did not start in time: {said[-2000:]}")


async def drive(url: str, soak: Soak, batch: int, clients: int) -> None:
    """Send all samples, from several clients at the same time."""
    batches = _batches(soak.samples, batch)
    async with AsyncGraderClient(url) as client:
        await asyncio.gather(*(_send(client, batches, soak) for _ in range(clients)))


async def _send(client: AsyncGraderClient, batches: Iterator[list[dict[str, Any]]], soak: Soak) -> None:
    for samples in batches:
        result = await client.grade(samples, suite="starter")
        for sample, verdict in zip(samples, result.verdicts, strict=True):
            if verdict.passed is not ("return None" not in sample["solution"]):
                sys.exit(f"a wrong verdict: {verdict}")
        soak.passed(len(samples))


def _batches(samples: int, size: int) -> Iterator[list[dict[str, Any]]]:
    task = next(iter(registry.load("starter").tasks.values()))
    wrong = f"def {task.entry_point}(*arguments):\n    return None\n"
    for begin in range(0, samples, size):
        # A number in the program makes each one another: none is answered from another's verdict.
        yield [
            {
                "task_id": task.task_id,
                "sample_id": str(number),
                "solution": f"_ = {number}\n{task.reference if number % 2 else wrong}",
            }
            for number in range(begin, min(begin + size, samples))
        ]


def resident(pid: int) -> int:
    """Bytes of memory resident in a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def descendants(pid: int) -> set[int]:
    """The processes that a process started, and those they started."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(), ()):
            found.add(child)
            waiting.append(child)
    return found


if __name__ == "__main__":
    main()
