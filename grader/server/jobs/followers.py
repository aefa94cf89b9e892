"""Those who follow jobs on this server: the followers of one job are woken together, and look once for all."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from grader.server.jobs.records import Look

# Verdicts are recorded more often than anybody can tell: looking each time would take the time of the work itself.
LOOK_EVERY_S = 0.25

# Takes the tenant, the job's id, and how many verdicts are known already.
Looking = Callable[[str, str, int], Awaitable[Look | None]]


class Following:
    """One job as its followers have it. They are woken when there is news of it, but not more often than every
    ``LOOK_EVERY_S``, and after ``poll_s`` in any case: another replica may work on it.
    """

    def __init__(self, job_id: str, looking: Looking, poll_s: float) -> None:
        self._job_id = job_id
        self._looking = looking
        self._poll_s = poll_s
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._woken_at = -math.inf
        self._wakes_at = math.inf
        self._timer: asyncio.Handle | None = None
        self._looks: dict[tuple[str, int], asyncio.Future[Look | None]] = {}

    def news(self) -> asyncio.Event:
        """Return what :meth:`wait` waits for. Taken before a look, it misses nothing that comes during it."""
        return self._news

    async def wait(self, news: asyncio.Event) -> None:
        """Wait until the followers are woken, which may have been since ``news`` was taken."""
        if not news.is_set():
            self._wake_at(self._loop.time() + self._poll_s)
        await news.wait()

    async def look(self, tenant: str, after: int) -> Look | None:
        """Return the job's verdicts after the first ``after``; followers who ask for the same at the same time have
        the same look. None: there is no such job. Raises StoreUnavailableError.
        """
        name = (tenant, after)
        under_way = self._looks.get(name)
        if under_way is None:
            under_way = asyncio.ensure_future(self._looking(tenant, self._job_id, after))
            self._looks[name] = under_way
            under_way.add_done_callback(lambda done: self._forget(name, done))
        # A follower that goes does not take the look from the others.
        return await asyncio.shield(under_way)

    def tell(self, *, is_end: bool) -> None:
        """Wake the followers: at once where it is the job's end, of which there is one."""
        soonest = self._loop.time() if is_end else self._woken_at + LOOK_EVERY_S
        self._wake_at(max(soonest, self._loop.time()))

    def _wake_at(self, when: float) -> None:
        if when >= self._wakes_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = when
        self._timer = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, math.inf
        self._woken_at = self._loop.time()
        # A look that began before the news may not have it.
        self._looks = {}
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _forget(self, name: tuple[str, int], done: asyncio.Future[Look | None]) -> None:
        if self._looks.get(name) is done:
            del self._looks[name]
        if not done.cancelled():
            done.exception()  # nobody may be left to hear of it


class Followers:
    """The followers of all jobs. ``looking`` reads a job's verdicts; ``poll_s`` is in wall-clock seconds."""

    def __init__(self, looking: Looking, *, poll_s: float) -> None:
        self._looking = looking
        self._poll_s = max(poll_s, LOOK_EVERY_S)
        # Held by those who follow.
        self._following: WeakValueDictionary[str, Following] = WeakValueDictionary()

    def of(self, job_id: str) -> Following:
        """Return what the followers of a job share, to be held as long as it is followed."""
        found = self._following.get(job_id)
        if found is None:
            found = self._following[job_id] = Following(job_id, self._looking, self._poll_s)
        return found

    def tell(self, job_id: str, *, is_end: bool = False) -> None:
        """Tell those who follow a job that more of it is recorded, or that it has ended, on this server."""
        following = self._following.get(job_id)
        if following is not None:
            following.tell(is_end=is_end)
