"""Followers of a job: how often they look, who looks for whom, and that they miss nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from job_service import DEADLINE_S

from grader.server.jobs.errors import StoreUnavailableError
from grader.server.jobs.followers import LOOK_EVERY_S, Followers
from grader.server.jobs.records import Look

NEVER_S = 1e6


class Reading:
    """A job's verdicts, which are read when ``go_on`` is set; ``looks`` has the ``after`` of each."""

    def __init__(self) -> None:
        self.looks: list[int] = []
        self.recorded = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.error: Exception | None = None

    async def __call__(self, _tenant: str, _job_id: str, after: int) -> Look:
        self.looks.append(after)
        seen = self.recorded
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return Look(text=b"", count=max(0, seen - after), has_more=False, is_finished=False)


def run(scenario: Callable[[Followers, Reading], Awaitable[None]], poll_s: float = NEVER_S) -> None:
    async def main() -> None:
        reading = Reading()
        async with asyncio.timeout(DEADLINE_S):
            await scenario(Followers(reading, poll_s=poll_s), reading)

    for new_loop in (asyncio.new_event_loop, uvloop.new_event_loop):  # grader serve has uvloop's
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())


async def several_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_followers_who_ask_for_the_same_look_once() -> None:
    async def scenario(followers: Followers, reading: Reading) -> None:
        reading.go_on.clear()
        reading.recorded = 7
        asked = [asyncio.create_task(followers.of("job").look("a", 5)) for _ in range(20)]
        other = asyncio.create_task(followers.of("job").look("a", 6))
        await several_turns()
        asked[0].cancel()  # the one that began it
        reading.go_on.set()
        found = await asyncio.gather(*asked[1:])
        assert [look and look.count for look in found] == [2] * 19
        assert await other != found[0]
        assert sorted(reading.looks) == [5, 6]

    run(scenario)


def test_tenants_do_not_share_looks() -> None:
    async def scenario(followers: Followers, reading: Reading) -> None:
        following = followers.of("job")
        await asyncio.gather(following.look("a", 0), following.look("b", 0))
        assert reading.looks == [0, 0]

    run(scenario)


def test_followers_are_told_of_a_failure() -> None:
    async def scenario(followers: Followers, reading: Reading) -> None:
        reading.error = StoreUnavailableError("gone")
        following = followers.of("job")
        found = await asyncio.gather(*(following.look("a", 0) for _ in range(3)), return_exceptions=True)
        assert found == [reading.error] * 3
        assert reading.looks == [0]
        reading.error = None
        assert await following.look("a", 0) is not None

    run(scenario)


def test_followers_are_woken_together_and_not_for_every_verdict() -> None:
    async def scenario(followers: Followers, reading: Reading) -> None:
        begun = asyncio.get_running_loop().time()
        seen = [0] * 5

        async def follow(number: int) -> None:
            following = followers.of("job")
            while seen[number] < 300:
                news = following.news()
                look = await following.look("a", seen[number])
                assert look is not None
                seen[number] += look.count
                if seen[number] < 300:
                    await following.wait(news)

        tasks = [asyncio.create_task(follow(number)) for number in range(5)]
        for _ in range(300):
            await asyncio.sleep(0.002)
            reading.recorded += 1
            followers.tell("job")
        await asyncio.gather(*tasks)
        elapsed_s = asyncio.get_running_loop().time() - begun
        assert seen == [300] * 5
        # All had the same, so that each waking took one look; the first, the first waking, and what came last.
        assert len(reading.looks) <= elapsed_s / LOOK_EVERY_S + 3

    run(scenario)


def test_news_during_a_look_is_not_missed() -> None:
    async def scenario(followers: Followers, reading: Reading) -> None:
        following = followers.of("job")
        reading.go_on.clear()
        news = following.news()
        early = asyncio.create_task(following.look("a", 0))
        await several_turns()
        reading.recorded = 1
        followers.tell("job")
        await following.wait(news)  # would wait for ever
        # Who looks after the waking is not given the look from before.
        late = asyncio.create_task(following.look("a", 0))
        await several_turns()
        reading.go_on.set()
        assert [look and look.count for look in (await early, await late)] == [0, 1]

    run(scenario)


def test_end_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grader.server.jobs.followers.LOOK_EVERY_S", NEVER_S)

    async def scenario(followers: Followers, _reading: Reading) -> None:
        following = followers.of("job")
        for is_end in (False, True):  # the second waking would be due in days
            news = following.news()
            followers.tell("job")
            followers.tell("job", is_end=is_end)
            await following.wait(news)

    run(scenario)


def test_followers_look_without_news_too() -> None:
    async def scenario(followers: Followers, _reading: Reading) -> None:
        following = followers.of("job")
        for _ in range(2):
            await following.wait(following.news())

    run(scenario, poll_s=0.01)
