"""Concurrent single items become batches."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from grader.dispatch.gathering import Gatherer
from grader.errors import InfrastructureError, InputError


class Work:
    """Doubles numbers, and remembers the batches; refuses 13, loses 99, and waits for ``gate`` if there is one."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.gate: asyncio.Event | None = None
        self.cancelled = 0

    async def __call__(self, key: str, items: list[int]) -> list[int]:
        self.batches.append((key, items))
        if self.gate:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if 13 in items:
            raise InputError("13")
        if 99 in items:
            raise InfrastructureError("99")
        return [2 * item for item in items]


def gathered(items: list[Any], **options: Any) -> tuple[Work, list[Any]]:
    work = Work()

    async def main() -> list[Any]:
        gatherer: Gatherer[str, int, int] = Gatherer(work, **options)
        return await asyncio.gather(*(gatherer.submit(*item) for item in items), return_exceptions=True)

    return work, asyncio.run(main())


def test_what_comes_at_the_same_time_is_one_batch():
    numbers = list(range(100, 150))
    work, found = gathered([("a", n) for n in numbers])
    assert found == [2 * n for n in numbers]
    assert work.batches == [("a", numbers)]


def test_each_key_has_its_own():
    work, found = gathered([("ab"[n % 2], n) for n in range(6)])
    assert found == [0, 2, 4, 6, 8, 10]
    assert sorted(work.batches) == [("a", [0, 2, 4]), ("b", [1, 3, 5])]


def test_no_batch_is_larger_than_allowed():
    work, found = gathered([("a", n) for n in range(10)], most=4)
    assert found == [2 * n for n in range(10)]
    assert [len(items) for _, items in work.batches] == [4, 4, 2]


def test_a_mistake_is_its_callers_alone():
    work, found = gathered([("a", n) for n in (1, 13, 2)])
    assert (found[0], found[2]) == (2, 4)
    assert isinstance(found[1], InputError)
    assert len(work.batches) == 4


def test_any_other_failure_is_everybodys():
    work, found = gathered([("a", n) for n in (1, 99)])
    assert all(isinstance(one, InfrastructureError) for one in found)
    assert len(work.batches) == 1


@pytest.mark.parametrize("leave", [1, 2])
def test_work_ends_when_nobody_waits_for_it(leave):
    work = Work()

    async def main() -> list[Any]:
        work.gate = asyncio.Event()
        gatherer: Gatherer[str, int, int] = Gatherer(work)
        tasks = [asyncio.create_task(gatherer.submit("a", n)) for n in range(2)]
        while not work.batches:
            await asyncio.sleep(0.001)
        for task in tasks[:leave]:
            task.cancel()
        await asyncio.gather(*tasks[:leave], return_exceptions=True)
        await asyncio.sleep(0)
        work.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(main())
    assert work.cancelled == (leave == 2)
    assert found[1] == 2 or leave == 2


def test_those_who_left_while_it_was_gathered_are_left_out():
    work = Work()

    async def main() -> int:
        gatherer: Gatherer[str, int, int] = Gatherer(work, wait_s=0.05)
        gone = asyncio.create_task(gatherer.submit("a", 1))
        stays = asyncio.create_task(gatherer.submit("a", 2))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(main()) == 4
    assert work.batches == [("a", [2])]
