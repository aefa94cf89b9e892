"""How a run ends: at its processes' end, and not when one of them closes a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys

from grader.sandbox.runner import run, wire

LIMITS = run.Limits(60.0, 60.0, {}, 60.0, 60.0, 1 << 20, 1000)
BEGIN = f"import os, sys, time\nanswers = int(sys.argv[1])\nos.write(answers, {wire.frame(wire.STARTED, b'')!r})\n"


class OneProcess:
    """In a zygote's place: starts an interpreter that runs a program, told where its answers go."""

    def __init__(self, program: str) -> None:
        self._program = program

    def fork(self, _payloads: tuple[bytes, ...], answers: int, stdout: int, _stderr: int) -> list[int]:
        command = [sys.executable, "-I", "-S", "-c", BEGIN + self._program, str(answers)]
        self.process = subprocess.Popen(command, stdout=stdout, pass_fds=(answers,))
        return [self.process.pid]

    def wait(self, pid: int) -> tuple[int, float, int]:
        _, status, usage = os.wait4(pid, 0)
        self.process.returncode = status
        return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


@contextlib.contextmanager
def started(program, *, whole_program, limits=LIMITS):
    """Yield a run of a program, and the function that waits for what the supervisor is woken by."""
    proc, sent, poll = (
        os.open("/proc", os.O_RDONLY | os.O_DIRECTORY),
        os.open("/dev/null", os.O_WRONLY),
        select.poll(),
    )
    sizes = () if whole_program else (1,)
    watched = run.Run(1, limits, sizes, whole_program=whole_program, out=wire.Writer(sent))
    try:
        watched.start(OneProcess(program), (b"",), poll, run.Watch(proc, None, None))
        yield watched, lambda: dict(poll.poll(watched.next_wake_ms()))
    finally:
        os.close(proc)
        os.close(sent)


def facts_of(watched):
    size, text, *_ = watched.reap()
    assert wire.LENGTH.unpack(size) == (len(text),)
    return json.loads(text)


def facts_at_the_end(program, *, whole_program, limits=LIMITS):
    with started(program, whole_program=whole_program, limits=limits) as (watched, events):
        while not watched.over:
            watched.advance(events())
        return facts_of(watched)


def test_a_run_that_is_over_before_the_supervisor_first_looks_was_not_idle_since_the_machine_started():
    """On a busy machine that is so; what it was idle is taken from what later runs of the sample may be."""
    with started("os.write(answers, b'answer')", whole_program=False) as (watched, events):
        os.waitid(os.P_PID, watched._pids[0], os.WEXITED | os.WNOWAIT)
        watched._began -= 1.0
        watched._excuse(0.5)
        watched.advance(events())
        assert watched.over
        facts = facts_of(watched)
    assert (facts["ended"], facts["idle_s"]) == ("exited", 0.0)


CLOSES = "os.close(answers)\ntime.sleep(0.5)\n"


def test_a_whole_program_that_closes_what_it_does_not_know_is_judged_by_how_it_ends():
    facts = facts_at_the_end(CLOSES + "print('printed', flush=True)\nos._exit(3)", whole_program=True)
    assert (facts["ended"], facts["code"]) == ("exited", 3)


def test_a_function_that_closes_its_answer_pipe_is_judged_by_how_it_ends():
    facts = facts_at_the_end(CLOSES + "os._exit(5)", whole_program=False)
    assert (facts["ended"], facts["code"], facts["signal"]) == ("exited", 5, 0)


def test_a_function_that_closes_its_answer_pipe_and_goes_on_has_ended_without_an_answer():
    limits = LIMITS._replace(idle_s=0.3)
    facts = facts_at_the_end("os.close(answers)\ntime.sleep(3600)", whole_program=False, limits=limits)
    assert (facts["ended"], facts["signal"], facts["outside"]) == ("signalled", 9, False)


def test_a_whole_program_that_closes_its_pipes_and_goes_on_has_its_limits():
    limits = LIMITS._replace(idle_s=0.3)
    facts = facts_at_the_end("os.closerange(1, 99)\ntime.sleep(3600)", whole_program=True, limits=limits)
    assert facts["ended"] == "idle_limit"


def test_a_program_that_closes_its_output_does_not_keep_the_supervisor_busy():
    with started("os.close(1)\ntime.sleep(0.5)", whole_program=True) as (watched, events):
        woken = 0
        while not watched.over:
            seen = events()
            woken += watched._stdout in seen
            watched.advance(seen)
        facts = facts_of(watched)
    assert woken == 1
    assert facts["ended"] == "exited"
