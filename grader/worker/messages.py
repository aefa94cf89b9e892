"""What an engine and its workers say to each other.

None of it has slots: pickle writes and reads an object's dictionary in C, and slots of a frozen class in Python.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from grader.limits import Limits
from grader.sandbox.factory import CellSource
from grader.suites.task import Task
from grader.worker.execution import Executed, Execution
from grader.worker.grading import Policy
from grader.worker.parts import Part
from grader.worker.program import Program


@dataclass(frozen=True)
class Setup:
    """The first message to a worker. ``limits`` are those that its cell is made with."""

    cache: Path
    cells: CellSource
    limits: Limits


@dataclass(frozen=True)
class Prepare:
    """Make the bundle of a task of the suite with this sha256. ``number`` names the job in the answer.

    ``limits``: what the reference may use.
    """

    number: int
    task: Task
    suite_sha256: str
    limits: Limits


@dataclass(frozen=True)
class TravellingTask(Task):
    """A task that goes with many jobs. Unless it is long it is pickled once, and a worker reads it once; what the
    worker has is a plain ``Task``."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how it is pickled: as what it has been pickled to, or field by field."""
        return (Task, self._fields()) if self.kept is None else (_read, (self.kept,))

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(Task))

    @cached_property
    def kept(self) -> bytes | None:
        """What it has been pickled to; None where that is long."""
        data = pickle.dumps(Task(*self._fields()))
        return data if len(data) <= _KEPT_BYTES else None


_KEPT_BYTES, _KEPT_TASKS = 1 << 15, 256


@lru_cache(_KEPT_TASKS)
def _read(pickled: bytes) -> Task:
    task: Task = pickle.loads(pickled)  # noqa: S301 - trusted, see grader.worker.link
    return task


@dataclass  # not frozen: that takes twice as long to make, and there is one a sample
class Grade:
    """Grade a program, or one part of its tests. ``number`` names the job in the answer. It is not changed.

    The task comes without the inputs and answers that its bundle has. ``attempts`` counts this one.
    """

    number: int
    program: Program
    task: Task
    suite_sha256: str
    policy: Policy
    part: Part | None = None
    attempts: int = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how it is pickled: all of it at once, which takes a third of what an object in an object takes."""
        program, task = self.program, self.task
        kept = task.kept if isinstance(task, TravellingTask) else None
        return _grade, (
            self.number,
            (program.task_id, program.sample_id, program.source, program.how),
            kept or task,
            self.suite_sha256,
            self.policy,
            self.part,
            self.attempts,
        )


def _grade(number: int, program: tuple[str, str, str, str | None], task: Task | bytes, *more: Any) -> Grade:
    return Grade(number, Program(*program), _read(task) if isinstance(task, bytes) else task, *more)


@dataclass(frozen=True)
class Execute:
    """Run a program and say what it did. ``number`` names the job in the answer."""

    number: int
    execution: Execution
    limits: Limits


@dataclass(frozen=True)
class Cancel:
    """Stop these jobs, or do not begin them; nothing more is said of them."""

    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Ready:
    """The worker has its cell."""

    stamp: dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """Job ``number`` is done: a bundle was made, or ``error`` says why not (a SuiteError's text)."""

    number: int
    error: str = ""


@dataclass(frozen=True)
class Graded:
    """The verdict on job ``number``."""

    number: int
    verdict: dict[str, Any]


@dataclass(frozen=True)
class Ran:
    """What the program of job ``number`` did."""

    number: int
    executed: Executed


@dataclass(frozen=True)
class Lost:
    """The cell that ran job ``number`` is gone; ``blamed``: the job's program took it down."""

    number: int
    blamed: bool
    why: str


@dataclass(frozen=True)
class Alive:
    """The worker has nothing to say, and goes on."""


@dataclass(frozen=True)
class Failed:
    """The worker cannot go on; ``kind`` is the class of a GraderError."""

    kind: str
    text: str


Job = Prepare | Grade | Execute
Report = Ready | Prepared | Graded | Ran | Lost | Alive | Failed
