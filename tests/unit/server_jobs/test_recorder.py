"""Recording verdicts in groups: whose they are, and what happens where the database refuses some."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from grader.server.jobs.errors import StoreUnavailableError
from grader.server.jobs.recorder import LeaseLostError, Recorder
from grader.server.jobs.records import Lease


class Ledger:
    """A database that notes what it is asked to record; ``refuses`` are jobs whose verdicts it cannot take."""

    def __init__(self):
        self.recorded, self.refuses, self.is_there = [], set(), True

    async def ask_as_runner(self, _function, groups):
        if not self.is_there:
            raise StoreUnavailableError("gone")
        if self.refuses & {lease.job.id for lease, _ in groups}:
            raise ValueError("not a verdict that the table takes")
        for lease, entries in groups:
            self.recorded += [(lease.job.id, entry) for entry in entries]
            lease.recorded += len(entries)


def lease_on(job_id):
    return Lease(SimpleNamespace(id=job_id), "this server", 0)


@pytest.fixture
def ledger():
    return Ledger()


def recording(ledger, scenario):
    async def run():
        recorder = Recorder(
            ledger,
            SimpleNamespace(record=None),
            tell=lambda _: None,
            group_s=0.0,
            most_waiting=100,
            retry_s=0.01,
        )
        loop = asyncio.create_task(recorder.run())
        async with asyncio.timeout(30):
            await scenario(recorder)
        recorder.close()
        await loop

    asyncio.run(run())


def test_verdicts_of_a_new_lease_do_not_share_the_fate_of_the_lost_one(ledger):
    async def scenario(recorder):
        old, new = lease_on("a"), lease_on("a")
        await recorder.put(old, 1)
        old.lost = True
        await recorder.put(new, 2)
        await recorder.settled(new, 1)

    recording(ledger, scenario)
    assert ledger.recorded == [("a", 2)]


def test_a_job_whose_verdicts_are_refused_takes_no_other_job_with_it(ledger):
    ledger.refuses = {"bad"}

    async def scenario(recorder):
        bad, good = lease_on("bad"), lease_on("good")
        await recorder.put(bad, 1)
        await recorder.put(good, 2)
        await recorder.settled(good, 1)
        with pytest.raises(LeaseLostError):
            await recorder.settled(bad, 1)
        assert bad.refused

    recording(ledger, scenario)
    assert ledger.recorded == [("good", 2)]


def test_verdicts_wait_for_a_database_that_is_gone(ledger):
    ledger.is_there = False

    async def scenario(recorder):
        lease = lease_on("a")
        await recorder.put(lease, 1)
        await asyncio.sleep(0.05)
        ledger.is_there = True
        await recorder.settled(lease, 1)
        assert not lease.lost

    recording(ledger, scenario)
    assert ledger.recorded == [("a", 1)]


def test_what_comes_while_the_last_group_is_recorded_is_recorded_too(ledger):
    begun, go_on = asyncio.Event(), asyncio.Event()
    ask = ledger.ask_as_runner

    async def slow(*arguments):
        begun.set()
        await go_on.wait()
        await ask(*arguments)

    ledger.ask_as_runner = slow

    async def scenario(recorder):
        lease = lease_on("a")
        await recorder.put(lease, 1)
        await begun.wait()
        await recorder.put(lease, 2)
        recorder.close()
        go_on.set()

    recording(ledger, scenario)
    assert ledger.recorded == [("a", 1), ("a", 2)]
