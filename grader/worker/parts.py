"""Grading a sample in parts, on several workers at once, where its task's reference alone needs seconds.

Without this, the wall-clock time of a small set is that of its one longest sample. A task is always cut in the same
way, whatever the number of workers, and the parts are put together to what grading them in a row would have found: the
first failing test decides. Only with ``fail_fast``: otherwise the tests after a crash would count, which they do not
where one process runs them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grader.status import Status

VerdictFields = dict[str, Any]

# CPU seconds of the reference. The first part is short, because most wrong programs fail at one of the first tests,
# and nothing else is run before it has passed.
_FIRST_PART_S = 0.5
_PART_S = 2.0
_WORTH_IT_S = 4.0


@dataclass(frozen=True)
class Part:
    """Tests ``begin`` to ``end`` (not included) of one group."""

    group: str
    begin: int
    end: int


def parts_of(groups: Sequence[tuple[str, Sequence[float]]]) -> tuple[Part, ...]:
    """Cut a task by what its reference needs, in CPU seconds a test, for each group; () if it is not worth it."""
    if sum(sum(times) for _, times in groups) < _WORTH_IT_S or not all(times for _, times in groups):
        return ()
    parts: list[Part] = []
    for name, times in groups:
        begin, seconds = 0, 0.0
        for index, time_s in enumerate(times):
            seconds += time_s
            if seconds >= (_PART_S if parts else _FIRST_PART_S):
                parts.append(Part(name, begin, index + 1))
                begin, seconds = index + 1, 0.0
        if begin < len(times):
            parts.append(Part(name, begin, len(times)))
    return tuple(parts) if len(parts) > 1 else ()


@dataclass(slots=True)
class Assembly:
    """The verdict on a sample that is graded in parts, as it comes together."""

    parts: Sequence[Part]
    totals: Mapping[str, int]
    group_limit_s: float
    found: dict[int, VerdictFields] = field(default_factory=dict)

    @property
    def first_wave(self) -> Sequence[int]:
        """The parts to grade at first."""
        return (0,)

    def add(self, index: int, verdict: VerdictFields) -> Sequence[int]:
        """Take the verdict on a part; return the parts to grade next."""
        self.found[index] = verdict
        return range(1, len(self.parts)) if index == 0 and verdict["passed"] else ()

    @property
    def unwanted(self) -> range:
        """The parts after the first that failed: whatever they say, it does not count."""
        failed = [index for index, one in self.found.items() if not one["passed"]]
        return range(min(failed, default=len(self.parts)) + 1, len(self.parts))

    def verdict(self) -> VerdictFields | None:
        """Return the verdict on the sample as soon as it is certain, else None."""
        groups: dict[str, dict[str, Any] | None] = dict.fromkeys(self.totals)
        taken: list[VerdictFields] = []
        group_s = dict.fromkeys(self.totals, 0.0)
        for index, part in enumerate(self.parts):
            one = self.found.get(index)
            if one is None:
                return None
            taken.append(one)
            group_s[part.group] += one["cpu_s"]
            overtime = one["passed"] and group_s[part.group] > self.group_limit_s
            if one["status"] == Status.INFRASTRUCTURE_ERROR:
                return self._together(taken, dict.fromkeys(self.totals), one["status"])
            groups[part.group] = self._added(groups[part.group], part, one, overtime)
            if overtime or not one["passed"]:
                return self._together(taken, groups, Status.TIME_LIMIT.value if overtime else one["status"])
        return self._together(taken, groups, Status.PASSED.value)

    def _added(
        self, before: dict[str, Any] | None, part: Part, one: VerdictFields, overtime: bool
    ) -> dict[str, Any]:
        passed = before["passed"] if before else 0
        result = one["groups"][part.group]
        total = self.totals[part.group]
        if overtime:  # somewhere in this part: its first test stands for all of them
            return {
                "status": Status.TIME_LIMIT.value,
                "passed": passed,
                "total": total,
                "first_failed": part.begin,
            }
        first = None if result["first_failed"] is None else part.begin + result["first_failed"]
        passed += result["passed"]
        return {"status": result["status"], "passed": passed, "total": total, "first_failed": first}

    @staticmethod
    def _together(
        taken: Sequence[VerdictFields], groups: Mapping[str, dict[str, Any] | None], status: str
    ) -> VerdictFields:
        last, passed = taken[-1], status == Status.PASSED
        return {
            **last,
            "status": status,
            "passed": passed,
            "groups": dict(groups),
            "reward": None if status == Status.INFRASTRUCTURE_ERROR else float(passed),
            "cpu_s": round(sum(one["cpu_s"] for one in taken), 6),
            "wall_s": round(sum(one["wall_s"] for one in taken), 6),
            "peak_memory_bytes": max(one["peak_memory_bytes"] for one in taken),
            "attempts": max(one["attempts"] for one in taken),
        }
