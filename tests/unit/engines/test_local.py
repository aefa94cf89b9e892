"""The local engine with stand-ins for its workers: real processes on real pipes that grade nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from grader.dispatch import blocking
from grader.dispatch.blocking import BlockingEngine
from grader.engines import child, local
from grader.errors import InfrastructureError, SandboxError, SuiteError
from grader.limits import Limits
from grader.sandbox import factory
from grader.sandbox.options import CellOptions
from grader.status import Status
from grader.suites.task import AssertionTests, FunctionTests, Suite, Task, TestGroup
from grader.worker.program import Program

# A worker that does what a program's source says: pass, die, or anything else, which is a wrong answer.
WORKER = """
import os, sys
from grader.worker.link import Link
from grader.worker.messages import Cancel, Failed, Grade, Graded, Prepared, Ready

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
        if not isinstance(job, Grade):
            {prepare}
            continue
        word = job.program.source.split()[0]
        if word == "die":
            os._exit(9)
        if word == "die-once" and job.attempts == 1:
            os._exit(9)
        fields = {{"sample_id": job.program.sample_id, "status": word, "cpu_s": 0.001, "attempts": job.attempts,
                   "passed": word == "passed", "tail": job.program.source[-100_000:]}}
        link.send([Graded(job.number, fields)])
    jobs = [] if link.closed else sum(link.receive(), [])
"""


def suite_of(tests, n=3):
    tasks = [Task(f"T/{i}", "", "f", "def f(): ...", (TestGroup("base", tests),)) for i in range(n)]
    return Suite("toy", "v1", "0" * 64, {task.task_id: task for task in tasks})


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Make an engine whose workers are stand-ins."""
    monkeypatch.setenv("GRADER_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(
        factory, "prepare", lambda *_, **__: factory.CellSource(CellOptions(), "key", "digest")
    )

    def made(at_start="", prepare="link.send([Prepared(job.number)])", tests=None, workers=2, **options):
        monkeypatch.setattr(child, "_START_WORKER", WORKER.format(at_start=at_start, prepare=prepare))
        suite = suite_of(tests or AssertionTests(("assert f()",)))
        pool = local.LocalPool(limits=Limits(), workers=workers)
        return BlockingEngine(pool, suite, limits=Limits(), **options)

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
    assert all(verdict["attempts"] <= 3 for verdict in found.values())
    assert all(found[f"s{index}"]["status"] == "passed" for index in range(36) if index != 5)


def test_a_program_that_takes_three_workers_with_it_is_given_up_without_a_judgement(engine):
    words = ["passed"] * 3 + ["die"] + ["passed"] * 30
    found = graded(engine(), programs(*words))
    assert found["s3"]["status"] == Status.INFRASTRUCTURE_ERROR
    assert found["s3"]["reward"] is None
    assert found["s3"]["attempts"] == 3
    others = [verdict for name, verdict in found.items() if name != "s3"]
    assert len(others) == 33
    # Neighbours that were at the same worker each time may share its fate, but are never judged wrong.
    assert {verdict["status"] for verdict in others} <= {"passed", Status.INFRASTRUCTURE_ERROR}


def test_workers_that_die_at_their_start_are_given_up(engine):
    with pytest.raises(InfrastructureError, match="end as soon as they start"):
        graded(engine(at_start="os._exit(7)"), programs("passed"))


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
