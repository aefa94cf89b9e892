"""The local engine with stand-ins for its workers: real processes on real pipes that grade nothing."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import os
import signal
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from grader.dispatch import blocking
from grader.dispatch.blocking import BlockingEngine
from grader.dispatch.driver import Driver
from grader.engines import child, local
from grader.engines.pool import PoolFailed, WorkerLost
from grader.errors import InfrastructureError, SandboxError, SuiteError
from grader.limits import Limits
from grader.sandbox import factory
from grader.sandbox.options import CellOptions
from grader.status import Status
from grader.suites.task import AssertionTests, FunctionTests, Suite, Task, TestGroup
from grader.worker.execution import Execution
from grader.worker.messages import Cancel
from grader.worker.program import Program

# A worker that does what a program's source says: pass, die, or anything else, which is a wrong answer.
WORKER = """
import os, sys
from grader.worker.link import Link
from grader.worker.messages import Cancel, Execute, Failed, Grade, Graded, Prepared, Ran, Ready
from grader.worker.execution import Executed

link = Link(0, 1)
messages = []
while not link.closed and not messages:
    messages = sum(link.receive(), [])
{at_start}
link.send([Ready({{"backend": "stand-in", "layers": ()}})])
jobs = messages[1:]
while jobs or not link.closed:
    for job in jobs:
        if isinstance(job, Cancel):
            continue
        if isinstance(job, Execute):
            if job.execution.source == "die":
                os._exit(9)
            link.send([Ran(job.number, Executed("exited", 0, 0, b"", b"", 0.0, 0.0, 0))])
            continue
        if not isinstance(job, Grade):
            {prepare}
            continue
        word = job.program.source.split()[0]
        if word == "die":
            os._exit(9)
        if word == "die-once" and job.attempts == 1:
            os._exit(9)
        if word == "fail-once" and job.attempts == 1:
            link.send([Failed("SandboxError", "no new cell now")])
            sys.exit(1)
        fields = {{"sample_id": job.program.sample_id, "status": word, "cpu_s": 0.001, "wall_s": 0.001,
                   "attempts": job.attempts, "passed": word == "passed", "tail": job.program.source[-100_000:]}}
        link.send([Graded(job.number, fields)])
    jobs = [] if link.closed else sum(link.receive(), [])
"""


def suite_of(tests, n=3):
    tasks = [Task(f"T/{i}", "", "f", "def f(): ...", (TestGroup("base", tests),)) for i in range(n)]
    return Suite("toy", "v1", "0" * 64, {task.task_id: task for task in tasks})


@pytest.fixture
def local_pool(tmp_path, monkeypatch):
    """Make a pool whose workers are stand-ins."""
    monkeypatch.setenv("GRADER_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(
        factory, "prepare", lambda *_, **__: factory.CellSource(CellOptions(), "key", "digest")
    )

    def made(at_start="", prepare="link.send([Prepared(job.number)])", workers=2, **options):
        monkeypatch.setattr(child, "_START_WORKER", WORKER.format(at_start=at_start, prepare=prepare))
        return local.LocalPool(limits=Limits(), workers=workers, **options)

    return made


@pytest.fixture
def engine(local_pool):
    """Make an engine over such a pool."""

    def made(tests=None, on_progress=lambda *_: None, **options):
        suite = suite_of(tests or AssertionTests(("assert f()",)))
        return BlockingEngine(local_pool(**options), suite, limits=Limits(), on_progress=on_progress)

    return made


def programs(*words):
    return [Program(f"T/{index % 3}", f"s{index}", word) for index, word in enumerate(words)]


def graded(engine, given):
    with engine:
        verdicts = list(engine.grade(given))
    found = {verdict["sample_id"]: verdict for verdict in verdicts}
    assert len(found) == len(verdicts), "a program was graded twice"
    return found


def test_each_program_has_one_verdict(engine):
    found = graded(engine(), programs(*["passed", "wrong_answer"] * 40))
    assert {name: verdict["status"] for name, verdict in found.items()} == {
        f"s{index}": ["passed", "wrong_answer"][index % 2] for index in range(80)
    }


def test_no_programs_no_verdicts(engine):
    assert graded(engine(), []) == {}


def test_an_engine_can_be_asked_again(engine):
    with engine() as asked:
        for _ in range(3):
            assert len(list(asked.grade(programs("passed", "passed")))) == 2


def test_an_interrupted_preparation_leaves_no_task_behind(engine, caplog, monkeypatch):
    """Ctrl-C comes to who waits, while the loop's thread goes on."""
    tests = FunctionTests(lambda: [[1]])  # whose expected answers have to be made
    asked = engine(tests, prepare="while not link.closed: link.receive()")
    result, waits, here = Future.result, itertools.count(1), threading.get_ident()

    def interrupted(future, timeout=None):
        if threading.get_ident() == here and next(waits) == 2:  # the preparation, after the start
            raise KeyboardInterrupt
        return result(future, timeout)

    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt), asked:
        pytest.fail("prepared")
    del asked
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_leaving_it_ends_its_workers(engine):
    made = engine()
    with made:
        list(made.grade(programs("passed")))
        processes = [one.process for one in made.pool._children.values()]
        assert len(processes) == 2
    assert all(process.returncode is not None for process in processes)
    assert all(pipe.closed for process in processes for pipe in (process.stdin, process.stdout))


def test_leaving_it_in_the_middle_ends_its_workers(engine):
    made = engine()
    with made:
        verdicts = made.grade(programs(*["passed"] * 50))
        next(verdicts)
        processes = [one.process for one in made.pool._children.values()]
    assert all(process.returncode is not None for process in processes)


def test_what_a_dead_worker_held_is_graded_by_another(engine):
    words = ["passed"] * 5 + ["die-once wrong_answer"] + ["passed"] * 30
    found = graded(engine(), programs(*words))
    assert len(found) == len(words)
    assert found["s5"]["attempts"] == 2
    assert all(verdict["attempts"] <= 4 for verdict in found.values())
    assert all(found[f"s{index}"]["status"] == "passed" for index in range(36) if index != 5)


def test_a_program_that_takes_four_workers_with_it_is_given_up_without_a_judgement(engine):
    words = ["passed"] * 3 + ["die"] + ["passed"] * 30
    found = graded(engine(), programs(*words))
    assert found["s3"]["status"] == Status.INFRASTRUCTURE_ERROR
    assert found["s3"]["reward"] is None
    assert found["s3"]["attempts"] == 4
    others = [verdict for name, verdict in found.items() if name != "s3"]
    assert len(others) == 33
    # Neighbours that were at the same worker each time may share its fate, but are never judged wrong.
    assert {verdict["status"] for verdict in others} <= {"passed", Status.INFRASTRUCTURE_ERROR}


def test_workers_that_die_at_their_start_are_given_up(engine):
    with pytest.raises(InfrastructureError, match="end as soon as they start"):
        graded(engine(at_start="os._exit(7)"), programs("passed"))


def test_a_worker_that_fails_after_it_was_ready_is_replaced(engine):
    """What went wrong with one, e.g. a new cell for want of memory, need not go wrong with the next."""
    words = ["passed"] * 5 + ["fail-once"] + ["passed"] * 30
    found = graded(engine(), programs(*words))
    assert found["s5"]["attempts"] == 2
    assert len(found) == len(words)


# Fails at its start if a file says so, that another run or worker writes.
AT_START_IF = """
import pathlib
if pathlib.Path({path!r}).exists():
    link.send([Failed("SandboxError", "nothing is left of the disk")])
    sys.exit(1)
"""


def test_starts_that_keep_failing_are_given_up_with_their_reason(engine, tmp_path):
    flag = tmp_path / "broken"
    made = engine(at_start=AT_START_IF.format(path=str(flag)))
    with made:
        assert len(list(made.grade(programs("passed")))) == 1
        flag.touch()
        with pytest.raises(SandboxError, match="nothing is left of the disk"):
            list(made.grade(programs(*["die"] * 20)))


def on_a_loop(test):
    """Run an asynchronous test."""

    @functools.wraps(test)
    def run(**fixtures):
        asyncio.run(test(**fixtures))

    return run


async def until(condition):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("waited in vain")


@pytest.fixture
def driver(local_pool):
    """Make a dispatcher as a service has it: patient."""

    def made(**options):
        events, warnings = [], []
        pool = local_pool(patient=True, on_warning=warnings.append, **options)
        return Driver(pool, None, events.append), events, warnings

    return made


async def ran(driver, source):
    return await driver.execute(Execution(source), Limits(), tenant="one", timeout_s=60)


@on_a_loop
async def test_a_service_goes_on_when_workers_can_be_started_again(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_PATIENCE_S", (0.0, 0.05))
    flag = tmp_path / "broken"
    made, events, warnings = driver(at_start=AT_START_IF.format(path=str(flag)))
    await made.start()
    try:
        await until(lambda: made.state().workers["ready"] == 2)
        flag.touch()
        for pid in made._pool.processes().values():
            os.kill(pid, signal.SIGKILL)
        await until(lambda: made.state().failure)
        assert "nothing is left" in made.state().failure
        waiting = asyncio.ensure_future(ran(made, "pass"))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        flag.unlink()
        assert (await waiting).ended == "exited"
        assert made.state().failure is None
        assert not [event for event in events if isinstance(event, PoolFailed)]
        assert warnings == ["a worker cannot be started: nothing is left of the disk"]
    finally:
        await made.close()


@on_a_loop
async def test_a_process_that_cannot_be_made_is_tried_again(driver, monkeypatch):
    made, _, warnings = driver(workers=1)
    real, failures = child._spawn, [OSError(11, "no process"), OSError(12, "no memory")]

    def spawn():
        if failures:
            raise failures.pop()
        return real()

    await made.start()
    try:
        await made.first_worker(60)
        monkeypatch.setattr(child, "_spawn", spawn)
        os.kill(next(iter(made._pool.processes().values())), signal.SIGKILL)
        assert (await ran(made, "pass")).ended == "exited"
        assert not failures
        assert "no memory" in warnings[0]
    finally:
        await made.close()


@on_a_loop
async def test_workers_that_die_now_and_then_between_runs_end_no_service(driver):
    """However few verdicts there are among what they do."""
    made, events, _ = driver(workers=1)
    await made.start()
    try:
        for _ in range(2):
            with pytest.raises(InfrastructureError, match="4 attempts"):
                await ran(made, "die")
            assert (await ran(made, "pass")).ended == "exited"
        assert not [event for event in events if isinstance(event, PoolFailed)]
    finally:
        await made.close()


@on_a_loop
async def test_busy_workers_are_counted_as_such(driver):
    made, _, _ = driver(workers=2)
    await made.start()
    try:
        await made.first_worker(60)
        await until(lambda: made.state().workers["ready"] == 2)
        running = asyncio.ensure_future(ran(made, "pass"))
        await until(lambda: made.state().workers["busy"])
        state = made.state()
        assert state.cells == state.workers == {"ready": 1, "busy": 1}
        await running
        assert made.state().cells == {"ready": 2, "busy": 0}
    finally:
        await made.close()


@on_a_loop
async def test_a_worker_that_is_stopped_while_it_starts_is_replaced(driver, tmp_path):
    flag = tmp_path / "stopped"
    path = repr(str(flag))
    stop = f"import signal\nif not os.path.exists({path}): open({path}, 'w'); os.kill(os.getpid(), signal.SIGSTOP)"
    made, _, _ = driver(workers=1, at_start=stop)
    await made.start()
    try:
        await made.first_worker(60)
        assert flag.exists()
        assert (await ran(made, "pass")).ended == "exited"
    finally:
        await made.close()


@on_a_loop
async def test_a_worker_that_takes_its_time_to_end_holds_up_nothing(driver):
    """The event loop goes on meanwhile, and with it everything else."""
    made, events, _ = driver(workers=1, at_start="import atexit, time; atexit.register(time.sleep, 2)")
    await made.start()
    try:
        await made.first_worker(60)
        next(iter(made._pool._children.values())).send([Cancel((0,)), None])  # it cannot go on with that
        ticks = 0
        while not any(isinstance(event, WorkerLost) for event in events):
            ticks += 1
            await asyncio.sleep(0.001)
        assert ticks > 20
    finally:
        await made.close()


@pytest.mark.parametrize(
    ("kind", "error"),
    [("SandboxError", SandboxError), ("SuiteError", SuiteError), ("SomethingElse", InfrastructureError)],
)
def test_what_a_worker_says_before_it_ends_is_what_is_raised(engine, kind, error):
    at_start = f"link.send([Failed({kind!r}, 'the reason and the remedy')]); sys.exit(1)"
    made = engine(at_start=at_start)
    with pytest.raises(error, match="the reason and the remedy"):
        graded(made, programs(*["passed"] * 20))
    assert made.pool.processes() == {}


def test_programs_are_taken_as_they_are_needed(engine, monkeypatch):
    monkeypatch.setattr(blocking, "_AHEAD", 10)
    monkeypatch.setattr(blocking, "_REFILL", 2)
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield Program("T/0", f"s{taken}", "passed")

    with engine() as made:
        verdicts = made.grade(endless())
        for _ in range(20):
            next(verdicts)
        assert taken <= 20 + 10
        verdicts.close()


def test_long_programs_and_long_verdicts_do_not_block_each_other(engine):
    source = "passed " + "x" * 400_000
    found = graded(engine(), programs(*[source] * 30))
    assert len(found) == 30


class TestExpectedAnswers:
    tests = FunctionTests(list)

    def test_each_missing_task_is_prepared_once_and_told_of(self, engine):
        told = []
        made = engine(tests=self.tests, on_progress=lambda *what: told.append(what))
        with made:
            pass
        stages = [(done, total) for name, done, total in told if name == "expected answers"]
        assert stages[0] == (0, 3)
        assert stages[-1] == (3, 3)
        assert stages == sorted(stages)

    def test_a_reference_that_fails_ends_it_with_its_reason(self, engine):
        prepare = "link.send([Prepared(job.number, f'{job.task.task_id}: the reference raised')])"
        with (
            pytest.raises(SuiteError, match="the reference raised"),
            engine(prepare=prepare, tests=self.tests),
        ):
            pass


def test_a_worker_finds_the_package_wherever_the_engine_runs(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    Path("grader.py").write_text("raise SystemExit('the wrong grader')")
    assert len(graded(engine(), programs("passed"))) == 1
