"""Identical programs of a batch run once, with the same verdicts as when one asks for them one after the other."""

from __future__ import annotations

import asyncio
import random
import threading
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader import dedupe
from grader.dedupe import Families
from grader.dedupe import grade_once as grade_once_in_turn
from grader.dispatch.contract import Batch
from grader.errors import InfrastructureError, OverloadedError
from grader.extraction import program_identity
from grader.limits import Limits
from grader.server.deduped import grade_once
from grader.status import Status
from grader.suites import registry
from grader.worker.program import Program

SUITE = registry.load("starter")
# By what it says, a program passes or fails; each has variants that differ by a comment alone.
# The last three have the same names in them, and two of them are one program.
SOURCES = ["a = 1", "b = 2 # fails", "c = 'fails'", "d = ", "lost = 1", "a = e", "e = a", "a = (e)"]


def verdict_on(program: Program) -> dict:
    status = Status.WRONG_ANSWER if "fails" in program.source else Status.PASSED
    if "lost" in program.source:
        status = Status.INFRASTRUCTURE_ERROR
    return {
        "task_id": program.task_id, "sample_id": program.sample_id, "status": status, "cached": False,
        "extraction": program.how, "error": program.source if "fails" in program.source else None,
    }  # fmt: skip


class Engine:
    """Grades batches in any order, some at the same time, and says of some programs together what came of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ran: list[str] = []
        self.open = 0

    async def grade(self, batch: Batch):
        self.open += 1
        try:
            programs = list(batch.programs)
            self.random.shuffle(programs)
            done = []
            for program in programs:
                await asyncio.sleep(0)
                self.ran.append(program.sample_id)
                done.append(verdict_on(program))
                if self.random.random() < 0.6 or program is programs[-1]:
                    yield done
                    done = []
        finally:
            self.open -= 1


def batch_of(sources: list[tuple[int, int]], name: str = "s", **more) -> Batch:
    programs = [
        Program("Starter/0", f"{name}{n}", f"{SOURCES[kind]}\n# {variant}", "fenced" if n % 2 else None)
        for n, (kind, variant) in enumerate(sources)
    ]
    return Batch(request_id=name, suite=SUITE, programs=programs, **more)


async def all_of(verdicts):
    async with aclosing(verdicts):
        return [verdict async for together in verdicts for verdict in together]


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
            yield [verdict_on(program)]

    batch = batch_of([(1, 0), (1, 1)], timeout_s=60.0)
    found = asyncio.run(all_of(grade_once(grade, batch)))
    assert sorted(one["sample_id"] for one in found) == ["s0", "s1"]
    assert len(refused) == 3
    assert refused == sorted(refused, reverse=True)
    assert refused[0] < 60.0


def names(found) -> list[str]:
    return sorted(one["sample_id"] for one in found)


SOURCE_LISTS = st.lists(st.tuples(st.integers(0, len(SOURCES) - 1), st.integers(0, 2)), max_size=12)


@given(st.lists(st.tuples(SOURCE_LISTS, st.integers(0, 30), st.booleans()), max_size=5), st.integers(0, 1000))
def test_batches_share_runs_and_each_program_has_its_own_verdict(requests, seed):
    """Batches come at different times, some are slow to take verdicts, and some go away when they have had a few."""
    engine, families = Engine(seed), Families()
    batches = [batch_of(sources, f"r{n}-") for n, (sources, _, _) in enumerate(requests)]

    async def asked(batch, wait, gives_up):
        for _ in range(wait):
            await asyncio.sleep(0)
        found = []
        async with aclosing(grade_once(engine.grade, batch, families)) as verdicts:
            async for done in verdicts:
                found += done
                if gives_up and len(found) > wait % 4:
                    break
                for _ in range(wait % 7):
                    await asyncio.sleep(0)
        return found

    async def main():
        rows = zip(batches, requests, strict=True)
        return await asyncio.gather(*(asked(batch, wait, up) for batch, (_, wait, up) in rows))

    for batch, found, (_, _, gives_up) in zip(batches, asyncio.run(main()), requests, strict=True):
        in_turn = grade_once_in_turn(lambda programs: (verdict_on(p) for p in programs), batch.programs)
        expected = {one["sample_id"]: {**one, "cached": None} for one in in_turn}
        assert gives_up or names(found) == sorted(expected)
        for one in found:
            assert {**one, "cached": None} == expected[one["sample_id"]]
    assert len(engine.ran) == len(set(engine.ran))
    assert engine.open == 0
    assert (len(families), families.waiting) == (0, 0)


def together(engine: Engine, *batches: Batch, families: Families | None = None):
    known = Families() if families is None else families

    async def main():
        return await asyncio.gather(*(all_of(grade_once(engine.grade, batch, known)) for batch in batches))

    return asyncio.run(main())


@pytest.mark.parametrize("kind", [0, 1])
def test_programs_of_two_batches_are_run_once(kind):
    engine = Engine(0)
    first, second = together(engine, batch_of([(kind, 0)], "a"), batch_of([(kind, 0)], "b"))
    assert engine.ran == ["a0"]
    assert [one["cached"] for one in first + second] == [False, True]


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "b"}, {"priority": "background"}, {"groups": ("base",)}, {"fail_fast": False},
        {"limits": Limits(time_floor_s=1.0)},
    ],
)  # fmt: skip
def test_what_is_graded_for_another_or_in_another_way_is_not_shared(other):
    engine = Engine(0)
    together(engine, batch_of([(0, 0)], "a"), batch_of([(0, 0)], "b", **other))
    assert engine.ran == ["a0", "b0"]


def test_what_has_been_parsed_in_a_thread_is_not_parsed_again_on_the_event_loop(monkeypatch):
    parsed, thread = [], threading.get_ident()

    def noting(source):
        parsed.append(threading.get_ident())
        return program_identity(source)

    monkeypatch.setattr(dedupe, "program_identity", noting)
    families = Families()
    for name in "ab":
        engine = Engine(0)
        sources = [[(kind, one + more) for kind in (5, 6, 7) for more in (0, 10)] for one in range(3)]
        batches = [batch_of(sources[one], f"{name}{one}") for one in range(3)]
        together(engine, *batches, families=families)
    assert parsed
    assert thread not in parsed


def test_two_outlines_of_one_tree_are_only_a_merge_that_is_missed(monkeypatch):
    monkeypatch.setattr(dedupe, "outline", lambda source: source[-1])
    engine, families = Engine(0), Families()
    sources = ["x = 1", "x = 1 # 1", "x = 1 # 2", "x = 1 # 22"]
    programs = [Program("Starter/0", str(number), source) for number, source in enumerate(sources)]
    batch = replace(batch_of([], "a"), programs=tuple(programs))
    (found,) = together(engine, batch, families=families)
    assert names(found) == ["0", "1", "2", "3"]
    assert sorted(engine.ran) == ["0", "2"]
    assert len(families) == 0


def test_what_is_asked_for_later_is_run_again():
    engine, families = Engine(0), Families()
    for name in "ab":
        together(engine, batch_of([(0, 0)], name), families=families)
    assert engine.ran == ["a0", "b0"]


def test_an_infrastructure_error_is_not_shared():
    engine = Engine(0)
    found = together(engine, *(batch_of([(4, 0)], name) for name in "abc"))
    assert engine.ran == ["a0", "b0", "c0"]
    assert [len(one) for one in found] == [1, 1, 1]


def test_what_waits_for_a_batch_that_breaks_off_runs_by_itself():
    began = []

    async def grade(batch):
        began.append(batch.request_id)
        await asyncio.sleep(0.01)
        if batch.request_id == "a":
            raise InfrastructureError("gone")
        for program in batch.programs:
            yield [verdict_on(program)]

    async def main():
        families = Families()
        batches = (batch_of([(0, 0), (0, 1)], name) for name in "ab")
        asked = (all_of(grade_once(grade, batch, families)) for batch in batches)
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second = asyncio.run(main())
    assert isinstance(first, InfrastructureError)
    assert names(second) == ["b0", "b1"]
    assert began == ["a", "b"]


def test_no_more_wait_than_are_allowed_to():
    engine, families = Engine(0), Families(most_waiting=1)
    found = together(engine, *(batch_of([(0, 0)], name) for name in "abc"), families=families)
    assert engine.ran == ["a0", "c0"]
    assert [one[0]["cached"] for one in found] == [False, True, False]
