"""What a worker asks of its cell, and how: one run, and what to do with what comes back.

Grading a sample is a conversation of one or more runs. It is written as a generator that yields a ``RunRequest`` and
is sent the run's ``Done``; the loop that owns the cell can so keep several samples going.
"""

from __future__ import annotations

import marshal
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from grader.judge.verdict import Ending
from grader.limits import Limits
from grader.sandbox.cell import Done, RunLimits

Result = TypeVar("Result")
Conversation = Generator["RunRequest", Done, Result]


# A line that imports a module of grader.sandbox.runner.library; a program can be wrong about it and only be slower.
_IMPORTS_LIBRARY = re.compile(
    r"^[ \t]*(?:from|import)[ \t][^#\n]*\b"
    r"(?:array|contextlib|copy|dataclasses|datetime|decimal|fractions|hashlib|json|statistics)\b",
    re.MULTILINE,
).search


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One run. ``on_data`` takes each piece of the answer stream and returns True to have the run killed;
    ``on_output`` takes what a whole program prints."""

    payloads: tuple[dict[str, Any], ...]
    limits: RunLimits
    group_sizes: tuple[int, ...]
    on_data: Callable[[bytes], bool]
    memory_bytes: int
    whole_program: bool = False
    on_output: Callable[[bytes], object] = bytes

    @property
    def zygote(self) -> str:
        """Which zygote forks it: what takes long to import, it has imported already."""
        source = self.payloads[0]["source"]
        return "numpy" if "numpy" in source else "library" if _IMPORTS_LIBRARY(source) else "plain"

    def encoded(self, limits: Limits, address_space: int, *, exact_clocks: bool = True) -> tuple[bytes, ...]:
        """Marshal the payloads for the sample processes; without ``exact_clocks`` they do not time themselves."""
        own = {"threads": limits.threads, "tmp_bytes": limits.tmp_bytes, "address_space": address_space}
        tests: dict[str, Any] = {"test_s": float("inf"), "tests_s": {}}
        if exact_clocks:
            tests = {"test_s": self.limits.test_s, "tests_s": self.limits.tests}
        return tuple(marshal.dumps({**payload, **tests, "limits": own}) for payload in self.payloads)


@dataclass(slots=True)
class Usage:
    """What the runs of one sample used together."""

    cpu_s: float = 0.0
    idle_s: float = 0.0
    wall_s: float = 0.0
    peak_memory_bytes: int = 0
    stdout_tail: str = ""

    def add(self, done: Done) -> None:
        """Count a run."""
        self.cpu_s += done.cpu_s
        self.idle_s += done.idle_s
        self.wall_s += done.wall_s
        self.peak_memory_bytes = max(self.peak_memory_bytes, done.peak_memory_bytes)
        self.stdout_tail = done.stdout_tail.decode("utf-8", "replace") or self.stdout_tail


def collect_into(buffer: bytearray, *, stop_above: int | None = None) -> Callable[[bytes], bool]:
    """Return an ``on_data`` that keeps everything, and stops the run above so many bytes."""

    def keep(data: bytes) -> bool:
        if stop_above is not None and len(buffer) > stop_above:
            return True
        buffer.extend(data)
        return stop_above is not None and len(buffer) > stop_above

    return keep


# A program that is stopped for its time with so much of its memory in use is as a rule one that fills memory without
# end. Which of the two limits it meets first depends on how fast a kernel hands out pages: a list that grows by one
# item at a time takes about 4 s to fill 1 GiB, so that either would be named by chance.
_FILLING = 0.25


def ending_of(done: Done, memory_bytes: int) -> Ending:
    """The facts of a run's end that the judge needs; ``memory_bytes`` was the run's limit."""
    filled = done.ended == "cpu_limit" and done.peak_memory_bytes >= _FILLING * memory_bytes
    return Ending(done.ended, done.code, done.signal, done.memory_kill or filled)


def run_limits(
    limits: Limits, tests: dict[int, float], *, load_s: float | None = None, reference_s: float = 0.0
) -> RunLimits:
    """Limits of a run in which the tests named have more time than the floor; ``reference_s`` is what the reference
    needed for all of them. A whole program has one step, of ``load_s`` seconds, and its group at least as many."""
    return RunLimits(
        load_s=load_s or limits.test_time_s(0.0),
        test_s=limits.test_time_s(0.0),
        tests=tests,
        group_s=max(limits.whole_group_time_s(reference_s), load_s or 0.0),
        idle_s=limits.idle_s,
        answer_bytes=limits.answer_bytes,
        stdout_bytes=limits.stdout_bytes,
    )


def function_payload(
    source: str,
    entry_point: str,
    inputs: bytes,
    *,
    stop_at_error: bool,
    full: bool = False,
    timing: bool = False,
) -> dict[str, Any]:
    """The payload of a function run; see ``grader.sandbox.runner.function``."""
    return {
        "mode": "function",
        "source": source,
        "entry_point": entry_point,
        "inputs": inputs,
        "stop_at_error": stop_at_error,
        "full": full,
        "timing": timing,
    }
