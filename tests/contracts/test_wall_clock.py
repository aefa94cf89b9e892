"""The wall clock can be set at any moment. Who reads it is named here, with the reason why that does no harm."""

from __future__ import annotations

import ast
from pathlib import Path

import grader

ROOT = Path(grader.__file__).parent
WALL = {"time", "time_ns", "localtime", "gmtime", "strftime", "ctime"}
ALLOWED = {
    "client/steps.py": "Retry-After may be a date; how long that is waited for is bounded",
    "results.py": "the date in a file for people",
    "sandbox/cgroup.py": "the age of another PID namespace's empty group: at worst a starting cell is made again",
    "server/jobs/database.py": "how long jobs and keys are kept; leases and order bear a clock that is set",
    "server/jobs/store.py": "a part of a job's id, which its order goes by",
    "telemetry/metrics.py": "a timestamp that is shown",
    "telemetry/traces.py": "the times of spans",
    "worker/eviction.py": "which cached file is unused for longest; what is removed is made anew",
}


def reads_wall_clock(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and WALL & {one.name for one in node.names}
        ):
            return True
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
        if (owner == "time" and node.attr in WALL | {"CLOCK_REALTIME"}) or (
            owner in ("datetime", "date") and node.attr in ("now", "utcnow", "today")
        ):
            return True
    return False


def test_only_those_who_may_read_the_wall_clock() -> None:
    found = {
        str(file.relative_to(ROOT))
        for file in ROOT.rglob("*.py")
        if reads_wall_clock(ast.parse(file.read_text()))
    }
    assert found == set(ALLOWED)
