"""The supervisor's bookkeeping: tails, sums and clocks, and how it reads what a process writes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_process import OneProcess

from grader.sandbox.runner import clocks, pipes, reports, run, threads, wire

LIMITS = run.Limits(1.0, 1.0, {}, 10.0, None, 1 << 20, 1000)


def counter() -> run.Run:
    return run.Run(1, LIMITS, (), whole_program=False, out=wire.Writer(-1))


@given(st.lists(st.binary(max_size=50)), st.integers(1, 60))
def test_a_tail_is_the_end_of_what_was_added(pieces, size):
    tail = pipes.Tail(size)
    for piece in pieces:
        tail.add(piece)
    assert bytes(tail) == b"".join(pieces)[-size:]


def test_a_small_piece_is_added_to_a_tail_without_a_copy_of_the_rest(monkeypatch):
    size, tail, joined = 1 << 16, pipes.Tail(1 << 16), []
    keep = tail._keep
    monkeypatch.setattr(tail, "_keep", lambda data: joined.append(len(data)) or keep(data))
    for _ in range(10_000):
        tail.add(b"y")
    assert sum(joined) < 10 * size
    assert len(tail._pieces) <= 1001


@given(st.lists(st.integers(0, 100)))
def test_running_sums_are_where_each_group_ends(sizes):
    sums = run._running_sums(tuple(sizes))
    assert sums == [sum(sizes[: index + 1]) for index in range(len(sizes))]


def test_only_what_the_supervisor_waits_during_a_run_is_taken_for_its_programs_waiting(monkeypatch):
    """Over its life it may have waited for hours, and a sleeper must not live on that."""
    waited_ns = 10**13
    monkeypatch.setattr(threads, "delay_ns", lambda _pid, _proc: waited_ns)
    delay = clocks.RunDelay(-1)
    assert delay.seconds([]) == 0
    delay.begin()
    assert delay.seconds([]) == 0
    waited_ns += 10**9
    delay.begin()
    assert delay.seconds([]) == 1.0


@given(st.lists(st.integers(0, 10**9)))
def test_what_a_thread_that_has_ended_had_waited_still_counts(seen):
    delay, total = clocks.RunDelay(-1), 0.0
    with pytest.MonkeyPatch.context() as patch:
        for waited in seen:
            patch.setattr(threads, "longest_delay_ns", lambda _pid, _proc, waited=waited: waited)
            now = delay.seconds([0])
            assert now >= total
            total = now
    assert total >= max(seen, default=0) / 1e9


def test_a_run_that_was_cancelled_before_it_began_reports_no_use():
    report = b"".join(reports.never_started(7))
    size = wire.LENGTH.unpack_from(report)[0]
    facts = json.loads(report[wire.LENGTH.size : wire.LENGTH.size + size])
    assert facts["run"] == 7
    assert facts["ended"] == "cancelled"
    assert facts["cpu_s"] == facts["idle_s"] == facts["wall_s"] == facts["rss"] == 0
    assert len(report) == wire.LENGTH.size + size


@given(st.lists(st.lists(st.binary(max_size=100), max_size=3), max_size=10))
def test_gathered_frames_are_those_that_were_added(frames):
    reader, descriptor = os.pipe()
    try:
        writer = wire.Writer(descriptor)
        for kind, pieces in enumerate(frames):
            writer.add(kind, *pieces)
        writer.flush()
        writer.flush()
    finally:
        os.close(descriptor)
    with os.fdopen(reader, "rb") as file:
        written = file.read()
    assert written == b"".join(wire.frame(kind, b"".join(pieces)) for kind, pieces in enumerate(frames))


def test_much_is_not_gathered_long():
    reader, descriptor = os.pipe()
    writer = wire.Writer(descriptor)
    writer.add(1, b"x" * (1 << 15))
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    drained = threading.Thread(target=lambda: [os.read(reader, 1 << 16) for _ in range(2)])
    os.set_blocking(reader, True)
    drained.start()
    writer.add(1, b"x" * (1 << 15))
    drained.join(60)
    assert not drained.is_alive()
    os.close(reader)
    os.close(descriptor)


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.integers() | st.booleans() | st.sampled_from(["", "a word", "1.2"]) | st.floats(0, 1e6),
    )
)
def test_facts_are_json(facts):
    assert json.loads(wire.json(facts)) == facts


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_a_report_can_be_taken_apart(stdout, stderr):
    report = b"".join(reports.report({"run": 1}, stdout, stderr))
    size = wire.LENGTH.unpack_from(report)[0]
    facts = json.loads(report[4 : 4 + size])
    assert report[4 + size :][: facts["stdout"]] == stdout
    assert report[4 + size :][facts["stdout"] :] == stderr


@pytest.fixture
def watched(monkeypatch):
    """A run at the time ``now``, whose answers take ``pass_on_s`` to pass on, and whose program always runs."""
    watched = counter()
    watched.now, watched.pass_on_s = 0.0, 0.0
    watched._run_delay, watched._answers, watched._stdout, watched._stderr = clocks.RunDelay(-1), -1, -1, -1
    watched._began = watched._arrived = watched._polled = 0.0

    def pass_on(_cpu):
        watched.now += watched.pass_on_s

    monkeypatch.setattr(run.time, "monotonic", lambda: watched.now)
    monkeypatch.setattr(watched, "_drain_answers", pass_on)
    monkeypatch.setattr(watched, "shown_cpu", lambda: watched.now)
    return watched


def test_time_that_the_supervisor_takes_for_itself_is_not_idle(watched, monkeypatch):
    monkeypatch.setattr(watched, "_enforce", lambda _cpu, _wall: None)
    for poll_s, pass_on_s, idle in (
        (0.04, 0.0, 0.04),
        (100.0, 0.0, 0.09),  # it looks at least every 0.025 s, and is late after twice that
        (0.01, 7.0, 0.10),
    ):
        watched.next_wake_ms()
        watched.now += poll_s
        watched.pass_on_s = pass_on_s
        watched.advance({})
        watched.next_wake_ms()
        assert watched._step.idle(0.0, watched.now, 0.0) == pytest.approx(idle)


def test_no_limit_counts_before_the_processes_are_set_up(watched, monkeypatch):
    """What the kernel takes to make namespaces on a busy machine is no time of the program's."""
    killed = []
    monkeypatch.setattr(watched, "kill", killed.append)
    watched._to_start = 5
    for seconds in (1.0, 4.0, 24.0):
        watched.now += seconds
        watched.advance({})
    assert killed == []
    watched.now += 2.0
    watched.advance({})
    assert killed == ["not_started"]  # which is nobody's verdict
    watched._to_start = 0
    watched._start_up(watched.now)
    assert watched._step.cpu == watched._whole_group.cpu == watched.now


def test_what_a_program_does_while_its_answers_are_passed_on_is_charged_to_no_test(watched, monkeypatch):
    monkeypatch.setattr(watched, "kill", pytest.fail)

    def pass_on(_cpu):
        watched.now += 7.0  # beyond a test's limit
        watched._frames.count = 2

    watched._frames.count, watched._bounds = 1, [10]
    monkeypatch.setattr(watched, "_drain_answers", pass_on)
    watched.advance({})
    watched.next_wake_ms()
    watched._enforce(watched.now, watched.now)


def test_a_program_that_found_the_pipe_full_was_not_idle_until_it_was_read(watched, monkeypatch):
    monkeypatch.setattr(watched, "_enforce", lambda _cpu, _wall: None)
    for answers, idle in ((0, 0.02), (pipes.PIPE_BYTES // 2 - 1, 0.04), (pipes.PIPE_BYTES // 2, 0.04)):

        def pass_on(_cpu, answers=answers):
            watched._answer_bytes += answers

        monkeypatch.setattr(watched, "_drain_answers", pass_on)
        watched.next_wake_ms()
        watched.now += 0.02
        watched.advance({})
        watched.next_wake_ms()
        assert watched._step.idle(0.0, watched.now, 0.0) == pytest.approx(idle)


SMALLEST_PIPE = 4096
LONG_ANSWER = f"""
import os, sys
answers = int(sys.argv[1])
data = memoryview({wire.frame(wire.STARTED, b"")!r} + {wire.HEADER.pack(2_000_000, wire.VALUE)!r} + bytes(2000000))
while data: data = data[os.write(answers, data):]
"""


@contextlib.contextmanager
def proc_folder():
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield proc
    finally:
        os.close(proc)


def test_a_long_answer_through_the_smallest_pipe_is_slower_and_not_different(monkeypatch, tmp_path):
    """Read at each wake it would take up to twelve seconds, in which the program mostly sleeps."""

    def widen(writer):
        pipes.widen_pipe(writer, SMALLEST_PIPE)
        return False

    monkeypatch.setattr(run, "widen", widen)
    with (tmp_path / "sent").open("wb") as sent, proc_folder() as proc:
        out, poll = wire.Writer(sent.fileno()), select.poll()
        limits = LIMITS._replace(idle_s=1.0, load_s=60.0, test_s=60.0, answer_bytes=1 << 24)
        watched = run.Run(1, limits, (1,), whole_program=False, out=out)
        watched.start(OneProcess(LONG_ANSWER), (b"",), poll, run.Watch(proc, None, None))
        woken = 0
        while not watched.over:
            events = dict(poll.poll(watched.next_wake_ms()))
            woken += bool(events.get(watched._answers, 0) & select.POLLIN)
            watched.advance(events)
        watched.reap()
        out.flush()
    assert woken
    assert watched._killed is None
    assert watched._answer_bytes == wire.HEADER.size + 2_000_000
    assert (tmp_path / "sent").stat().st_size > watched._answer_bytes


@pytest.fixture
def idler(monkeypatch):
    """A run that is over its idle limit by the clocks; ``killed`` is what it was, ``states`` those of its threads."""
    idler = counter()
    idler._proc, idler._pids, idler.states, idler.killed = -1, [0], b"S", []
    idler._run_delay = clocks.RunDelay(-1)
    monkeypatch.setattr(threads, "states", lambda _pid, _proc: idler.states)
    monkeypatch.setattr(threads, "is_stopped", lambda _pid, _proc: False)
    monkeypatch.setattr(idler, "kill", idler.killed.append)
    return idler


def watch(idler, begin, end):
    for tick in range(int(begin * 100), int(end * 100)):
        idler._enforce(0.0, tick / 100)


def test_a_program_that_sleeps_is_killed_soon_after_its_limit(idler):
    watch(idler, 0.0, 1.0)
    assert idler.killed == []
    watch(idler, 1.0, 1.3)
    assert idler.killed[0] == "idle_limit"


def test_a_program_whose_processor_a_hypervisor_takes_away_is_not_idle(idler):
    idler.states = b"SR"
    watch(idler, 0.0, 20.0)
    assert idler.killed == []
    idler.states = b"SS"
    watch(idler, 20.0, 40.0)
    assert idler.killed[0] == "idle_limit"


def test_a_program_that_waits_inside_the_kernel_is_not_idle_for_a_while(idler):
    idler.states = b"D"
    watch(idler, 0.0, 4.0)
    assert idler.killed == []
    watch(idler, 4.0, 20.0)
    assert idler.killed[0] == "idle_limit"


def test_the_supervisor_looks_often_at_first_and_then_seldom():
    watched = counter()
    watched._began = watched._arrived = time.monotonic()
    early = watched.next_wake_ms()
    watched._began -= 100
    assert 1 <= early < watched.next_wake_ms() == 25


def test_the_supervisor_does_not_read_answers_for_as_long_as_somebody_writes(monkeypatch):
    """Meanwhile it would hold no limit."""
    out = wire.Writer(-1)
    watched, reads = run.Run(1, LIMITS, (), whole_program=True, out=out), []
    watched._answers = -1
    monkeypatch.setattr(run.os, "read", lambda _pipe, _size: reads.append(1) or b"x")
    monkeypatch.setattr(out, "add", lambda *_frame: None)
    watched._drain_answers(0.0)
    assert len(reads) * 4096 == pipes.PIPE_BYTES  # whatever a pipe can hold has been read
