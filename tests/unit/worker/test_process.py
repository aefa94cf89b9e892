"""A worker's loop, with a cell that is a list: what is started when, and who is told of a loss."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from grader.errors import CellLostError
from grader.limits import GIB, Limits
from grader.sandbox.cell import Done
from grader.worker.execution import Execution
from grader.worker.messages import Cancel, Execute, Lost, Ran
from grader.worker.process import Worker


class ListedCell:
    """Notes what it is told to run; ``ends`` are the runs that have ended since."""

    backend, layers, exact_clocks, address_space = "list", (), True, 0
    reader, writers, wake_s = -1, (), None

    def __init__(self):
        self.runs, self.killed, self.ends, self.memory, self.lost = [], [], [], GIB, None

    def start_run(self, payloads, limits, **_options):
        self.runs.append((len(self.runs) + 1, self.memory))
        return len(self.runs)

    def set_memory_limit(self, limit):
        self.memory = limit

    def kill_run(self, run):
        if self.lost:
            raise self.lost
        self.killed.append(run)

    def receive(self, _timeout_s):
        if self.lost:
            raise self.lost
        ends, self.ends = self.ends, []
        return [Done(run, "exited", 0, 0, 0, 0.0, 0.0, 0, b"", b"", memory_kill=False) for run in ends]

    def close(self):
        pass


@pytest.fixture
def worker():
    cells = []

    def make(_limits):
        cells.append(ListedCell())
        return cells[-1]

    setup = SimpleNamespace(limits=Limits(), cells=SimpleNamespace(make=make))
    worker = Worker(SimpleNamespace(closed=False), setup)
    worker._reports.clear()
    worker.cells = cells
    return worker


def give(worker, *jobs):
    worker._obey(list(jobs))
    worker._guarded(worker._start_waiting)


def program(number, memory_bytes=GIB):
    return Execute(number, Execution(f"print({number})"), Limits(memory_bytes=memory_bytes))


def hear(worker, *runs):
    worker._cell.ends += runs
    worker._guarded(worker._hear_cell)


def test_a_run_with_another_memory_limit_waits_for_those_in_flight(worker):
    cell = worker._cell
    give(worker, program(1), program(2, 2 * GIB), program(3))
    assert cell.runs == [(1, GIB)]
    hear(worker)
    assert cell.runs == [(1, GIB)]
    hear(worker, 1)
    assert cell.runs == [(1, GIB), (2, 2 * GIB)]
    hear(worker, 2)
    assert cell.runs == [(1, GIB), (2, 2 * GIB), (3, GIB)]
    hear(worker, 3)
    assert [report.number for report in worker._reports if isinstance(report, Ran)] == [1, 2, 3]


def test_a_run_that_is_cancelled_while_it_waits_for_memory_is_not_started(worker):
    give(worker, program(1), program(2, 2 * GIB))
    give(worker, Cancel((2,)))
    hear(worker, 1)
    assert worker._cell.runs == [(1, GIB)]
    assert worker._held == worker._waiting  # both are empty


def test_a_cancellation_that_meets_a_dead_cell_ends_no_worker(worker):
    give(worker, program(1), program(2))
    worker._cell.lost = CellLostError("gone", blamed=True)
    give(worker, Cancel((1,)))
    hear(worker)
    assert len(worker.cells) == 2


def test_the_run_that_a_cell_was_at_is_told_as_lost_and_the_next_one_goes_on(worker):
    give(worker, program(1), program(2))
    worker._cell.lost = CellLostError("gone", blamed=True)
    hear(worker)
    assert [(report.number, report.blamed) for report in worker._reports] == [(1, True)]
    assert worker._cell.runs == [(1, GIB)]
    hear(worker, 1)
    assert isinstance(worker._reports[-1], Ran)
    assert worker._reports[-1].number == 2


def test_nobody_is_blamed_for_a_cell_that_a_cancelled_run_took_down(worker):
    give(worker, program(1), program(2, 2 * GIB))
    give(worker, Cancel((1,)))
    worker._cell.lost = CellLostError("gone", blamed=True)
    hear(worker)
    assert not [report for report in worker._reports if isinstance(report, Lost)]
    assert worker._cell.runs == [(1, 2 * GIB)]
