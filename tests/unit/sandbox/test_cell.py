"""What a cell makes of the report of a run, beside the kernel's count of those that it killed for want of memory."""

from __future__ import annotations

import json
import struct
from types import SimpleNamespace

import pytest

from grader.errors import CellLostError
from grader.sandbox.cell import Cell

KILLED = {"ended": "signalled", "signal": 9}


def report(**facts):
    whole = {"run": 1, "ended": "exited", "code": 0, "signal": 0, "driver_code": 0, "outside": False, "cpu_s": 0.0,
             "idle_s": 0.0, "wall_s": 0.0, "rss": 0, "slowness": 1.0, "stdout": 0} | facts  # fmt: skip
    text = json.dumps(whole).encode()
    return struct.pack("<I", len(text)) + text


def memory_kills_told(*runs):
    """Whether each run, given as its report and the kernel's count after it, is told to have been killed for memory."""
    cell = SimpleNamespace(_kills_seen=0, backend="a")
    cell._memory_killed_since = lambda: Cell._memory_killed_since(cell)
    told = []
    for facts, count in runs:
        cell.memory_kills = lambda count=count: count
        told.append(Cell._done(cell, report(**facts)).memory_kill)
    return told


def test_who_was_killed_for_want_of_memory_is_told_so_and_the_next_one_is_not():
    assert memory_kills_told((KILLED, 1), (KILLED, 1), (KILLED, 2)) == [True, False, True]


@pytest.mark.parametrize(
    "first",
    [
        {"ended": "cpu_limit", "signal": 9},
        {"ended": "output_limit", "signal": 9},
        {"ended": "cancelled", "signal": 9},
    ],
)
def test_a_kill_that_came_with_another_end_is_not_taken_for_the_next_runs(first):
    assert memory_kills_told((first, 1), (KILLED, 1)) == [False, False]


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("candidate", [KILLED, {"ended": "exited"}, {"ended": "exited", "code": 29}])
def test_a_driver_killed_for_want_of_memory_is_the_runs_end_however_its_candidate_ends(candidate, outside):
    """Else a candidate that fills the memory, and ends by itself when its driver is killed, has its sample graded again
    and again, and then reported as an infrastructure error."""
    run = candidate | {"driver_code": -9, "outside": outside}
    assert memory_kills_told((run, 1), (KILLED, 1)) == [True, False]


def test_a_process_killed_for_memory_while_it_is_set_up_is_at_its_limit():
    """It is the program's text that it has in memory by then."""
    being_set_up = {"ended": "not_started", "signal": 9}
    assert memory_kills_told((being_set_up, 1), (KILLED, 1)) == [True, False]
    with pytest.raises(CellLostError) as lost:
        memory_kills_told((being_set_up, 0))
    assert not lost.value.blamed
