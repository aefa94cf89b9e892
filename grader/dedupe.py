"""Running identical programs once.

Two programs of a task are the same program when their syntax trees are, without comments and docstrings and
where the program cannot see the difference (``program_identity``). If the first of them passed, so do the
others, and they get a copy of its verdict. Anything else is copied only between programs of the same text
(``exact_identity``): an error's message and line can differ where the syntax tree does not. An
infrastructure error says nothing about the program and is never copied, but for that of tests which are at fault.
"""

from __future__ import annotations

import sys
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
Identity = tuple[str, str | None]
"""A program's identity by its text, and that by its syntax tree; None where the text is known."""
_Key = tuple[str, str, str]


@dataclass(slots=True, eq=False)
class _Family:
    """Programs of one task with one identity: what is known of them, what runs, and what waits for that.

    ``holders`` counts the deduplicators that have admitted one of them. ``keys`` are its names: the first by tree, the
    others by text.
    """

    passed: VerdictFields | None = None
    failed: dict[str, VerdictFields] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    waiting: list[tuple[Deduplicator, Program, str]] = field(default_factory=list)
    holders: int = 0
    keys: list[_Key] = field(default_factory=list)


class Families:
    """What several deduplicators know together: what one of them runs, the others wait for.

    What is known of a program is forgotten when the last deduplicator that has admitted it leaves. Where
    ``most_waiting`` programs wait for others, further ones run.
    """

    def __init__(self, most_waiting: int = sys.maxsize) -> None:
        self.most_waiting = most_waiting
        self.waiting = 0
        self._by_tree: dict[_Key, _Family] = {}
        self._by_text: dict[_Key, _Family] = {}

    def __len__(self) -> int:
        """How many texts are known."""
        return len(self._by_text)

    def knows(self, key: _Key) -> bool:
        """Whether a program of this kind, task and text is known."""
        return key in self._by_text

    def family(self, key: _Key, identity: Callable[[], str]) -> _Family:
        """Return the family of a kind, task and text, whose ``identity`` is asked for where they are new."""
        family = self._by_text.get(key)
        if family is None:
            tree = (*key[:2], identity())
            family = self._by_tree.get(tree)
            if family is None:
                family = self._by_tree[tree] = _Family(keys=[tree])
            self._by_text[key] = family
            family.keys.append(key)
        return family

    def forget(self, family: _Family) -> None:
        """Forget a family that nobody holds."""
        by_tree, *by_text = family.keys
        del self._by_tree[by_tree]
        for key in by_text:
            del self._by_text[key]


class Deduplicator:
    """Decides for each program whether it runs, waits, or gets a copy; a pure state machine.

    Programs go in through :meth:`admit`, verdicts of the programs that ran through :meth:`settle`. What is
    to be done comes out of :attr:`copies` (verdicts that are done) and :attr:`runnable` (programs to run
    next). Each program that went in comes out as exactly one verdict, run or copied, once all that ran are
    settled.

    Deduplicators with the same ``families`` and ``kind`` wait for each other's programs too, until they
    :meth:`leave`; ``on_released`` is called when another one has released a program of this one. Programs of the tasks
    ``alone`` simply run; those of the tasks ``by_text`` are the same as others only where their text is.
    """

    def __init__(
        self,
        alone: Collection[str] = (),
        *,
        by_text: Collection[str] = (),
        families: Families | None = None,
        kind: str = "",
        on_released: Callable[[], None] = lambda: None,
    ) -> None:
        self._alone = alone
        self._unparsed = by_text
        self._families = Families() if families is None else families
        self._kind = kind
        self._on_released = on_released
        self.copies: deque[VerdictFields] = deque()
        self.runnable: deque[Program] = deque()
        self.waiting = 0
        self._held: set[_Family] = set()
        self._running: dict[str, tuple[_Family, str]] = {}

    def identify(self, program: Program) -> Identity | None:
        """Return what :meth:`admit` needs to know of a program; None for one that runs by itself.

        Takes 0.2 ms for a program that is not known, and may be called in any thread.
        """
        if program.task_id in self._alone:
            return None
        try:
            exact = exact_identity(program.source)
            if program.task_id in self._unparsed:
                return exact, exact
            known = self._families.knows((self._kind, program.task_id, exact))
            return exact, None if known else program_identity(program.source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            # No syntax tree, or no encoding, for this one.
            return None

    def admit(self, program: Program, identity: Identity | None) -> None:
        """Take a program: it becomes runnable, or a copy, or waits for another one's verdict."""
        if identity is None:
            self.runnable.append(program)
            return
        exact, tree = identity
        key = (self._kind, program.task_id, exact)
        # It was known when its identity was asked for, and may have been forgotten since.
        family = self._families.family(
            key, lambda: program_identity(program.source) if tree is None else tree
        )
        if family not in self._held:
            self._held.add(family)
            family.holders += 1
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
        self._release(family)

    def leave(self) -> None:
        """Have nothing to do with others any more: what runs here will not be settled, and what waits is dropped."""
        for family in self._held:
            mine = sum(waiting[0] is self for waiting in family.waiting)
            if mine:
                family.waiting = [waiting for waiting in family.waiting if waiting[0] is not self]
                self._families.waiting -= mine
        self.waiting = 0
        running, self._running = self._running, {}
        for family, exact in running.values():
            family.running.discard(exact)
        for family, _ in running.values():
            self._release(family)
        held, self._held = self._held, set()
        for family in held:
            family.holders -= 1
            if not family.holders:
                self._families.forget(family)

    def _release(self, family: _Family) -> None:
        waiting, family.waiting = family.waiting, []
        self._families.waiting -= len(waiting)
        others = set()
        for whose, program, exact in waiting:
            whose.waiting -= 1
            whose._place(family, program, exact)
            if whose is not self:
                others.add(whose)
        for whose in others:
            whose._on_released()

    def _place(self, family: _Family, program: Program, exact: str) -> None:
        known = family.passed or family.failed.get(exact)
        if known is not None:
            self.copies.append(_copy(known, program))
        elif exact in family.running or (family.running and not family.failed):
            # Once one of the family has failed, each other text has to run for its own error anyway.
            self._wait(family, program, exact)
        else:
            family.running.add(exact)
            self._running[program.sample_id] = (family, exact)
            self.runnable.append(program)

    def _wait(self, family: _Family, program: Program, exact: str) -> None:
        if self._families.waiting >= self._families.most_waiting:
            self.runnable.append(program)
            return
        family.waiting.append((self, program, exact))
        self.waiting += 1
        self._families.waiting += 1


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
        dedupe.admit(program, dedupe.identify(program))


def _drained(queue: deque[_Item]) -> Iterator[_Item]:
    while queue:
        yield queue.popleft()


def _copy(verdict: VerdictFields, program: Program) -> VerdictFields:
    return {**verdict, "sample_id": program.sample_id, "extraction": program.how, "cached": True}
