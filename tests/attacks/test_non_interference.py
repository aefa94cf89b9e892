"""No byte that a cell receives depends on an expected answer, while a program can still act on it.

The judge runs in this process, and what it writes to its cell is recorded. Each program is graded twice: once
with the expected answers of its task, once with others in their place. Up to the first frame that ends a run, or a
run that looks again at a long answer, the bytes must be the same.

What may depend on the expected answers, and is said here so that nobody takes it for an oversight:

- KILL, after an answer that was wrong. With ``fail_fast`` the sample is over then; the program learns at most that its
  last answer was wrong, when it is no longer there to use it.
- A second run of program and reference, where a long answer's digest is not the expected one and a tolerance or the
  order of a set may make it right. It tells the program one bit, of a test that it has already answered.
- Which sample comes next, and when.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attack_backends import Backend
from attack_programs.model import suite

from grader.limits import Limits
from grader.sandbox import factory
from grader.sandbox.cell import Done
from grader.sandbox.factory import CellSource
from grader.sandbox.runner import wire
from grader.suites.task import FunctionTests, StdioTest, StdioTests, Task, TestGroup
from grader.worker.bundle import BundleStore
from grader.worker.functions import reference_limits
from grader.worker.grading import Policy, grade
from grader.worker.prepare import prepare
from grader.worker.program import Program
from grader.worker.requests import Conversation, RunRequest

SUITE = suite()
RIGHT = {name: task.reference for name, task in SUITE.tasks.items()}
OTHER = {
    "int": "return arguments[0] * 7919 + 104730",
    "float": "return arguments[0] * 1.5 + 7",
    "close": "return [arguments[0] * 9.5, 'y']",
    "text": "return arguments[0] + '?'",
    "list": "return sorted(arguments[0]) + [98]",
    "set": "return {x * 3 for x in arguments[0]}",
    "dict": "return {x: 5 for x in arguments[0]}",
    "bool": "return arguments[0] <= 3",
    "long": "return [n ^ 0x1111 for n in range(arguments[0])]",
    "long_float": "return [n / 5 for n in range(arguments[0])]",
    "secret": "return arguments[0]",
}
WRONG = "def solve(*arguments):\n    print('a line')\n    return 7\n"


class Recorder:
    """Grades in one cell, and keeps every frame that is sent to it, in the order in which they are sent."""

    def __init__(self, source: CellSource, limits: Limits) -> None:
        self.record: list[tuple[int, bytes]] = []
        self._key = source.key
        self._limits = limits
        self._cell = source.make(limits)
        send = self._cell._send

        def recorded(kind: int, payload: bytes) -> None:
            if kind != wire.TICK:  # how much CPU time the container has used, by the host's count
                self.record.append((kind, bytes(payload)))
            send(kind, payload)

        # All that is written to a cell goes through this one method.
        self._cell._send = recorded  # type: ignore[method-assign]

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self._cell.close()

    def prepare(self, task: Task, folder: Path) -> None:
        """Make the expected answers of a task, in a folder of their own; later grading is by these."""
        self.store = BundleStore(folder, SUITE.sha256, self._key)
        self._converse(prepare(task, self.store, reference_limits()))

    def grade(self, task: Task, source: str, *, fail_fast: bool) -> dict[str, Any]:
        """Return the verdict; ``record`` has what was sent for it."""
        self.record.clear()
        policy = Policy(self._limits, None, fail_fast)
        return self._converse(grade(Program(task.task_id, "a", source), task, self.store, policy, {}, 1))

    def _converse(self, conversation: Conversation[Any]) -> Any:
        done = None
        while True:
            try:
                request = conversation.send(done) if done else next(conversation)
            except StopIteration as end:
                return end.value
            done = self._run(request)

    def _run(self, request: RunRequest) -> Done:
        cell = self._cell
        run = cell.start_run(
            request.encoded(self._limits, cell.address_space, exact_clocks=cell.exact_clocks),
            request.limits,
            group_sizes=request.group_sizes,
            zygote=request.zygote,
            whole_program=request.whole_program,
        )
        while True:
            for event in cell.receive(60):
                if isinstance(event, Done):
                    return event
                if event.is_output:
                    request.on_output(event.data)
                elif request.on_data(event.data):
                    cell.kill_run(run)


@pytest.fixture(scope="module")
def recorder(backend: Backend, attack_cache: Path) -> Iterator[Recorder]:
    with Recorder(factory.prepare(backend.cells, attack_cache), backend.limits) as made:
        yield made


def with_other_answers(task: Task) -> Task:
    """The same task to look at, inputs and all, of which something else is expected."""
    name = task.task_id.partition("/")[2]
    other: list[TestGroup] = []
    scope: dict[str, object] = {}
    exec(f"def solve(*arguments):\n    {OTHER.get(name, 'return 0')}\n", scope)
    for group in task.groups:
        if isinstance(group.tests, FunctionTests):
            values = [scope["solve"](*arguments) for arguments in group.tests.inputs()]  # type: ignore[operator]
            other.append(replace(group, tests=replace(group.tests, expected=partial(list, values))))
        else:
            assert isinstance(group.tests, StdioTests)
            tests = [StdioTest(test.stdin, "5\n") for test in group.tests.tests]
            other.append(replace(group, tests=replace(group.tests, tests=tests)))
    return replace(task, groups=tuple(other))


def until_the_first_kill(record: list[tuple[int, bytes]]) -> bytes:
    """What the cell received for the first run, before it was killed."""
    frames, runs = [], 0
    for kind, payload in record:
        runs += kind == wire.RUN
        if kind == wire.KILL or runs > 1:
            break
        frames.append(wire.frame(kind, payload))
    return b"".join(frames)


TASKS = [name for name in SUITE.tasks if not name.endswith(("/asserted", "/drawn", "/root"))]


@pytest.mark.parametrize("fail_fast", [True, False], ids=["fail-fast", "all-tests"])
@pytest.mark.parametrize("name", TASKS, ids=lambda name: name.partition("/")[2])
def test_a_cell_receives_the_same_whatever_is_expected(
    name: str, fail_fast: bool, recorder: Recorder, tmp_path: Path
) -> None:
    task = with_answers_given(SUITE.tasks[name])
    stdio = isinstance(task.groups[0].tests, StdioTests)
    sources = (
        ["print(0)\n", "x"]
        if stdio
        else [RIGHT[name], WRONG, "raise ValueError", "def solve(*a): return 1 / 0"]
    )
    records = []
    for number, chosen in enumerate((task, with_other_answers(task))):
        recorder.prepare(chosen, tmp_path / str(number))
        received, passed = [], []
        for source in sources:
            passed.append(recorder.grade(chosen, source, fail_fast=fail_fast)["passed"])
            assert any(kind == wire.RUN for kind, _ in recorder.record)
            received.append(without_numbers(until_the_first_kill(recorder.record)))
        records.append(received)
        assert passed == [number == 0 and not stdio] + [False] * (len(sources) - 1)
    assert records[0] == records[1]


def with_answers_given(task: Task) -> Task:
    """The task with its true answers given and no reference, so that limits follow no measured times."""
    scope: dict[str, Any] = {}
    groups: list[TestGroup] = []
    if task.entry_point:
        exec(task.reference, scope)
    for group in task.groups:
        tests = group.tests
        if isinstance(tests, FunctionTests):
            values = [scope["solve"](*arguments) for arguments in tests.inputs()]
            tests = replace(tests, expected=partial(list, values))
        groups.append(replace(group, tests=tests))
    return replace(task, reference="", groups=tuple(groups))


def without_numbers(data: bytes) -> list[tuple[object, ...]]:
    """The frames, without the runs' own numbers: after a second look at a long answer they count on."""
    frames: list[tuple[object, ...]] = []
    position = 0
    while position < len(data):
        length, kind = wire.HEADER.unpack_from(data, position)
        position += wire.HEADER.size
        payload = data[position : position + length]
        position += length
        frames.append((kind, *(marshal.loads(payload)[1:] if kind == wire.RUN else (payload,))))
    return frames


def test_nothing_of_an_expected_answer_is_in_what_a_cell_receives(recorder: Recorder, tmp_path: Path) -> None:
    task = SUITE.tasks["Attacked/secret"]
    recorder.prepare(task, tmp_path)
    recorder.grade(task, WRONG, fail_fast=False)
    bundle = recorder.store.open(task)
    expected = bundle.expected([0, 1, 2, 3])
    secrets = [expected.frame(test)[wire.HEADER.size + 1 :] for test in range(4)]
    received = b"".join(payload for _, payload in recorder.record)
    assert len(received) > 100
    assert not [found for found in secrets if found[4:] in received]
    assert b"the reference alone" not in received


def test_the_recording_would_show_a_leak(recorder: Recorder, tmp_path: Path) -> None:
    """The check is not blind: with another input the bytes differ."""
    task = with_answers_given(SUITE.tasks["Attacked/int"])
    inputs = FunctionTests(partial(list, [[3], [-4], [12]]), partial(list, [0, 0, 0]))
    other = replace(task, groups=(TestGroup("base", inputs), task.groups[1]))
    records = []
    for number, chosen in enumerate((task, other)):
        recorder.prepare(chosen, tmp_path / str(number))
        recorder.grade(chosen, WRONG, fail_fast=True)
        records.append(without_numbers(until_the_first_kill(recorder.record)))
    assert records[0] != records[1]
