"""Limits on what one sample may use. Times are CPU seconds unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from grader.errors import InputError

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """What one sample may use before it is stopped.

    The limit of one test is ``max(time_floor_s, time_factor * reference_cpu_s)``: EvalPlus's rule, on CPU time
    (of a processor at its fastest: see ``sandbox.runner.pace``). ``group_time_s`` bounds a whole test group (EvalPlus:
    ``EVALPLUS_TIMEOUT_PER_TASK``, 60 s), and is ``time_factor`` times what the reference needs for the task where that
    is more. ``idle_s`` is the backstop for sleepers: seconds in which the program neither runs nor waits for a
    processor, so that a loaded machine does not use it up; None means the limit of the test at hand.
    ``memory_bytes`` is a floor like ``time_floor_s``: a task whose reference needs more than half of it has twice what
    the reference needs.
    """

    time_floor_s: float = 4.0
    time_factor: float = 4.0
    group_time_s: float = 60.0
    idle_s: float | None = None
    memory_bytes: int = GIB
    answer_bytes: int = 64 * MIB
    stdout_bytes: int = 64 * 1024
    threads: int = 64
    tmp_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise InputError(f"limit {field.name} is {value!r}; give a number above 0")

    def within(self, ceiling: Limits) -> Limits:
        """Return these limits, each lowered to the operator's ceiling where it exceeds that."""
        lowered = {
            field.name: top if (mine := getattr(self, field.name)) is None else min(mine, top)
            for field in fields(self)
            if (top := getattr(ceiling, field.name)) is not None
        }
        return replace(self, **lowered)

    def whole_group_time_s(self, reference_cpu_s: float) -> float:
        """CPU seconds that a test group may use as a whole, given what the reference needed for it."""
        return max(self.group_time_s, self.time_factor * reference_cpu_s)

    def sample_memory_bytes(self, reference_bytes: int) -> int:
        """Bytes that a sample may use, given the reference's peak: a right program may need as much, twice over."""
        return max(self.memory_bytes, 2 * reference_bytes)

    def longer_test_times_s(self, reference_cpu_s: Sequence[float]) -> dict[int, float]:
        """CPU seconds of those tests, by index, that may use more than the floor, given what the reference needed."""
        within_floor = self.time_floor_s / self.time_factor
        return {
            index: self.test_time_s(needed)
            for index, needed in enumerate(reference_cpu_s)
            if needed > within_floor
        }

    def test_time_s(self, reference_cpu_s: float) -> float:
        """CPU seconds that one test may use, given what the reference needed for it."""
        return max(self.time_floor_s, self.time_factor * reference_cpu_s)
