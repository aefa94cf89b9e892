"""Identical programs of a batch run once, with the same verdicts as when one asks for them one after the other."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.dedupe import grade_once as grade_once_in_turn
from grader.dispatch.contract import Batch
from grader.errors import InfrastructureError, OverloadedError
from grader.server.deduped import grade_once
from grader.status import Status
from grader.suites import registry
from grader.worker.program import Program

SUITE = registry.load("starter")
# By what it says, a program passes or fails; each has variants that differ by a comment alone.
SOURCES = ["a = 1", "b = 2 # fails", "c = 'fails'", "d = ", "lost = 1"]


def verdict_on(program: Program) -> dict:
    status = Status.WRONG_ANSWER if "fails" in program.source else Status.PASSED
    if "lost" in program.source:
        status = Status.INFRASTRUCTURE_ERROR
    return {
        "task_id": program.task_id, "sample_id": program.sample_id, "status": status, "cached": False,
        "extraction": program.how, "error": program.source if "fails" in program.source else None,
    }  # fmt: skip


class Engine:
    """Grades batches in any order, some at the same time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ran: list[str] = []
        self.open = 0

    async def grade(self, batch: Batch):
        self.open += 1
        try:
            programs = list(batch.programs)
            self.random.shuffle(programs)
            for program in programs:
                await asyncio.sleep(0)
                self.ran.append(program.sample_id)
                yield verdict_on(program)
        finally:
            self.open -= 1


def batch_of(sources: list[tuple[int, int]], **more) -> Batch:
    programs = [
        Program("Starter/0", f"s{n}", f"{SOURCES[kind]}\n# {variant}", "fenced" if n % 2 else None)
        for n, (kind, variant) in enumerate(sources)
    ]
    return Batch(request_id="r", suite=SUITE, programs=programs, **more)


async def all_of(verdicts):
    async with aclosing(verdicts):
        return [verdict async for verdict in verdicts]


@given(
    st.lists(st.tuples(st.integers(0, len(SOURCES) - 1), st.integers(0, 2)), max_size=20),
    st.integers(0, 1000),
)
def test_each_program_has_one_verdict_and_it_is_its_own(sources, seed):
    engine, batch = Engine(seed), batch_of(sources)
    found = asyncio.run(all_of(grade_once(engine.grade, batch)))
    assert sorted(one["sample_id"] for one in found) == sorted(p.sample_id for p in batch.programs)
    by_id = {one["sample_id"]: {**one, "cached": None} for one in found}
    in_turn = grade_once_in_turn(lambda programs: (verdict_on(p) for p in programs), batch.programs)
    assert by_id == {one["sample_id"]: {**one, "cached": None} for one in in_turn}
    assert len(engine.ran) == sum(not one["cached"] for one in found)
    assert engine.open == 0


def test_a_batch_without_repetitions_is_handed_on_as_it_is():
    engine, batch = Engine(0), batch_of([(0, 0)])
    assert len(asyncio.run(all_of(grade_once(engine.grade, batch)))) == 1


def test_closing_early_cancels_everything():
    engine = Engine(1)

    async def main():
        verdicts = grade_once(engine.grade, batch_of([(1, n % 3) for n in range(20)]))
        async with aclosing(verdicts):
            async for _ in verdicts:
                break
        assert engine.open == 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


@pytest.mark.parametrize("error", [InfrastructureError("gone"), OverloadedError("full"), ZeroDivisionError()])
def test_errors_are_those_of_the_grading(error):
    async def grade(batch):
        raise error
        yield

    with pytest.raises(type(error)):
        asyncio.run(all_of(grade_once(grade, batch_of([(0, 0), (0, 1)]))))


def test_what_runs_late_waits_for_room():
    refused = []

    async def grade(batch):
        if len(batch.programs) == 1 and batch.programs[0].sample_id != "s0" and len(refused) < 3:
            refused.append(batch.timeout_s)
            raise OverloadedError("full", 0.001)
        for program in batch.programs:
            yield verdict_on(program)

    batch = batch_of([(1, 0), (1, 1)], timeout_s=60.0)
    found = asyncio.run(all_of(grade_once(grade, batch)))
    assert sorted(one["sample_id"] for one in found) == ["s0", "s1"]
    assert len(refused) == 3
    assert refused == sorted(refused, reverse=True)
    assert refused[0] < 60.0
