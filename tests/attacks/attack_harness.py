"""One engine, one worker, one cell, and what must be the same about them after every attack."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attack_programs.model import LIMITS, Attack, suite

from grader.dispatch.blocking import BlockingEngine
from grader.engines.local import LocalPool
from grader.worker.program import Program

MIB = 1 << 20
MAX_GROWTH = 16 * MIB
MAX_GRADER_CPU_S = 2.0
"""CPU seconds that judging one attack may cost outside of the sample: worker and supervisor together."""

# Passes only where nothing of an earlier sample can be seen.
WITNESS = """
import ctypes, gc, os, random, signal, stat, sys, threading

def clean():
    assert os.listdir("/tmp") == [], os.listdir("/tmp")
    assert os.getcwd() == "/tmp"
    assert stat.S_IMODE(os.stat("/tmp").st_mode) == 0o700
    assert os.statvfs("/tmp").f_bfree * os.statvfs("/tmp").f_bsize >= (15 << 20)
    assert os.listdir("/dev") and set(os.listdir("/dev")) <= {"null", "zero", "full", "random", "urandom"}
    mask = os.umask(0o022)
    assert mask == 0o022 or mask == os.umask(mask), oct(mask)
    assert threading.active_count() == 1
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL and not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    for number in range(5, 256):
        try:
            os.fstat(number)
        except OSError:
            continue
        raise AssertionError(f"descriptor {number} is open")
    assert os.getpid() == 1
    assert not os.environ.get("LEFT_BEHIND") and not hasattr(sys, "left_behind")
    assert random.random() == 0.8444218515250481
    assert len([1, 2]) == 2 and abs(-1) == 1 and all([1]) and sorted([2, 1]) == [1, 2]
    assert not [o for o in gc.get_objects() if type(o).__name__ == "LeftBehind"]

clean()

def solve(n):
    return n * 7919 + 104729
"""


@dataclass(frozen=True)
class State:
    """What an attack may not change: the processes of the cell and their open descriptors."""

    supervisor: int
    processes: tuple[int, ...]
    descriptors: dict[int, tuple[str, ...]]


class Harness:
    """Grades attacks one after the other in one cell."""

    def __init__(self, backend: str, cache: Path) -> None:
        self.backend = backend
        pool = LocalPool(limits=LIMITS, workers=1, sandbox=backend)
        self._pool = pool
        self._engine = BlockingEngine(pool, suite(), limits=LIMITS)
        self._cache = cache
        self._count = 0

    def __enter__(self) -> Harness:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRADER_CACHE_DIR", str(self._cache))
            self._engine.__enter__()
        # Everything that a cell makes on first use is made before the first attack.
        for source in (WITNESS, WITNESS.replace("import ctypes", "import ctypes, numpy"), WITNESS):
            self.must_be_clean(self.grade(source))
        self._memory = self.worker_memory()
        return self

    def __exit__(self, *error: Any) -> None:
        self._engine.__exit__(*error)

    def grade(self, source: str, task: str = "Attacked/int") -> dict[str, Any]:
        """Return the verdict on a program."""
        self._count += 1
        (verdict,) = self._engine.grade([Program(task, f"sample-{self._count}", source)])
        return verdict

    @property
    def worker(self) -> int:
        """The worker's process id."""
        (pid,) = self._pool.processes().values()
        return pid

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that verdicts are stamped with."""
        return tuple(self._engine.stamp["layers"])

    def state(self) -> State:
        """Return what is the same before and after an attack."""
        below = tuple(sorted(descendants(self.worker)))
        launcher = next(pid for pid in below if parent_of(pid) == self.worker)
        supervisor = next(pid for pid in below if parent_of(pid) == launcher)
        return State(supervisor, below, {pid: descriptors_of(pid) for pid in below})

    def grader_cpu_s(self) -> float:
        """CPU seconds that worker, supervisor and zygotes have used so far, without the samples'."""
        return sum(cpu_of(pid) for pid in (self.worker, *descendants(self.worker)))

    def worker_memory(self) -> int:
        """Bytes resident in the worker."""
        for line in Path(f"/proc/{self.worker}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the worker is gone")

    def grown(self) -> int:
        """How many bytes the worker has grown since it was warm."""
        return self.worker_memory() - self._memory

    @staticmethod
    def must_be_clean(verdict: dict[str, Any]) -> None:
        """Fail unless an honest program passed."""
        assert verdict["passed"], (verdict["status"], verdict["error"])
        assert verdict["attempts"] == 1

    def withstand(self, attack: Attack) -> dict[str, Any]:
        """Grade an attack; fail if it passes, or leaves or breaks anything."""
        before, cpu_before, memory_before = self.state(), self.grader_cpu_s(), self.worker_memory()
        verdict = self.grade(attack.source, attack.task)
        cpu = self.grader_cpu_s() - cpu_before
        assert verdict["status"] in attack.statuses, (
            verdict["status"],
            verdict["error"],
            verdict["stdout_tail"],
        )
        assert verdict["attempts"] == 1, "it cost the cell"
        assert verdict["cpu_s"] <= attack.steps * LIMITS.time_floor_s + 1.0
        assert cpu <= MAX_GRADER_CPU_S, f"judging it cost {cpu:.1f} CPU seconds"
        self.must_be_clean(self.grade(WITNESS))
        after = self.state()
        assert after == before, "processes or descriptors differ"
        assert self.worker_memory() - memory_before <= MAX_GROWTH
        assert self.grown() <= 2 * MAX_GROWTH, "small steps"
        return verdict


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes below one."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return
    for thread in threads:
        for child in map(int, (thread / "children").read_text().split()):
            yield child
            yield from descendants(child)


def parent_of(pid: int) -> int:
    return int(_stat(pid)[1])


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, without its children."""
    user, system = _stat(pid)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descriptors_of(pid: int) -> tuple[str, ...]:
    """The open descriptors of a process, and what kind of thing each is."""
    folder = Path(f"/proc/{pid}/fd")
    found = []
    for entry in folder.iterdir():
        try:
            found.append(f"{entry.name} {os.readlink(entry)}")  # noqa: PTH115
        except FileNotFoundError:
            continue
    return tuple(sorted(found))
