"""Running identical programs once.

Two programs of a task are the same program when their syntax trees are, without comments and docstrings and
where the program cannot see the difference (``program_identity``). If the first of them passed, so do the
others, and they get a copy of its verdict. Anything else is copied only between programs of the same text
(``exact_identity``): an error's message and line can differ where the syntax tree does not. An
infrastructure error says nothing about the program and is never copied, but for that of tests which are at fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from grader.extraction.identity import exact_identity, program_identity
from grader.status import Status
from grader.worker.grading import broken_tests
from grader.worker.program import Program

VerdictFields = dict[str, Any]
_Item = TypeVar("_Item")
Grade = Callable[[Iterable[Program]], Iterator[VerdictFields]]


@dataclass(slots=True)
class _Family:
    """Programs of one task with one identity: what is known of them, what runs, and what waits for that."""

    passed: VerdictFields | None = None
    failed: dict[str, VerdictFields] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    waiting: list[tuple[Program, str]] = field(default_factory=list)


class Deduplicator:
    """Decides for each program whether it runs, waits, or gets a copy; a pure state machine.

    Programs go in through :meth:`admit`, verdicts of the programs that ran through :meth:`settle`. What is
    to be done comes out of :attr:`copies` (verdicts that are done) and :attr:`runnable` (programs to run
    next). Each program that went in comes out as exactly one verdict, run or copied, once all that ran are
    settled.
    """

    def __init__(self, alone: Collection[str] = ()) -> None:
        self._alone = alone
        self.copies: deque[VerdictFields] = deque()
        self.runnable: deque[Program] = deque()
        self._families: dict[tuple[str, str], _Family] = {}
        self._by_text: dict[tuple[str, str], _Family] = {}
        self._running: dict[str, tuple[_Family, str]] = {}

    def admit(self, program: Program) -> None:
        """Take a program: it becomes runnable, or a copy, or waits for another one's verdict."""
        if program.task_id in self._alone:
            self.runnable.append(program)
            return
        try:
            exact = exact_identity(program.source)
            family = self._family(program, exact)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            # No syntax tree, or no encoding, for this one: it runs by itself.
            self.runnable.append(program)
            return
        self._place(family, program, exact)

    def settle(self, verdict: VerdictFields) -> None:
        """Take the verdict of a program that ran, and release those that waited for it."""
        family, exact = self._running.pop(verdict["sample_id"], (None, ""))
        if family is None:
            return
        family.running.discard(exact)
        if verdict["status"] == Status.PASSED:
            family.passed = verdict
        elif verdict["status"] != Status.INFRASTRUCTURE_ERROR or broken_tests(verdict) is not None:
            family.failed[exact] = verdict
        waiting, family.waiting = family.waiting, []
        for program, its_exact in waiting:
            self._place(family, program, its_exact)

    def _family(self, program: Program, exact: str) -> _Family:
        family = self._by_text.get((program.task_id, exact))
        if family is None:
            identity = (program.task_id, program_identity(program.source))
            family = self._by_text[program.task_id, exact] = self._families.setdefault(identity, _Family())
        return family

    def _place(self, family: _Family, program: Program, exact: str) -> None:
        known = family.passed or family.failed.get(exact)
        if known is not None:
            self.copies.append(_copy(known, program))
        elif exact in family.running or (family.running and not family.failed):
            # Once one of the family has failed, each other text has to run for its own error anyway.
            family.waiting.append((program, exact))
        else:
            family.running.add(exact)
            self._running[program.sample_id] = (family, exact)
            self.runnable.append(program)


def grade_once(
    grade: Grade, programs: Iterable[Program], alone: Collection[str] = ()
) -> Iterator[VerdictFields]:
    """Grade ``programs`` with ``grade`` (an engine's), running identical ones once; yields each verdict as
    it is known.

    ``programs`` is pulled as lazily as the engine pulls. The engine is asked again for programs that were
    released only when it had already been told that there are no more.
    """
    dedupe = Deduplicator(alone)
    source = iter(programs)
    while True:
        for verdict in grade(_runnable(dedupe, source)):
            dedupe.settle(verdict)
            yield verdict
            yield from _drained(dedupe.copies)
        yield from _drained(dedupe.copies)
        if not dedupe.runnable:
            return


def _runnable(dedupe: Deduplicator, source: Iterator[Program]) -> Iterator[Program]:
    while True:
        yield from _drained(dedupe.runnable)
        program = next(source, None)
        if program is None:
            return
        dedupe.admit(program)


def _drained(queue: deque[_Item]) -> Iterator[_Item]:
    while queue:
        yield queue.popleft()


def _copy(verdict: VerdictFields, program: Program) -> VerdictFields:
    return {**verdict, "sample_id": program.sample_id, "extraction": program.how, "cached": True}
