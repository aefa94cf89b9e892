"""Grade by assertions: a driver process runs the test source and calls the candidate's process for every answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from grader.errors import SuiteError
from grader.judge.stream import AnswerStream, Raised
from grader.judge.verdict import GroupOutcome, group_outcomes
from grader.limits import Limits
from grader.sandbox.cell import RunLimits
from grader.sandbox.runner import wire
from grader.sandbox.runner.encoding import encode
from grader.suites.task import AssertionTests, Task, TestGroup
from grader.worker.bundle import BundleStore, ReferenceTimes, expected_stream
from grader.worker.requests import Conversation, RunRequest, Usage, ending_of, run_limits


@dataclass(slots=True)
class AssertionGrading:
    """The grading of one program by test source. One pair of processes a group.

    ``times``: what the reference needs, by group; empty where there is no reference.
    """

    task: Task
    groups: Sequence[TestGroup]
    source: str
    times: Mapping[str, ReferenceTimes]
    limits: Limits
    fail_fast: bool
    usage: Usage = field(default_factory=Usage)

    def run(self) -> Conversation[list[GroupOutcome | None]]:
        """Run group after group; with ``fail_fast`` the first failing test is the last.

        Raises SuiteError where the tests, and not the program, are at fault.
        """
        outcomes: list[GroupOutcome | None] = []
        for group in self.groups:
            outcome = yield from self._run_group(group)
            outcomes.append(outcome)
            if self.fail_fast and outcome.first_failed is not None:
                break
        return outcomes + [None] * (len(self.groups) - len(outcomes))

    def _run_group(self, group: TestGroup) -> Conversation[GroupOutcome]:
        assert isinstance(group.tests, AssertionTests)
        tests = list(group.tests.tests)
        stream = _stream(len(tests), fail_fast=self.fail_fast)
        done = yield self._pair(group, tests, self.source, stream)
        self.usage.add(done)
        if (broken := stream.broken_tests) is not None:
            if (yield from self._is_broken_by_itself(group)):
                raise SuiteError(
                    f"task {self.task.task_id}, group {group.name}: the setup of the tests fails before the program is "
                    f"called ({broken.type}: {broken.message})"
                )
            stream.load_error = _IN_ITS_WAY
        outcome = group_outcomes(
            stream, [len(tests)], ending_of(done, self.limits.memory_bytes), fail_fast=self.fail_fast
        )[0]
        assert outcome is not None
        return outcome

    def _is_broken_by_itself(self, group: TestGroup) -> Conversation[bool]:
        """Whether the setup of the tests fails beside an empty program too. One that has been loaded may hold what the
        setup needs: threads, memory, in a container the room in /tmp."""
        stream = _stream(0, fail_fast=self.fail_fast)
        yield self._pair(group, [], "", stream)
        return stream.broken_tests is not None

    def _pair(self, group: TestGroup, tests: list[str], source: str, stream: AnswerStream) -> RunRequest:
        assert isinstance(group.tests, AssertionTests)
        needed = self.times.get(group.name, ReferenceTimes())
        longer = self.limits.longer_test_times_s(needed.tests_s) if tests else {}
        return _request(
            self.task,
            group.tests,
            tests,
            source,
            limits=run_limits(self.limits, longer, reference_s=needed.whole_s),
            memory_bytes=self.limits.memory_bytes,
            stop_at_error=self.fail_fast,
            on_data=stream.feed,
        )


_IN_ITS_WAY = Raised("RuntimeError", "the tests cannot be set up beside the program, and can without it", 0)


def _stream(tests: int, *, fail_fast: bool) -> AnswerStream:
    """Judge a driver's stream. It answers True for a test that did not raise: nothing else can pass."""
    return AnswerStream(
        expected=expected_stream([wire.frame(wire.VALUE, encode(True))] * tests),
        matches=lambda _test, _payload: False,
        fail_fast=fail_fast,
        from_driver=True,
    )


# Below this, a test's share of its group's time is not worth a pair of processes: the whole stands for each.
_WORTH_A_RUN_EACH_S = 0.1
# So many times what all need together may be spent on finding out what each needs.
_MOST_RUNS_EACH = 2


def prepare_assertions(task: Task, store: BundleStore, limits: Limits) -> Conversation[None]:
    """Measure what the task's reference needs for each assertion test, and write that.

    A reference that fails a test, or is stopped, has needed what it used until then.
    """
    times: dict[str, ReferenceTimes] = {}
    for group in task.groups:
        if isinstance(group.tests, AssertionTests):
            times[group.name] = yield from _reference_times(task, group.tests, limits)
    store.write_assertion_times(task, times)


def _reference_times(task: Task, group: AssertionTests, limits: Limits) -> Conversation[ReferenceTimes]:
    tests = list(group.tests)
    whole_s = yield from _reference_s(task, group, tests, limits)
    times = [whole_s] * len(tests)
    left_s = _MOST_RUNS_EACH * whole_s
    if len(tests) > 1 and whole_s > _WORTH_A_RUN_EACH_S:
        for index, test in enumerate(tests):
            if left_s <= 0:
                break
            times[index] = yield from _reference_s(task, group, [test], limits)
            left_s -= times[index]
    return ReferenceTimes(whole_s, times)


def _reference_s(task: Task, group: AssertionTests, tests: list[str], limits: Limits) -> Conversation[float]:
    done = yield _request(
        task,
        group,
        tests,
        task.reference,
        limits=run_limits(limits, {}),
        memory_bytes=limits.memory_bytes,
        stop_at_error=False,
        on_data=lambda _data: False,
    )
    return done.cpu_s


def _request(
    task: Task,
    group: AssertionTests,
    tests: list[str],
    source: str,
    *,
    limits: RunLimits,
    memory_bytes: int,
    stop_at_error: bool,
    on_data: Callable[[bytes], bool],
) -> RunRequest:
    candidate = {"mode": "candidate", "source": source}
    driver = {
        "mode": "driver",
        "source": "",
        "reference": task.reference,
        "entry_point": task.entry_point,
        "argument_classes": group.argument_classes,
        "setup": group.setup,
        "tests": tests,
        "stop_at_error": stop_at_error,
    }
    return RunRequest(
        payloads=(candidate, driver),
        limits=limits,
        group_sizes=(len(tests),),
        on_data=on_data,
        memory_bytes=memory_bytes,
    )
