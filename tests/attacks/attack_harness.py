"""One engine, one worker, one cell, and what must be the same about them after every attack."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from attack_backends import Backend, Inside, cpu_of, differences, look_inside, memory_of_group
from attack_programs.model import Attack, suite

from grader.dispatch.blocking import BlockingEngine
from grader.engines.local import LocalPool
from grader.sandbox import cgroup
from grader.sandbox.runner.pace import MOST
from grader.worker.program import Program

MIB = 1 << 20
MAX_GROWTH = 16 * MIB
MAX_LEFT = 8 * MIB
"""Bytes that may be charged to a cell's control group after an attack beyond those of before: what the kernel keeps."""
MAX_GRADER_CPU_S = 2.0
"""CPU seconds that judging one attack may cost, worker and supervisor together."""

# Passes only where nothing of an earlier sample can be seen.
WITNESS = """
DEVICES = {"null", "zero", "full", "random", "urandom"}
import ctypes, gc, os, random, signal, stat, sys, threading

def clean():
    assert os.listdir("/tmp") == [], os.listdir("/tmp")
    assert os.getcwd() == "/tmp"
    assert stat.S_IMODE(os.stat("/tmp").st_mode) == 0o700
    assert os.statvfs("/tmp").f_bfree * os.statvfs("/tmp").f_bsize >= (15 << 20)
    assert os.listdir("/dev") and set(os.listdir("/dev")) <= DEVICES, os.listdir("/dev")
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

# By user ids: the process ids and the /tmp of the cell, and folders that may not be listed.
_BY_USER = (
    ('assert os.listdir("/dev") and set(os.listdir("/dev")) <= DEVICES, os.listdir("/dev")', "pass"),
    ("== 0o700", "== 0o1777"),
    ("assert os.getpid() == 1", "pass"),
)
_GVISOR_DEVICES = (
    '"urandom"}',
    '"urandom", "fd", "fuse", "net", "ptmx", "pts", "shm", "stdin", "stdout", "stderr", "tty"}',
)


class Harness:
    """Grades attacks one after the other in one cell."""

    def __init__(self, backend: Backend, cache: Path) -> None:
        self.backend = backend
        self._pool = LocalPool(limits=backend.limits, workers=1, cells=backend.cells)
        self._engine = BlockingEngine(self._pool, suite(), limits=backend.limits)
        self.witness = WITNESS if backend.host_sees_samples else WITNESS.replace(*_GVISOR_DEVICES)
        for usual, here in _BY_USER if backend.isolation == "uids" else ():
            assert usual in WITNESS
            self.witness = self.witness.replace(usual, here)
        self._cache = cache
        self._count = 0

    def __enter__(self) -> Harness:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRADER_CACHE_DIR", str(self._cache))
            if (
                not self.backend.control_groups
            ):  # this process finds out for its workers whether there are any
                patch.setattr(cgroup, "unavailable_reason", lambda: "none is wanted")
            self._engine.__enter__()
        held_by = {layer for layer in self.layers if layer.startswith("memory_")}
        assert ("memory_rlimit" not in held_by) == (
            self.backend.control_groups and self.backend.host_sees_samples
        )
        self._warm_up()
        self._memory = self.worker_memory()
        self._group_memory = self._memory_of_cell(self.state())
        return self

    def _warm_up(self) -> None:
        """Have a cell make everything that it makes on first use."""
        for imported in ("ctypes", "ctypes, numpy", "ctypes, json"):  # by a zygote each
            source = self.witness.replace("import ctypes", f"import {imported}")
            self.must_be_clean(self.grade(source))
            self.grade(source, "Attacked/asserted")  # by a zygote for calls, whatever comes of it
        self.must_be_clean(self.grade(self.witness))

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

    def state(self) -> Inside:
        """Return what is the same before and after an attack."""
        return look_inside(self.backend, self.worker)

    def grader_cpu_s(self, inside: Inside) -> float:
        """CPU seconds that worker, supervisor and zygotes have used so far, without the samples'.

        Of processes in a kernel of their own nothing is known here: then it is the worker alone.
        """
        seen = inside.processes if self.backend.host_sees_samples else ()
        return sum(cpu_of(pid) for pid in (self.worker, *seen))

    def worker_memory(self) -> int:
        """Bytes resident in the worker."""
        for line in Path(f"/proc/{self.worker}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the worker is gone")

    def grown(self) -> int:
        """How many bytes the worker has grown since it was warm."""
        return self.worker_memory() - self._memory

    def _memory_of_cell(self, inside: Inside) -> int:
        """Bytes charged to the cell's group; 0 where there is none, or one that is gVisor's kernel's."""
        return (memory_of_group(inside) or 0) if self.backend.host_sees_samples else 0

    def _cell_keeps(self, inside: Inside, before: int, most: int) -> bool:
        """Whether the cell's group goes on to have more than ``most`` bytes more than before: the kernel frees some of
        it late, on a busy machine by seconds."""
        until = time.monotonic() + 30
        while self._memory_of_cell(inside) - before > most:
            if time.monotonic() > until:
                return True
            time.sleep(0.05)
        return False

    @staticmethod
    def must_be_clean(verdict: dict[str, Any]) -> None:
        """Fail unless an honest program passed."""
        assert verdict["passed"], (verdict["status"], verdict["error"])
        assert verdict["attempts"] == 1

    @staticmethod
    def must_be_harmless_text(error: dict[str, Any] | None) -> None:
        """Fail where an error's words, which go into terminals, logs and JSON, are long or have control characters."""
        for name, longest in (("type", 100), ("message", 300)) if error else ():
            text = error[name]
            assert len(text) <= longest, f"{name} of {len(text)} characters"
            assert all(letter.isprintable() or letter == "\n" for letter in text), f"{name} {text!r}"

    def withstand(self, attack: Attack) -> dict[str, Any]:
        """Grade an attack; fail if it passes, or leaves or breaks anything."""
        try:
            return self._withstand(attack)
        except AssertionError:
            self.grade(self.witness)  # a cell that is lost may be noticed by the next sample only
            self._warm_up()  # the next attack fails for what it does itself, not for a fresh cell after this one
            raise

    def _withstand(self, attack: Attack) -> dict[str, Any]:
        before, memory_before = self.state(), self.worker_memory()
        left_before = self._memory_of_cell(before)
        cpu_before = self.grader_cpu_s(before)
        verdict = self.grade(attack.source, attack.task)
        cpu = self.grader_cpu_s(before) - cpu_before
        assert verdict["status"] in self.backend.statuses(attack), (
            verdict["status"],
            verdict["error"],
            verdict["stdout_tail"],
        )
        self.must_be_harmless_text(verdict["error"])
        assert verdict["attempts"] == 1, "it cost the cell"
        assert verdict["cpu_s"] <= attack.steps * self.backend.limits.time_floor_s * MOST + 1.0
        # Who reads a flood works as long as the program does that writes it.
        reading = 2 * verdict["cpu_s"] if "flood" in attack.name else 0.0
        bound = MAX_GRADER_CPU_S + reading
        assert cpu <= bound, f"judging it cost {cpu:.1f} CPU seconds"
        self.must_be_clean(self.grade(self.witness))
        if self.backend.keeps_cell(attack):
            after = self.state()
            assert after == before, differences(before, after)
            assert not self._cell_keeps(before, left_before, MAX_LEFT), "memory is left in the cell"
            assert not self._cell_keeps(before, self._group_memory, 2 * MAX_LEFT), "small steps"
        else:
            self._warm_up()
        assert self.worker_memory() - memory_before <= MAX_GROWTH
        assert self.grown() <= 2 * MAX_GROWTH, "small steps"
        return verdict
