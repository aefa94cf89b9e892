"""What an engine and its workers say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grader.limits import Limits
from grader.sandbox.factory import CellSource
from grader.suites.task import Suite, Task
from grader.worker.grading import Policy
from grader.worker.program import Program


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to a worker. ``suite`` has no tasks: they come with the jobs that need them."""

    suite: Suite
    cache: Path
    cells: CellSource
    limits: Limits
    policy: Policy


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make the bundle of a task. ``number`` names the job in the answer; ``attempts`` counts this one."""

    number: int
    task: Task
    attempts: int


@dataclass(frozen=True, slots=True)
class Grade:
    """Grade a program. ``number`` names the job in the answer; ``attempts`` counts this one."""

    number: int
    program: Program
    task: Task
    attempts: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has its cell."""

    stamp: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Job ``number`` is done: a bundle was made, or ``error`` says why not (a SuiteError's text)."""

    number: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Graded:
    """The verdict on job ``number``."""

    number: int
    verdict: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot go on; ``kind`` is the class of a GraderError."""

    kind: str
    text: str


Job = Prepare | Grade
