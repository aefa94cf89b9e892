"""Make a task's bundle: run its reference solution in a cell and keep what it answers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from grader.errors import SuiteError
from grader.judge.compare import tolerances
from grader.judge.stream import read_raised
from grader.limits import Limits
from grader.sandbox.runner import wire
from grader.sandbox.runner.decoding import DecodeError, Foreign, decode
from grader.sandbox.runner.encoding import encode
from grader.sandbox.runner.function import encode_bounded
from grader.status import Status
from grader.suites.task import AssertionTests, FunctionTests, StdioTests, Task
from grader.worker.assertions import prepare_assertions
from grader.worker.bundle import BundleStore, Header, StdioAnswers, encode_inputs, expected_stream
from grader.worker.functions import comparison_needs_value, split_frames
from grader.worker.requests import Conversation, RunRequest, collect_into, function_payload, run_limits
from grader.worker.stdio import judge_run, run_program


def prepare(task: Task, store: BundleStore, limits: Limits) -> Conversation[None]:
    """Make and write what the task's tests need. ``limits``: what its reference may use.

    Raises SuiteError where its reference fails.
    """
    if any(isinstance(group.tests, FunctionTests) for group in task.groups):
        yield from _prepare_functions(task, store, limits)
    if any(isinstance(group.tests, StdioTests) for group in task.groups):
        yield from _prepare_stdio(task, store, limits)
    if task.reference and any(isinstance(group.tests, AssertionTests) for group in task.groups):
        yield from prepare_assertions(task, store, limits)


def _prepare_stdio(task: Task, store: BundleStore, limits: Limits) -> Conversation[None]:
    answers = StdioAnswers({}, {})
    for group in task.groups:
        if not isinstance(group.tests, StdioTests):
            continue
        stdout = answers.stdout[group.name] = []
        times = answers.times[group.name] = []
        for index, test in enumerate(group.tests.tests):
            printed, seconds = test.stdout, 0.0
            if task.reference:
                ran = yield from run_program(task.reference, test, limits, limits.time_floor_s)
                status, error = judge_run(ran, limits.memory_bytes)
                if status is not Status.PASSED:
                    place = f"task {task.task_id}, group {group.name}, test {index}"
                    raise SuiteError(f"{place}: the reference program ended with {status} ({error})")
                seconds = ran.done.cpu_s
                printed = ran.output.decode("utf-8", "surrogateescape") if printed is None else printed
            assert printed is not None  # the loader demands one where there is no reference
            stdout.append(printed)
            times.append(seconds)
    store.write_stdio(task, answers)


def _prepare_functions(task: Task, store: BundleStore, limits: Limits) -> Conversation[None]:
    groups = [group for group in task.groups if isinstance(group.tests, FunctionTests)]
    inputs = [group.tests.inputs() for group in groups if isinstance(group.tests, FunctionTests)]
    encoded = b"".join(encode_inputs(group) for group in inputs)
    reference = yield from _reference_answers(task, encoded, sum(map(len, inputs)), limits)
    frames = reference.frames
    begin = 0
    switches = []
    long_answers: dict[int, bytes] = {}
    for group, tests in zip(groups, inputs, strict=True):
        assert isinstance(group.tests, FunctionTests)
        if group.tests.expected is not None:
            given = group.tests.expected()
            if len(given) != len(tests):
                raise SuiteError(
                    f"task {task.task_id}, group {group.name}: {len(tests)} inputs but {len(given)} expected values"
                )
            frames[begin : begin + len(tests)] = [_frame(value) for value in given]
            long_answers |= {
                begin + index: encode(value)
                for index, value in enumerate(given)
                if frames[begin + index][wire.HEADER.size - 1] == wire.DIGEST
            }
        part = frames[begin : begin + len(tests)]
        _check(task, group.name, part)
        switches.append(_first_tolerance(task, part))
        begin += len(tests)
    header = Header(
        task.task_id,
        [group.name for group in groups],
        [len(tests) for tests in inputs],
        switches,
        reference.peak_memory_bytes,
    )
    store.write(task, header, encoded, expected_stream(frames), reference.times, long_answers)


@dataclass(frozen=True, slots=True)
class _Reference:
    """What the reference answered, a frame a test, and what it used: CPU seconds a test, bytes at the most."""

    frames: list[bytes]
    times: Sequence[float]
    peak_memory_bytes: int


def _reference_answers(task: Task, inputs: bytes, tests: int, limits: Limits) -> Conversation[_Reference]:
    given = all(isinstance(group.tests, FunctionTests) and group.tests.expected for group in task.groups)
    if given or not task.reference:
        return _Reference([b""] * tests, array("d", bytes(8 * tests)), 0)
    received = bytearray()
    done = yield RunRequest(
        payloads=(
            function_payload(task.reference, task.entry_point, inputs, stop_at_error=True, timing=True),
        ),
        limits=run_limits(limits, {}),
        group_sizes=(tests,),
        on_data=collect_into(received),
        memory_bytes=limits.memory_bytes,
    )
    answers = split_frames(bytes(received))
    if len(answers) != tests + 2 or answers[-1][0] != wire.FINISHED:
        answered = sum(kind in (wire.VALUE, wire.DIGEST) for kind, _ in answers)
        raise SuiteError(
            f"the reference solution of {task.task_id} answered {answered} of {tests} tests "
            f"({_what_happened(answers)}; {done.ended})"
        )
    if not all(
        kind == wire.VALUE or (kind == wire.DIGEST and _is_digest(body)) for kind, body in answers[1:-1]
    ):
        raise SuiteError(f"the reference solution of {task.task_id} wrote to the answer channel itself")
    frames = [_normalised(task, wire.frame(kind, payload)) for kind, payload in answers[1:-1]]
    times = _believable_times(task, answers[-1][1], tests, max(done.cpu_s, done.wall_s))
    return _Reference(frames, times, done.peak_memory_bytes)


def _is_digest(body: bytes) -> bool:
    return len(body) == wire.DIGEST_BODY.size and wire.DIGEST_BODY.unpack(body)[0] >= wire.LEAST_DIGEST


def _believable_times(task: Task, data: bytes, tests: int, whole_s: float) -> array[float]:
    """The CPU seconds a test that the reference's process tells of itself. The limits of others' programs are made of
    them: so together they are no more than it took as a whole, as measured from outside."""
    if len(data) != tests * array("d").itemsize or not all(0 <= time < math.inf for time in array("d", data)):
        raise SuiteError(f"the reference solution of {task.task_id} told of times that are none")
    times = array("d", data)
    total = sum(times)
    return times if total <= whole_s else array("d", (time / total * whole_s for time in times))


def _what_happened(answers: list[tuple[int, bytes]]) -> str:
    for kind, payload in answers:
        if kind in (wire.RAISED, wire.UNCOMPILABLE):
            raised = read_raised(payload)
            return f"{raised.type}: {raised.message}, line {raised.line}"
    return "no exception"


def _frame(value: object) -> bytes:
    kind, payload = encode_bounded(value, wire.DIGEST_ABOVE)
    return wire.frame(kind, payload)


def _normalised(task: Task, frame: bytes) -> bytes:
    """Where only None or not None counts, expect that as a bool."""
    if comparison_needs_value(task.comparison):
        return frame
    return _frame(frame[wire.HEADER.size :] != encode(None))


def _check(task: Task, group: str, frames: Sequence[bytes]) -> None:
    """Refuse an expected answer that no program can give, because it is not plain data."""
    for index, frame in enumerate(frames):
        if frame[wire.HEADER.size - 1] == wire.VALUE and b"opaque" in frame and _has_opaque(frame):
            raise SuiteError(
                f"task {task.task_id}, group {group}, test {index}: the reference's answer is not plain data; "
                "no answer could be compared with it"
            )


def _has_opaque(frame: bytes) -> bool:
    waiting = [_decoded(frame)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Foreign):
            if value.kind == "opaque":
                return True
            waiting.append(value.value)
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
    return False


def _decoded(frame: bytes) -> object:
    if frame[wire.HEADER.size - 1] != wire.VALUE:
        return None
    try:
        return decode(frame[wire.HEADER.size :])
    except DecodeError:
        return None


def _first_tolerance(task: Task, frames: Sequence[bytes]) -> int | None:
    """The first test of a group from which on a tolerance is in force (see ``tolerances``)."""
    values = map(_decoded, frames)
    return next((index for index, atol in enumerate(tolerances(task.comparison, values)) if atol), None)
