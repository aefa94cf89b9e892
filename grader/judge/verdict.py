"""From what was found to what is judged: test groups, statuses, and the error that is told.

Why a process ended is taken from the kernel's counters and our own kill record, never guessed from a signal number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grader.judge.stream import AnswerStream, Finding, Raised
from grader.status import Status

_BY_ENDING = {
    "cpu_limit": Status.TIME_LIMIT,
    "idle_limit": Status.TIME_LIMIT,
    "output_limit": Status.OUTPUT_LIMIT,
}
_SIGSYS = 31
_SIGNAL_NAMES = {
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    31: "SIGSYS",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, in plain facts."""

    ended: str
    code: int = 0
    signal: int = 0
    memory_kill: bool = False


@dataclass(frozen=True)
class GroupOutcome:
    """What came of one test group; ``first_failed`` counts from 0 within the group."""

    status: Status
    passed: int
    total: int
    first_failed: int | None
    error: Raised | None = None


def status_of_ending(ending: Ending) -> Status:
    """What is judged of a test that has no answer because its process ended."""
    if ending.memory_kill:
        return Status.MEMORY_LIMIT
    if ending.ended in _BY_ENDING:
        return _BY_ENDING[ending.ended]
    if ending.ended == "signalled" and ending.signal == _SIGSYS:
        return Status.SECURITY_VIOLATION
    return Status.RUNTIME_ERROR


def error_of_ending(ending: Ending) -> Raised | None:
    """What the user is told of such an end; None where the status says it all."""
    if ending.memory_kill or ending.ended in _BY_ENDING:
        return None
    if ending.ended == "signalled":
        if ending.signal == _SIGSYS:
            return Raised(
                "ForbiddenSystemCall", "the program made a system call that only an attack makes", 0
            )
        name = _SIGNAL_NAMES.get(ending.signal, f"signal {ending.signal}")
        return Raised("Crashed", f"the process was ended by {name}", 0)
    return Raised("Exited", f"the process exited with status {ending.code} before it had answered", 0)


def status_of_raised(raised: Raised) -> Status:
    """What is judged of an exception."""
    return Status.MEMORY_LIMIT if raised.type == "MemoryError" else Status.RUNTIME_ERROR


def group_outcomes(
    stream: AnswerStream, sizes: Sequence[int], ending: Ending, *, fail_fast: bool
) -> list[GroupOutcome | None]:
    """Judge each group of a run; None for a group that was not run to a judgement.

    A group is judged by its first failing test. After a group in which the process ended, or with ``fail_fast``
    any failing group, the later groups are None.
    """
    outcomes: list[GroupOutcome | None] = []
    begin, over = 0, False
    for size in sizes:
        if over:
            outcomes.append(None)
            continue
        outcome = _group(stream, begin, size, ending)
        outcomes.append(outcome)
        unanswered = stream.answered < begin + size
        over = unanswered or (fail_fast and outcome.status is not Status.PASSED)
        begin += size
    return outcomes


def _group(stream: AnswerStream, begin: int, size: int, ending: Ending) -> GroupOutcome:
    end = begin + size
    answered = min(max(stream.answered - begin, 0), size)
    failed = sorted(test for test in stream.findings if begin <= test < end)
    passed = answered - len(failed)
    if stream.load_error is not None or stream.violation is not None:
        status, error = _of_whole_program(stream)
        first = failed[0] - begin if failed else min(answered, max(size - 1, 0))
        return GroupOutcome(status, passed, size, first, error)
    if failed:
        first = failed[0]
        if stream.findings[first] is Finding.RAISED:
            raised = stream.raised[first]
            return GroupOutcome(status_of_raised(raised), passed, size, first - begin, raised)
        timed_out = stream.findings[first] is Finding.TIMED_OUT
        status = Status.TIME_LIMIT if timed_out else Status.WRONG_ANSWER
        return GroupOutcome(status, passed, size, first - begin)
    if answered < size:
        return GroupOutcome(status_of_ending(ending), passed, size, answered, error_of_ending(ending))
    return GroupOutcome(Status.PASSED, passed, size, None)


def _of_whole_program(stream: AnswerStream) -> tuple[Status, Raised | None]:
    if stream.violation is not None:
        return Status.SECURITY_VIOLATION, Raised("Tampering", stream.violation, 0)
    assert stream.load_error is not None
    if not stream.compiled:
        return Status.COMPILE_ERROR, stream.load_error
    return status_of_raised(stream.load_error), stream.load_error
