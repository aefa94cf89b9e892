"""Grade trivial programs over HTTP for a long time, and show that nothing grows and nothing is left.

    python loadtest/soak.py [--samples 1000000] [--seconds S] [--batch 512] [--clients 4] [--workers 2] [--engine local]

Starts ``grader serve`` with API keys and a database of jobs as a user would, drives it with clients of
``grader.client``, and prints resident memory, open descriptors and processes of the service and all that it started,
ten times. Then it stops the service. ``--seconds``: it ends after so many, if it has not done all samples before.

Ends with another code than 0, and says what it was, if a verdict is wrong or missing; if, since the third tenth (caches
have bounds, and are full by then), a process has grown by more than ``--max-growth-mib``, has more than a few
descriptors more, or there are more processes; if the service does not end well; or if a process or file of it is left.
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
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grader.client import AsyncGraderClient
from grader.suites import registry

MIB = 1 << 20
MAX_MORE_DESCRIPTORS = 8  # connections come and go
_STEPS = 10
_SETTLED = 3  # the first measurement of that many is what growth is counted from
_MARK = "GRADER_SOAK"
_GRADER = [sys.executable, "-c", "from grader.cli import main; main()"]


@dataclass(frozen=True)
class Used:
    """What one process uses: bytes resident, and descriptors."""

    memory: int
    descriptors: int


@dataclass
class Soak:
    """How far the soak has come, and what its processes used on the way."""

    service: int
    samples: int
    seconds: float
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    history: list[dict[int, Used]] = field(default_factory=list)

    @property
    def part_done(self) -> float:
        """How much of it is done, from 0 to 1."""
        return max(self.done / self.samples, (time.monotonic() - self.began) / self.seconds)

    def passed(self, count: int) -> None:
        """Count samples; print a line at every tenth."""
        self.done += count
        if self.part_done * _STEPS >= len(self.history) + 1:
            self.measure()

    def measure(self) -> None:
        """Note what the processes use, and print it."""
        pids = [self.service, *sorted(descendants(self.service))]
        used = {pid: Used(size, descriptors(pid)) for pid in pids if (size := resident(pid))}
        self.history.append(used)
        rate = self.done / (time.monotonic() - self.began)
        total = sum(one.memory for one in used.values()) / MIB
        handles = sum(one.descriptors for one in used.values())
        own = used[self.service].memory / MIB if self.service in used else 0.0
        print(
            f"{self.done:>9} done, {rate:6.0f}/s: service {own:.1f} MiB, {len(used)} processes {total:.1f} MiB, "
            f"{handles} descriptors",
            flush=True,
        )

    def grown(self, most_bytes: int) -> list[str]:
        """Say what has grown since everything was warm."""
        if len(self.history) <= _SETTLED:
            return [f"it was too short: {len(self.history)} measurements"]
        early, late = self.history[_SETTLED - 1], self.history[-1]
        both = early.keys() & late.keys()
        growth = max(late[pid].memory - early[pid].memory for pid in both)
        more = max(late[pid].descriptors - early[pid].descriptors for pid in both)
        print(f"a process grew by {growth / MIB:.1f} MiB and {more} descriptors at the most")
        found = []
        if growth > most_bytes:
            found.append(f"a process grew by {growth / MIB:.1f} MiB")
        if more > MAX_MORE_DESCRIPTORS:
            found.append(f"a process has {more} descriptors more")
        if len(late) > len(early):
            found.append(f"there are {len(late) - len(early)} processes more")
        return found


@dataclass
class Service:
    """``grader serve`` in a folder of its own, with a key."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, workers: int, engine: str) -> None:
        """Start it, and wait until it listens. ``url`` and ``key`` are known then."""
        self.scratch = self.folder / "tmp"
        self.scratch.mkdir()
        environment = {
            **os.environ,
            "GRADER_DATABASE_URL": f"sqlite:///{self.folder}/jobs.sqlite3",
            "GRADER_API_KEYS_FILE": str(self.folder / "keys.jsonl"),
            "TMPDIR": str(self.scratch),
            _MARK: self.mark,
        }
        added = subprocess.run(
            [*_GRADER, "keys", "add", "soak"], env=environment, check=True, capture_output=True, text=True
        )
        self.key = added.stdout.split()[-1]
        command = [*_GRADER, "serve", "--port", "0", "--workers", str(workers), "--engine", engine]
        log = self.folder / "log"
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stderr=file, stdout=file, env=environment)
        for _ in range(600):
            said = log.read_text()
            if '"url": "' in said:
                self.url = said.split('"url": "')[1].split('"')[0]
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.process.kill()
        sys.exit(f"the service did not start: {said[-2000:]}")

    def stop(self) -> list[str]:
        """Stop it; say what went wrong in that, and what is left."""
        family = {pid: started(pid) for pid in descendants(self.process.pid)}
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        found = [f"the service ended with {status}"] if status else []
        family |= {pid: started(pid) for pid in marked(self.mark)}
        left = sorted(pid for pid, then in family.items() if then and started(pid) == then)
        files = [str(path.relative_to(self.folder)) for path in self.scratch.rglob("*")]
        print(f"processes left: {len(left)}, files left: {len(files)}")
        found += [f"the process {pid} is left" for pid in left]
        return found + [f"the file {file} is left" for file in files]


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--max-growth-mib", type=float, default=16.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder))
        service.start(options.workers, options.engine)
        try:
            soak = Soak(service.process.pid, options.samples, options.seconds)
            asyncio.run(drive(service, soak, options.batch, options.clients))
            soak.measure()
        except BaseException:
            service.process.kill()
            service.process.wait()
            raise
        wrong = soak.grown(int(options.max_growth_mib * MIB)) + service.stop()
    print(f"{soak.done} samples, each with the right verdict")
    if wrong:
        sys.exit("; ".join(wrong))


async def drive(service: Service, soak: Soak, batch: int, clients: int) -> None:
    """Send all samples, from several clients at the same time."""
    batches = _batches(soak, batch)
    async with AsyncGraderClient(service.url, api_key=service.key) as client:
        await client.grade(
            _samples(range(-batch, 0)), suite="starter"
        )  # uncounted: no worker is ready before it
        soak.began = time.monotonic()
        await asyncio.gather(*(_send(client, batches, soak) for _ in range(clients)))


async def _send(client: AsyncGraderClient, batches: Iterator[list[dict[str, Any]]], soak: Soak) -> None:
    for samples in batches:
        result = await client.grade(samples, suite="starter")
        for sample, verdict in zip(samples, result.verdicts, strict=True):
            if verdict.passed is not ("return None" not in sample["solution"]):
                sys.exit(f"a wrong verdict: {verdict}")
        soak.passed(len(samples))


def _batches(soak: Soak, size: int) -> Iterator[list[dict[str, Any]]]:
    for begin in range(0, soak.samples, size):
        if soak.part_done >= 1.0:
            return
        yield _samples(range(begin, min(begin + size, soak.samples)))


def _samples(numbers: range) -> list[dict[str, Any]]:
    task = next(iter(registry.load("starter").tasks.values()))
    wrong = f"def {task.entry_point}(*arguments):\n    return None\n"
    # A number in the program makes each one another: none is answered from another's verdict.
    return [
        {
            "task_id": task.task_id,
            "sample_id": str(number),
            "solution": f"_ = {number}\n{task.reference if number % 2 else wrong}",
        }
        for number in numbers
    ]


def resident(pid: int) -> int:
    """Bytes of memory resident in a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def started(pid: int) -> str:
    """When a process was started, which tells it from another that has its number later; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def marked(mark: str) -> set[int]:
    """The processes that have a mark in their environment, whoever their parent is now."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{_MARK}={mark}".encode() in file.read_bytes():
                found.add(int(file.parent.name))
        except OSError:
            continue
    return found


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
