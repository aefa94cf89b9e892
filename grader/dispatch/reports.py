"""What workers report, as the state machine is told of it."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from grader.dispatch import events
from grader.worker.messages import Graded, Lost, Prepared, Ran


class Reports:
    """Turns reports into events, and keeps their results until they are delivered.

    ``wanted`` has the numbers of the jobs whose results are waited for.
    """

    def __init__(self, wanted: Container[int]) -> None:
        self._wanted = wanted
        self._results: dict[int, Any] = {}

    def event(self, worker: str, report: object) -> events.Event | None:
        """Return what a report is to the state machine; None for one that it need not know."""
        if isinstance(report, Graded):
            verdict = report.verdict
            occupied_s = _occupied_s(verdict["cpu_s"], verdict["wall_s"])
            return self._finished(worker, report.number, verdict, occupied_s)
        if isinstance(report, Ran):
            ran = report.executed
            return self._finished(worker, report.number, ran, _occupied_s(ran.cpu_s, ran.wall_s))
        if isinstance(report, Prepared):
            return self._finished(worker, report.number, report.error, 0.0)
        if isinstance(report, Lost):
            return events.Lost(worker, report.number, report.blamed, report.why)
        return None

    def result(self, number: int) -> Any:
        """Return what was reported of a job since the results were last forgotten, or None."""
        return self._results.get(number)

    def forget(self) -> None:
        """Forget the results."""
        self._results.clear()

    def _finished(self, worker: str, number: int, result: object, occupied_s: float) -> events.Event | None:
        if number not in self._wanted:
            return None
        self._results[number] = result
        return events.Finished(worker, number, occupied_s)


def _occupied_s(cpu_s: float, wall_s: float) -> float:
    """For how long a program had its worker: several threads can use more CPU time than passes."""
    return max(cpu_s, wall_s)
