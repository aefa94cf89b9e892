"""A worker that does nothing: every program passes, at once. For measuring what is in front of the workers.

``in_place`` has the local engine start such workers in place of real ones; all else of it is as it always is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grader.status import Status
from grader.worker.link import Link
from grader.worker.messages import Grade, Graded, Ready, Report

STAMP = {"backend": "none", "layers": ()}


def in_place() -> None:
    """Have the local engines of this process start workers that do nothing. Expected answers have to be there."""
    from grader.engines import child

    folder = str(Path(__file__).parent)
    child._START_WORKER = f"import sys; sys.path.insert(0, {folder!r}); from noop_worker import main; main()"


def verdict_of(job: Grade) -> dict[str, Any]:
    """The verdict on a program that passes."""
    chosen = [group.name for group in job.task.groups if group.name in (job.policy.groups or (group.name,))]
    names = chosen if job.part is None else [job.part.group]
    total = 1 if job.part is None else job.part.end - job.part.begin
    outcome = {"status": Status.PASSED.value, "passed": total, "total": total, "first_failed": None}
    return {
        "task_id": job.program.task_id,
        "sample_id": job.program.sample_id,
        "status": Status.PASSED.value,
        "passed": True,
        "groups": dict.fromkeys(names, outcome),
        "reward": 1.0,
        "cpu_s": 0.001,
        "wall_s": 0.001,
        "peak_memory_bytes": 10_000_000,
        "error": None,
        "stdout_tail": "",
        "sandbox": STAMP,
        "cached": False,
        "attempts": job.attempts,
        "extraction": job.program.how,
    }


def main() -> None:
    """Serve an engine on standard input and output."""
    link = Link(0, 1)
    batches: list[list[Any]] = []
    while not link.closed and not batches:
        batches = link.receive()
    link.send([Ready(dict(STAMP))])
    batches = [batch[1:] if number == 0 else batch for number, batch in enumerate(batches)]
    while not link.closed:
        reports = list(_reports(batches))
        if reports:
            link.send(reports)
        batches = link.receive()


def _reports(batches: list[list[Any]]) -> Iterator[Report]:
    for batch in batches:
        for job in batch:
            if isinstance(job, Grade):
                yield Graded(job.number, verdict_of(job))
