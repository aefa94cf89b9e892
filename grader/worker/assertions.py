"""Grade by assertions: a driver process runs the test source and calls the candidate's process for every answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from grader.errors import SuiteError
from grader.judge.stream import AnswerStream
from grader.judge.verdict import GroupOutcome, group_outcomes
from grader.limits import Limits
from grader.sandbox.runner import wire
from grader.sandbox.runner.encoding import encode
from grader.suites.task import AssertionTests, Task, TestGroup
from grader.worker.bundle import expected_stream
from grader.worker.requests import Conversation, RunRequest, Usage, ending_of, run_limits


@dataclass(slots=True)
class AssertionGrading:
    """The grading of one program by test source. One pair of processes a group."""

    task: Task
    groups: Sequence[TestGroup]
    source: str
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
        # The driver answers True for a test that did not raise: nothing else can pass.
        stream = AnswerStream(
            expected=expected_stream([wire.frame(wire.VALUE, encode(True))] * len(tests)),
            matches=lambda _test, _payload: False,
            fail_fast=self.fail_fast,
            from_driver=True,
        )
        candidate = {"mode": "candidate", "source": self.source}
        driver = {
            "mode": "driver",
            "source": "",
            "reference": self.task.reference,
            "entry_point": self.task.entry_point,
            "setup": group.tests.setup,
            "tests": tests,
            "stop_at_error": self.fail_fast,
        }
        done = yield RunRequest(
            payloads=(candidate, driver),
            limits=run_limits(self.limits, {}),
            group_sizes=(len(tests),),
            on_data=stream.feed,
            memory_bytes=self.limits.memory_bytes,
        )
        self.usage.add(done)
        if (broken := stream.broken_tests) is not None:
            raise SuiteError(
                f"task {self.task.task_id}, group {group.name}: the setup of the tests fails before the program is "
                f"called ({broken.type}: {broken.message})"
            )
        outcome = group_outcomes(
            stream, [len(tests)], ending_of(done, self.limits.memory_bytes), fail_fast=self.fail_fast
        )[0]
        assert outcome is not None
        return outcome
