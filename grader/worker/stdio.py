"""Grade whole programs: run them once a test, and compare what they print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from grader.judge.stdio import stdout_matches
from grader.judge.stream import Raised, read_raised
from grader.judge.verdict import GroupOutcome, error_of_ending, status_of_ending, status_of_raised
from grader.limits import Limits
from grader.sandbox.cell import Done
from grader.sandbox.runner import pace, wire
from grader.status import Status
from grader.suites.task import StdioTest, StdioTests, TestGroup
from grader.worker.bundle import StdioAnswers
from grader.worker.functions import split_frames
from grader.worker.requests import Conversation, RunRequest, Usage, collect_into, ending_of, run_limits

# Bytes that a whole program's process may say of itself: one frame with an exception. What it prints is its answer.
_LONGEST_REPORT = 8 * 1024
_LEAST_IDLE_S = 0.1
_UNMEASURED_S = 0.25  # a run has used so much before ``pace`` says anything of its processor


@dataclass(slots=True)
class StdioGrading:
    """The grading of one program by whole-program tests, each in a process of its own."""

    source: str
    groups: Sequence[TestGroup]
    answers: StdioAnswers
    limits: Limits
    fail_fast: bool
    usage: Usage = field(default_factory=Usage)

    def run(self) -> Conversation[list[GroupOutcome | None]]:
        """Run group after group; with ``fail_fast`` the first failing test is the last."""
        outcomes: list[GroupOutcome | None] = []
        for group in self.groups:
            outcome = yield from self._run_group(group)
            outcomes.append(outcome)
            if self.fail_fast and outcome.status is not Status.PASSED:
                break
        return outcomes + [None] * (len(self.groups) - len(outcomes))

    def _run_group(self, group: TestGroup) -> Conversation[GroupOutcome]:
        assert isinstance(group.tests, StdioTests)
        tests, passed = group.tests, 0
        first: tuple[Status, int, Raised | None] | None = None
        left = _TimeLeft(self.limits, self.answers.times[group.name])
        for index, test in enumerate(tests.tests):
            if left.cpu_s <= 0:
                first = first or (Status.TIME_LIMIT, index, None)
                break
            ran = yield from run_program(self.source, test, left.limits_of(index), left.test_s(index))
            self.usage.add(ran.done)
            left.take(ran.done)
            status, error = self._judge(ran, tests, self.answers.stdout[group.name][index])
            passed += status is Status.PASSED
            if status is not Status.PASSED:
                first = first or (status, index, error)
                if self.fail_fast or status is Status.COMPILE_ERROR:
                    break
        if first is None:
            return GroupOutcome(Status.PASSED, passed, len(tests.tests), None)
        return GroupOutcome(first[0], passed, len(tests.tests), first[1], first[2])

    def _judge(self, ran: ProgramRun, tests: StdioTests, expected: str) -> tuple[Status, Raised | None]:
        status, error = judge_run(ran, self.limits.memory_bytes)
        if status is Status.PASSED and not stdout_matches(tests.comparison, ran.output, expected, tests.atol):
            return Status.WRONG_ANSWER, None
        return status, error


class _TimeLeft:
    """What is left of a group's time: each of its tests is a run with limits of its own."""

    def __init__(self, limits: Limits, reference_s: Sequence[float]) -> None:
        self._limits, self._reference_s = limits, reference_s
        self.cpu_s = self.idle_s = limits.whole_group_time_s(sum(reference_s))

    def take(self, done: Done) -> None:
        """Count a run, in CPU seconds of a processor at its fastest, as the limits are. How slow it was is not known of
        a short run: it may have been as slow as a processor is ever taken to be."""
        slowness = pace.MOST if done.cpu_s < _UNMEASURED_S else done.slowness
        self.cpu_s -= done.cpu_s / max(slowness, 1.0)
        self.idle_s -= done.idle_s

    def test_s(self, index: int) -> float:
        """CPU seconds that a test may still use."""
        return min(self._limits.test_time_s(self._reference_s[index]), self.cpu_s)

    def limits_of(self, index: int) -> Limits:
        """The limits of a test: its idle time is what is left, and never 0. Who only waited for a disk has used idle
        time up, too, and a run ends for it only when it is seen asleep."""
        idle_s = self._limits.idle_s or self._limits.test_time_s(self._reference_s[index])
        return replace(self._limits, idle_s=min(idle_s, max(self.idle_s, _LEAST_IDLE_S)))


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """What a whole program printed, what its process said of itself, and how it ended.

    ``tampered``: more was said than the runner ever says. It is stopped for that, but may have ended before.
    """

    output: bytes
    frames: Sequence[tuple[int, bytes]]
    done: Done
    tampered: bool


def run_program(source: str, test: StdioTest, limits: Limits, limit_s: float) -> Conversation[ProgramRun]:
    """Run a whole program on one input."""
    output, answers = bytearray(), bytearray()
    done = yield RunRequest(
        payloads=(
            {"mode": "program", "source": source, "stdin": test.stdin.encode("utf-8", "surrogateescape")},
        ),
        limits=run_limits(limits, {}, load_s=limit_s),
        group_sizes=(),
        on_data=collect_into(answers, stop_above=_LONGEST_REPORT),
        on_output=output.extend,
        memory_bytes=limits.memory_bytes,
        whole_program=True,
    )
    return ProgramRun(bytes(output), split_frames(bytes(answers)), done, len(answers) > _LONGEST_REPORT)


def judge_run(ran: ProgramRun, memory_bytes: int) -> tuple[Status, Raised | None]:
    """Judge how a whole program ended, before its output is looked at: it must exit with status 0."""
    if ran.tampered:
        return Status.SECURITY_VIOLATION, Raised("Tampering", "wrote to the answer channel", 0)
    for kind, payload in ran.frames:
        if kind == wire.UNCOMPILABLE:
            return Status.COMPILE_ERROR, read_raised(payload)
        if kind == wire.RAISED:
            raised = read_raised(payload)
            return status_of_raised(raised), raised
    ending = ending_of(ran.done, memory_bytes)
    if ran.done.ended == "exited" and ran.done.code == 0:
        return Status.PASSED, None
    return status_of_ending(ending), error_of_ending(ending)
