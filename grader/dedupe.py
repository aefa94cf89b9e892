"""Running identical programs once.

Two programs of a task are the same program when their syntax trees are, without comments and docstrings and
where the program cannot see the difference (``program_identity``). If the first of them passed, so do the
others, and they get a copy of its verdict. Anything else is copied only between programs of the same text
(``exact_identity``): an error's message and line can differ where the syntax tree does not. An
infrastructure error says nothing about the program and is never copied, but for that of tests which are at fault.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from grader.extraction.identity import exact_identity, outline, program_identity
from grader.status import Status
from grader.worker.grading import broken_tests
from grader.worker.program import Program

VerdictFields = dict[str, Any]
_Item = TypeVar("_Item")
Grade = Callable[[Iterable[Program]], Iterator[VerdictFields]]
_Key = tuple[str, str, str]

# A verdict takes about 2 KiB besides what the program printed, which can be 64 Ki characters of 4 bytes.
_LITTLE_PRINTED_CHARACTERS = 1024
_MOST_PRINTED_CHARACTERS = 8 << 20


class Identity(NamedTuple):
    """What a program is known by: its text, its outline, and its syntax tree if that has been asked for."""

    text: str
    outline: str
    tree: str | None = None


@dataclass(slots=True, eq=False)
class _Family:
    """Programs of one task with one identity: what is known of them, what runs, and what waits for that.

    ``holders`` counts the deduplicators that have admitted one of them. ``outline``, ``tree`` and ``texts`` are its
    names; the tree of ``source`` is asked for when there is another program of this outline.
    """

    outline: _Key
    source: str
    tree: str | None = None
    texts: list[_Key] = field(default_factory=list)
    passed: VerdictFields | None = None
    failed: dict[str, VerdictFields] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    waiting: list[tuple[Deduplicator, Program, str]] = field(default_factory=list)
    holders: int = 0


class Families:
    """What several deduplicators know together: what one of them runs, the others wait for.

    What is known of a program is forgotten when the last deduplicator that has admitted it leaves. Where
    ``most_waiting`` programs wait for others, further ones run. Programs are parsed only where others have the same
    outline. Of verdicts with much printed text the latest ones are kept, up to ``most_printed`` characters in all
    (``printed`` says how many there are): copies of the others run.
    """

    def __init__(self, most_waiting: int = sys.maxsize, most_printed: int = _MOST_PRINTED_CHARACTERS) -> None:
        self.most_waiting = most_waiting
        self.waiting = 0
        self._most_printed = most_printed
        self.printed = 0
        # The characters of each verdict with much printed text that is kept, oldest first; "" is the one that passed.
        self._long_verdicts: dict[tuple[_Family, str], int] = {}
        # The family of an outline, and from the second program of it on the families by their trees.
        self._by_outline: dict[_Key, _Family | dict[str, _Family]] = {}
        self._by_text: dict[_Key, _Family] = {}

    def __len__(self) -> int:
        """How many texts and outlines are known."""
        return len(self._by_text) + len(self._by_outline)

    def knows(self, text: _Key) -> bool:
        """Whether a program of this kind, task and text is known."""
        return text in self._by_text

    def parse_alike(self, outline: _Key) -> bool:
        """Return whether a program of this outline is known, and find its tree if there is one alone; in any thread."""
        alike = self._by_outline.get(outline)
        if isinstance(alike, _Family):
            self._tree_of(alike)  # whoever asks meanwhile finds the same
        return alike is not None

    def family(self, kind: str, program: Program, identity: Identity) -> _Family:
        """Return the family of a program."""
        text = (kind, program.task_id, identity.text)
        family = self._by_text.get(text)
        if family is None:
            family = self._by_text[text] = self._kin(
                (kind, program.task_id, identity.outline), program, identity
            )
            family.texts.append(text)
        return family

    def _kin(self, outline: _Key, program: Program, identity: Identity) -> _Family:
        """The family of a program whose text is new; a new one where there is none."""
        alike = self._by_outline.get(outline)
        if alike is None and identity.tree is None:
            family = self._by_outline[outline] = _Family(outline, program.source)
            return family
        if not isinstance(alike, dict):
            alike = {} if alike is None else {self._tree_of(alike): alike}
            self._by_outline[outline] = alike
        tree = identity.tree or program_identity(program.source)
        if tree not in alike:
            alike[tree] = _Family(outline, "", tree)
        return alike[tree]

    def _tree_of(self, family: _Family) -> str:
        if family.tree is None:
            family.tree = program_identity(family.source)
        return family.tree

    def keep(self, family: _Family, exact: str, verdict: VerdictFields) -> None:
        """Keep a verdict for copies, and no longer the oldest ones where too much has been printed in all."""
        if verdict["status"] == Status.PASSED:
            family.passed, exact = verdict, ""
        else:
            family.failed[exact] = verdict
        printed = len(verdict.get("stdout_tail", ""))
        if self._long_verdicts:
            self.printed -= self._long_verdicts.pop((family, exact), 0)
        if printed > _LITTLE_PRINTED_CHARACTERS:
            self._long_verdicts[family, exact] = printed
            self.printed += printed
        while self.printed > self._most_printed:
            self._drop(*next(iter(self._long_verdicts)))

    def _drop(self, family: _Family, exact: str) -> None:
        self.printed -= self._long_verdicts.pop((family, exact), 0)
        if exact:
            family.failed.pop(exact, None)
        else:
            family.passed = None

    def forget(self, family: _Family) -> None:
        """Forget a family that nobody holds."""
        if self._long_verdicts:
            for exact in ("", *family.failed):
                self.printed -= self._long_verdicts.pop((family, exact), 0)
        alike = self._by_outline[family.outline]
        if isinstance(alike, dict):
            del alike[self._tree_of(family)]
        if not isinstance(alike, dict) or not alike:
            del self._by_outline[family.outline]
        for text in family.texts:
            del self._by_text[text]


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

    def identify(self, programs: Sequence[Program]) -> list[Identity | None]:
        """Return what :meth:`admit` needs to know of each; None for one that runs by itself.

        Takes some 0.05 ms a program, and 0.2 ms where another one has the same outline; may be called in any thread.
        """
        pairs = [(program, self._outlined(program)) for program in programs]
        texts = {
            (one.task_id, known.outline, known.text) for one, known in pairs if known and known.tree is None
        }
        outlines = Counter((task_id, outline) for task_id, outline, _ in texts)
        return [
            self._parsed(one, known, shared=outlines[one.task_id, known.outline] > 1)
            if known and known.tree is None
            else known
            for one, known in pairs
        ]

    def _outlined(self, program: Program) -> Identity | None:
        if program.task_id in self._alone:
            return None
        text = exact_identity(program.source)
        if program.task_id in self._unparsed:
            return Identity(text, text, text)
        return Identity(text, outline(program.source))

    def _parsed(self, program: Program, identity: Identity, *, shared: bool) -> Identity:
        kind, task_id = self._kind, program.task_id
        if self._families.knows((kind, task_id, identity.text)):
            return identity
        if self._families.parse_alike((kind, task_id, identity.outline)) or shared:
            return identity._replace(tree=program_identity(program.source))
        return identity

    def admit(self, program: Program, identity: Identity | None) -> None:
        """Take a program: it becomes runnable, or a copy, or waits for another one's verdict."""
        if identity is None:
            self.runnable.append(program)
            return
        family = self._families.family(self._kind, program, identity)
        if family not in self._held:
            self._held.add(family)
            family.holders += 1
        self._place(family, program, identity.text)

    def settle(self, verdict: VerdictFields) -> None:
        """Take the verdict of a program that ran, and release those that waited for it."""
        family, exact = self._running.pop(verdict["sample_id"], (None, ""))
        if family is None:
            return
        family.running.discard(exact)
        if verdict["status"] != Status.INFRASTRUCTURE_ERROR or broken_tests(verdict) is not None:
            self._families.keep(family, exact, verdict)
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
        (identity,) = dedupe.identify((program,))
        dedupe.admit(program, identity)


def _drained(queue: deque[_Item]) -> Iterator[_Item]:
    while queue:
        yield queue.popleft()


def _copy(verdict: VerdictFields, program: Program) -> VerdictFields:
    return {**verdict, "sample_id": program.sample_id, "extraction": program.how, "cached": True}
