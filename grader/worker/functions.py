"""Grade function tests: call the entry point on each input and hold what it returns against the reference's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from grader.errors import InfrastructureError
from grader.judge.budget import ReadingBudget
from grader.judge.compare import FLOAT_ATOL, is_floats, matches
from grader.judge.stream import AnswerStream, Finding
from grader.judge.verdict import Ending, GroupOutcome, group_outcomes, status_of_ending
from grader.limits import Limits
from grader.sandbox.cell import Done
from grader.sandbox.runner import wire
from grader.sandbox.runner.decoding import DecodeError, decode
from grader.status import Status
from grader.suites.task import Comparison, Task
from grader.worker.bundle import Bundle
from grader.worker.parts import Part
from grader.worker.requests import (
    Conversation,
    RunRequest,
    Usage,
    collect_into,
    ending_of,
    function_payload,
    run_limits,
)

_REFERENCE_MEMORY, _REFERENCE_ANSWERS = 4 << 30, 1 << 30
# Bytes of the longest answer that is looked at in full. Longer ones are right only byte for byte: to decode them would
# take hundreds of megabytes of the worker.
_LONGEST_DECODED = 16 << 20
# And of one that is held against a so much shorter expected one that no honest answer is equal to it. The lengths of
# equal values differ most where numpy's complex 1 stands for True, by a factor of 44. Where a right answer may also
# hold more values than the expected one, only one that repeats itself for megabytes is longer.
_TIMES_OURS = 64
_LEAST_DECODED = 1 << 20
_LEAST_DECODED_OF_ANY_LENGTH = 4 << 20
_OF_ANY_LENGTH = frozenset(("set", "not_none", "alternative"))
_READ_AT_ONCE = 1 << 20
REFERENCE_TIME_S = 600.0


@dataclass(slots=True)
class FunctionGrading:
    """The grading of one program by one task's function tests."""

    task: Task
    bundle: Bundle
    source: str
    groups: Sequence[str]
    limits: Limits
    fail_fast: bool
    usage: Usage = field(default_factory=Usage)
    part: Part | None = None
    reading: ReadingBudget = field(default_factory=ReadingBudget)

    def run(self) -> Conversation[list[GroupOutcome | None]]:
        """Run the groups in one process; where it ends early and not ``fail_fast``, the later groups in another."""
        outcomes: list[GroupOutcome | None] = []
        names = list(self.groups)
        while names:
            judged = yield from self._run_groups(names)
            reached = [outcome for outcome in judged if outcome is not None]
            outcomes += reached
            names = names[len(reached) :]
            if self.fail_fast and reached[-1].first_failed is not None:
                break
        return outcomes + [None] * len(names)

    def _run_groups(self, names: Sequence[str]) -> Conversation[list[GroupOutcome | None]]:
        bundle = self.bundle
        tests, sizes = self._tests(names)
        stream = AnswerStream(
            expected=bundle.expected(tests),
            matches=lambda index, payload: self._matches(tests[index], payload, stream.expected.frame(index)),
            fail_fast=self.fail_fast,
        )
        payload = function_payload(
            self.source, self.task.entry_point, bundle.inputs(tests), stop_at_error=self.fail_fast
        )
        memory_bytes = self.limits.sample_memory_bytes(bundle.peak_memory_bytes)
        longer = self.limits.longer_test_times_s([bundle.times[test] for test in tests])
        done = yield RunRequest(
            payloads=(payload,),
            limits=run_limits(self.limits, longer, reference_s=sum(bundle.times)),
            group_sizes=sizes,
            on_data=stream.feed,
            memory_bytes=memory_bytes,
        )
        self.usage.add(done)
        yield from self._decide_long_answers(stream, tests)
        return group_outcomes(stream, sizes, ending_of(done, memory_bytes), fail_fast=self.fail_fast)

    def _tests(self, names: Sequence[str]) -> tuple[list[int], tuple[int, ...]]:
        """The indices, in the bundle, of the tests to run, and how many each group has of them."""
        bundle = self.bundle
        tests = bundle.tests_of(names)
        if self.part is not None:
            tests = tests[self.part.begin : self.part.end]
            return tests, (len(tests),)
        sizes = zip(bundle.group_names, bundle.group_sizes, strict=True)
        return tests, tuple(size for name, size in sizes if name in names)

    def _matches(self, test: int, payload: bytes, expected_frame: bytes) -> bool:
        if self.reading.used_up:
            return False
        ours = expected_frame[wire.HEADER.size :]
        try:
            answer = decode(payload)
        except DecodeError as error:
            self.reading.take_undecodable(error, len(payload), len(ours))
            raise
        right = self._judge(test, answer, decode(ours))
        self._count(right, answer, len(payload), len(ours))
        return right

    def _count(self, right: bool, answer: object, length: int, expected_length: int) -> None:
        """Count an answer that was read, where others follow it. A right one can be hostile where all but None is
        right: of that, what its hashes cost is counted."""
        if not right and not self.fail_fast:
            self.reading.take(answer, length, expected_length)
        elif right and self.task.comparison.kind == "not_none":
            self.reading.take(answer, length, length)

    def _judge(self, test: int, answer: object, expected: object) -> bool:
        comparison = self.task.comparison
        tolerance = comparison.atol or (FLOAT_ATOL if self.bundle.has_tolerance_switch(test) else 0.0)
        return matches(comparison, answer, expected, lambda: self.bundle.arguments(test), tolerance)

    def _decide_long_answers(self, stream: AnswerStream, tests: Sequence[int]) -> Conversation[None]:
        """Look at long answers whose digest differs: have program and reference answer in full, and compare.

        Up to the first failure only, where that ends the sample.
        """
        undecided = sorted(test for test, finding in stream.findings.items() if finding is Finding.UNDECIDED)
        failed = [test for test, finding in stream.findings.items() if finding is not Finding.UNDECIDED]
        for index in undecided:
            moot = self.fail_fast and failed and index > min(failed)
            finding: Finding | None = Finding.WRONG
            if not moot and _may_be_equal(stream, index) and not self.reading.used_up:
                finding = yield from self._second_look(tests[index], stream.expected.frame(index))
            if finding is None:
                del stream.findings[index]
            else:
                stream.findings[index] = finding
                failed.append(index)

    def _second_look(self, test: int, expected_frame: bytes) -> Conversation[Finding | None]:
        """Have a test answered in full, within what is left of the sample's time, and hold it against the expected;
        None where it is right. An answer can turn out to be too long for that: a digest may tell of a fifth of it.
        """
        short = expected_frame[wire.HEADER.size - 1] == wire.VALUE
        ours = expected_frame[wire.HEADER.size :] if short else self.bundle.given_answer(test)
        if ours is not None and len(ours) > _LONGEST_DECODED:
            return Finding.WRONG
        # Each look is a run with limits of its own: who only sleeps in it would else have hours.
        spent_s = max(self.usage.cpu_s, self.usage.idle_s)
        left_s = self.limits.whole_group_time_s(sum(self.bundle.times)) - spent_s
        if left_s <= 0:
            return Finding.TIMED_OUT
        memory_bytes = self.limits.sample_memory_bytes(self.bundle.peak_memory_bytes)
        limits = replace(self.limits, group_time_s=left_s, memory_bytes=memory_bytes)
        most = _LONGEST_DECODED if ours is None else self._longest_decoded(len(ours))
        theirs, done = yield from self._full_answer(self.source, test, limits, most)
        self.usage.add(done)
        if theirs is None:
            late = status_of_ending(Ending(done.ended)) is Status.TIME_LIMIT
            return Finding.TIMED_OUT if late else Finding.WRONG
        if ours is None:
            ours, done = yield from self._full_answer(
                self.task.reference, test, self._limits_of_reference(test), _LONGEST_DECODED
            )
            if ours is None and done.ended == "output_limit":
                return Finding.WRONG  # ours is too long to be looked at, and theirs has another digest
        if ours is None:
            raise InfrastructureError(
                f"the reference of {self.task.task_id} did not give its long answer to test {test} again "
                f"({done.ended}), so that the program's cannot be judged"
            )
        return None if self._full_match(test, theirs, ours) else Finding.WRONG

    def _limits_of_reference(self, test: int) -> Limits:
        limits = reference_limits(60.0 + self.limits.test_time_s(self.bundle.times[test]))
        return replace(limits, memory_bytes=Limits().sample_memory_bytes(self.bundle.peak_memory_bytes))

    def _full_match(self, test: int, theirs: bytes, ours: bytes) -> bool:
        if theirs == ours:
            return True
        if len(ours) > _LONGEST_DECODED or len(theirs) > self._longest_decoded(len(ours)):
            return False
        try:
            answer = decode(theirs)
        except DecodeError as error:
            self.reading.take_undecodable(error, len(theirs), len(ours))
            return False
        right = self._judge_in_full(test, answer, ours)
        self._count(right, answer, len(theirs), len(ours))
        return right

    def _longest_decoded(self, ours: int) -> int:
        """Bytes of the longest answer that is decoded to be held against an expected one of so many."""
        any_length = self.task.comparison.kind in _OF_ANY_LENGTH
        least = _LEAST_DECODED_OF_ANY_LENGTH if any_length else _LEAST_DECODED
        return min(max(least, _TIMES_OURS * ours), _LONGEST_DECODED)

    def _judge_in_full(self, test: int, answer: object, ours: bytes) -> bool:
        try:
            expected = decode(ours)
        except DecodeError:
            return False
        comparison = self.task.comparison
        if comparison.atol == 0 and comparison.kind == "evalplus" and is_floats(expected):
            return matches(comparison, answer, expected, lambda: self.bundle.arguments(test), FLOAT_ATOL)
        return self._judge(test, answer, expected)

    def _full_answer(
        self, source: str, test: int, limits: Limits, most_bytes: int
    ) -> Conversation[tuple[bytes | None, Done]]:
        """Run one test again with the answer sent whole; None where it did not come, or was too long."""
        received = bytearray()
        payload = function_payload(
            source, self.task.entry_point, self.bundle.inputs([test]), stop_at_error=True, full=True
        )
        done = yield RunRequest(
            payloads=(payload,),
            limits=replace(
                run_limits(limits, {0: limits.test_time_s(self.bundle.times[test])}),
                answer_bytes=most_bytes + _READ_AT_ONCE,
            ),
            group_sizes=(1,),
            on_data=collect_into(received),
            memory_bytes=limits.memory_bytes,
        )
        frames = split_frames(bytes(received))
        whole = [kind for kind, _ in frames[:2]] == [wire.LOADED, wire.VALUE]
        return (frames[1][1] if whole else None), done


def _may_be_equal(stream: AnswerStream, test: int) -> bool:
    """Whether the lengths leave it possible that two answers with different bytes are equal."""
    lengths = (stream.long_answers.get(test, 0), _answer_length(stream.expected.frame(test)))
    return max(lengths) <= _LONGEST_DECODED


def _answer_length(frame: bytes) -> int:
    """Bytes of the encoded answer in a VALUE or DIGEST frame."""
    if frame[wire.HEADER.size - 1] == wire.DIGEST:
        return int(wire.DIGEST_BODY.unpack(frame[wire.HEADER.size :])[0])
    return len(frame) - wire.HEADER.size


def split_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Split a stream into (kind, payload); an incomplete last frame is left out."""
    frames, position = [], 0
    while position + wire.HEADER.size <= len(data):
        length, kind = wire.HEADER.unpack_from(data, position)
        end = position + wire.HEADER.size + length
        if end > len(data):
            break
        frames.append((kind, data[position + wire.HEADER.size : end]))
        position = end
    return frames


def reference_limits(time_s: float = REFERENCE_TIME_S) -> Limits:
    """What a suite's reference solution may use: it is trusted to end, and some need more than a sample may."""
    return Limits(
        time_floor_s=time_s,
        group_time_s=time_s,
        memory_bytes=_REFERENCE_MEMORY,
        answer_bytes=_REFERENCE_ANSWERS,
    )


def comparison_needs_value(comparison: Comparison) -> bool:
    """Whether the expected answers must be plain data: only ``not_none`` looks no further than None."""
    return comparison.kind != "not_none"
