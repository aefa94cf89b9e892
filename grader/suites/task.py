"""A suite and what is in it, as plain data. Loaders make these; nothing here runs a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

ComparisonKind = Literal[
    "evalplus", "set", "not_none", "polynomial_root", "alternative", "exact", "close", "benchmark"
]
StdioComparison = Literal["exact", "whitespace", "float", "benchmark", "codecontests"]


@dataclass(frozen=True)
class Comparison:
    """How an answer is held against the expected one.

    ``evalplus``: equal in Python's sense, or, where a tolerance is in force, of the same type and close.
    ``set``: equal as sets of elements. ``not_none``: expected is a bool that says whether the answer is
    something else than None. ``polynomial_root``: the answer is a root of the polynomial in the first
    argument, to within ``atol``. ``alternative``: as ``evalplus``, or right by the oracle named in
    ``oracle``. ``exact``: equal in Python's sense. ``close``: numbers anywhere inside the answer within
    ``atol + rtol * abs(expected)``, everything else exact. ``benchmark``: as the graders of APPS, TACO and
    LiveCodeBench do, see ``grader.judge.benchmark``.
    """

    kind: ComparisonKind = "exact"
    atol: float = 0.0
    rtol: float = 1e-7
    oracle: str | None = None


@dataclass(frozen=True)
class FunctionTests:
    """Calls of the entry point. Inputs are parsed on demand: some suites hold megabytes for a task.

    ``inputs()`` gives one argument list a test. ``expected()`` gives one value a test, or ``expected`` is
    None and the values are made by running the reference.
    """

    inputs: Callable[[], Sequence[Sequence[Any]]]
    expected: Callable[[], Sequence[Any]] | None = None


@dataclass(frozen=True)
class StdioTest:
    """One run of the whole program: what it reads, and what it must print (None: what the reference prints)."""

    stdin: str
    stdout: str | None = None


@dataclass(frozen=True)
class StdioTests:
    """Runs of the whole program, compared by what it prints; ``atol`` is for the ``float`` comparison."""

    tests: Sequence[StdioTest]
    comparison: StdioComparison = "whitespace"
    atol: float = 1e-6


@dataclass(frozen=True)
class AssertionTests:
    """Test source that calls the candidate, run in a process that the candidate cannot reach.

    Each of ``tests`` is one test: Python statements that raise where the candidate is wrong. ``setup`` runs
    before them, once. Names of the reference program (helpers of the prompt) may be used in both; the
    entry point is replaced by a stand-in that calls the candidate. So is, where the candidate defines it, each
    class of the reference in ``argument_classes``: one that the tests only make arguments of.
    """

    tests: Sequence[str]
    setup: str = ""
    argument_classes: tuple[str, ...] = ()


Tests = FunctionTests | StdioTests | AssertionTests


@dataclass(frozen=True)
class TestGroup:
    """A named group of tests of one task, e.g. ``base`` or ``plus``."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    name: str
    tests: Tests


@dataclass(frozen=True)
class Task:
    """One problem.

    ``reference`` is a whole program that solves it ("" where a suite has none); ``prompt`` is what a model was
    shown, and what a bare completion continues; ``entry_point`` is "" for whole-program (stdio) tasks, and
    ``Solution.name`` for a method of that class or, where a program has no such class, the function of that name.
    """

    task_id: str
    prompt: str
    entry_point: str
    reference: str
    groups: tuple[TestGroup, ...]
    comparison: Comparison = field(default_factory=Comparison)


@dataclass(frozen=True)
class Suite:
    """A versioned set of tasks. ``sha256`` is that of the file's bytes: a changed file is a different suite."""

    name: str
    version: str
    sha256: str
    tasks: Mapping[str, Task]

    @cached_property
    def group_names(self) -> tuple[str, ...]:
        """The names of the tasks' test groups, in their order."""
        return tuple(dict.fromkeys(group.name for task in self.tasks.values() for group in task.groups))
