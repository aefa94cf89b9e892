"""How a run ends: at its processes' end, and not when one of them closes a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import select

from one_process import OneProcess

from grader.sandbox.runner import run, wire

LIMITS = run.Limits(60.0, 60.0, {}, 60.0, 60.0, 1 << 20, 1000)
BEGIN = f"import os, sys\nanswers = int(sys.argv[1])\nos.write(answers, {wire.frame(wire.STARTED, b'')!r})\n"


@contextlib.contextmanager
def started(program, *, whole_program, limits=LIMITS):
    """Yield a run of a program, its process, and the function that waits for what the supervisor is woken by."""
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    sent, poll = os.open("/dev/null", os.O_WRONLY), select.poll()
    sizes, process = () if whole_program else (1,), OneProcess(BEGIN + program)
    watched = run.Run(1, limits, sizes, whole_program=whole_program, out=wire.Writer(sent))
    try:
        watched.start(process, (b"",), poll, run.Watch(proc, None, None))
        yield watched, process, lambda: dict(poll.poll(watched.next_wake_ms()))
    finally:
        os.close(proc)
        os.close(sent)


def facts_of(watched):
    size, text, *_ = watched.reap()
    assert wire.LENGTH.unpack(size) == (len(text),)
    return json.loads(text)


def facts_at_the_end(program, *, whole_program, limits=LIMITS):
    """Run a program that goes on, where it waits for that, once the supervisor has seen that it closed its pipe."""
    with started(program, whole_program=whole_program, limits=limits) as (watched, process, events):
        while not watched.over:
            watched.advance(events())
            if watched._hung_up and limits is LIMITS:
                process.go_on()
        return facts_of(watched)


def test_a_run_that_is_over_before_the_supervisor_first_looks_was_not_idle_since_the_machine_started():
    """On a busy machine that is so; what it was idle is taken from what later runs of the sample may be."""
    with started("os.write(answers, b'answer')", whole_program=False) as (watched, _, events):
        os.waitid(os.P_PID, watched._pids[0], os.WEXITED | os.WNOWAIT)
        watched._began -= 1.0
        watched._excuse(0.5)
        watched.advance(events())
        assert watched.over
        facts = facts_of(watched)
    assert (facts["ended"], facts["idle_s"]) == ("exited", 0.0)


WAITS = "sys.stdin.read()\n"
CLOSES = "os.close(answers)\n" + WAITS


def test_a_whole_program_that_closes_what_it_does_not_know_is_judged_by_how_it_ends():
    facts = facts_at_the_end(CLOSES + "print('printed', flush=True)\nos._exit(3)", whole_program=True)
    assert (facts["ended"], facts["code"]) == ("exited", 3)


def test_a_function_that_closes_its_answer_pipe_is_judged_by_how_it_ends():
    facts = facts_at_the_end(CLOSES + "os._exit(5)", whole_program=False)
    assert (facts["ended"], facts["code"], facts["signal"]) == ("exited", 5, 0)


def test_a_function_that_closes_its_answer_pipe_and_goes_on_has_ended_without_an_answer():
    limits = LIMITS._replace(idle_s=0.3)
    facts = facts_at_the_end(CLOSES, whole_program=False, limits=limits)
    assert (facts["ended"], facts["signal"], facts["outside"]) == ("signalled", 9, False)


def test_a_whole_program_that_closes_its_pipes_and_goes_on_has_its_limits():
    limits = LIMITS._replace(idle_s=0.3)
    facts = facts_at_the_end("os.closerange(1, 99)\n" + WAITS, whole_program=True, limits=limits)
    assert facts["ended"] == "idle_limit"


def test_a_program_that_closes_its_output_does_not_keep_the_supervisor_busy():
    with started("os.close(1)\n" + WAITS, whole_program=True) as (watched, process, events):
        woken = looks = 0
        while not watched.over:
            seen = events()
            woken += watched._stdout in seen
            watched.advance(seen)
            looks += bool(woken)
            if looks == 10:
                process.go_on()
        facts = facts_of(watched)
    assert woken == 1
    assert facts["ended"] == "exited"
