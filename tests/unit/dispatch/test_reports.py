"""What a report of a worker is to the state machine."""

from __future__ import annotations

import pytest

from grader.dispatch.events import Finished
from grader.dispatch.reports import Reports
from grader.worker.execution import Executed
from grader.worker.messages import Graded, Ran


@pytest.mark.parametrize(
    ("cpu_s", "wall_s", "occupied_s"),
    [(0.2, 0.3, 0.3), (0.0, 8.0, 8.0), (4.0, 1.0, 4.0)],
    ids=["computes", "waits", "has several threads"],
)
def test_a_program_costs_what_it_kept_its_worker_from_others(
    cpu_s: float, wall_s: float, occupied_s: float
) -> None:
    """Else a tenant whose programs sleep would have nearly all workers for nearly nothing."""
    reports = Reports({1, 2})
    graded = Graded(1, {"cpu_s": cpu_s, "wall_s": wall_s})
    executed = Ran(2, Executed("exited", 0, 0, b"", b"", cpu_s, wall_s, 0))
    assert reports.event("w", graded) == Finished("w", 1, occupied_s)
    assert reports.event("w", executed) == Finished("w", 2, occupied_s)
