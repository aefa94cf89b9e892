"""One worker's place in a Ray cluster: an actor, and the worker process that it is to have, for as long as it takes."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from grader.engines.ray_actor import Order, Refused, Spoken, Started, WorkerActor
from grader.engines.ray_cluster import RESOURCE
from grader.errors import InfrastructureError
from grader.worker.messages import Cancel, Job, Report

SILENT_S = 3.0  # a worker gives a sign of life every second
_FROZEN_S = 8.0  # an actor does so too; after this long without one it is killed
_RETRY_S = 0.2  # while Ray restarts an actor
_RESTART_S = 10.0  # after that, it may not even know: the head may have been down when the actor died
_PATIENCE_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)  # after so many failures in a row
_END_S = 10.0


class Owner(Protocol):
    """The pool, as a slot sees it."""

    def next_incarnation(self) -> int:
        """Return a number for a start."""

    def order(self, incarnation: int) -> Order:
        """Return how to start a worker."""

    def ready(self, slot: Slot, started: Started) -> None:
        """Take that a worker is ready. Raises InfrastructureError for one that is not like the others."""

    def said(self, slot: Slot, reports: Sequence[Report]) -> None:
        """Take what the worker reports."""

    def heard(self, slot: Slot) -> None:
        """Take that the worker, which was silent, speaks again."""

    def silent(self, slot: Slot) -> None:
        """Take that the worker is silent."""

    def lost(self, slot: Slot, why: str) -> None:
        """Take that the worker, which was ready, is gone."""

    def refused(self, slot: Slot, error: Refused) -> None:
        """Take that a worker could not be started; it is tried again."""


class Slot:
    """Keeps one worker going. ``name`` is that of the present worker, None while there is none."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.name: str | None = None
        self.started: Started | None = None
        self.failure: Refused | None = None
        self.failures = 0  # in a row without a result
        self.is_silent = False
        self._incarnation = 0
        self._actor: Any = None
        self._listening: asyncio.Task[str] | None = None
        self._lost = asyncio.Event()
        self._why = ""
        self._calls: set[asyncio.Future[Any]] = set()
        self._heard_at = self._answered_at = time.monotonic()
        self._running = asyncio.get_running_loop().create_task(self._run())

    # -- its life

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_PATIENCE_S[min(self.failures, len(_PATIENCE_S) - 1)])
            self.failures += 1  # until there is a result
            started = await self._start()
            if isinstance(started, Started):
                self.failure = None
                try:
                    await self._serve(started)
                except InfrastructureError as error:
                    started = Refused(type(error).__name__, str(error))
            if isinstance(started, Refused):
                self.failure = started
                self._owner.refused(self, started)

    async def _start(self) -> Started | Refused:
        """Start the worker, on an actor that there is or on a new one, when the cluster has room for it."""
        from ray import exceptions

        gone_since: float | None = None
        while True:
            self._incarnation = self._owner.next_incarnation()
            try:
                if self._actor is None:
                    # In threads, because what needs the head can take long while it is down.
                    self._actor, gone_since = await asyncio.to_thread(_new_actor), None
                return await self._actor.start.remote(self._owner.order(self._incarnation))  # type: ignore[no-any-return]
            except exceptions.ActorUnavailableError:
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > _RESTART_S:
                    self._drop_actor()
                await asyncio.sleep(_RETRY_S)
            except exceptions.ActorDiedError as error:
                # It cannot be restarted, or could not even begin: its node has another version of something.
                self._actor = None
                if error.actor_init_failed:
                    return Refused(
                        "InfrastructureError", f"an actor fails at its start: {_first_line(error)}"
                    )
                await asyncio.sleep(_RETRY_S)
            except Exception as error:  # Ray has no base for all that it raises
                return Refused("InfrastructureError", f"an actor cannot start a worker: {_first_line(error)}")

    async def _serve(self, started: Started) -> None:
        self._heard_at = self._answered_at = time.monotonic()
        self.is_silent = False
        self._lost.clear()
        self.started = started
        self._owner.ready(self, started)  # gives it its name
        self._listening = asyncio.get_running_loop().create_task(self._listen())
        lost = asyncio.get_running_loop().create_task(self._lost.wait())
        try:
            await asyncio.wait([self._listening, lost], return_when=asyncio.FIRST_COMPLETED)
            why = self._listening.result() if self._listening.done() else self._why
        finally:
            self._listening.cancel()
            lost.cancel()
        self._gone(why)

    def _gone(self, why: str) -> None:
        if self.name is not None:
            self._owner.lost(self, why)
            self.name = self.started = None
            self.is_silent = False

    async def _listen(self) -> str:
        """Pass on what the worker says until it says no more; return why."""
        try:
            while True:
                stream = self._actor.reports.options(num_returns="streaming").remote(self._incarnation)
                async for item in stream:
                    data = await item
                    self._answered_at = time.monotonic()
                    if not data:
                        continue
                    spoken: Spoken = pickle.loads(data)  # noqa: S301 - from our own actor
                    self._take(spoken.reports)
                    if spoken.ended:
                        return spoken.ended
        except Exception as error:  # Ray has no base for all that it raises
            return f"its actor is gone: {_first_line(error)}"

    def _take(self, reports: Sequence[Report]) -> None:
        self._heard_at = time.monotonic()
        if self.is_silent:
            self.is_silent = False
            self._owner.heard(self)
        self._owner.said(self, reports)

    # -- what it is told

    def send(
        self,
        messages: Sequence[Job | Cancel],
        files: Mapping[str, bytes],
        on_done: Callable[[bool], None],
        *,
        check: bool,
    ) -> None:
        """Give the worker messages, and its node files; ``on_done`` is told whether they arrived. If they did not,
        the worker is lost. See ``WorkerActor.send``."""
        if self._actor is None:  # dropped, which the pool hears of in a moment
            on_done(False)
            return
        name = self.name
        data = pickle.dumps(list(messages))
        call = self._actor.send.remote(self._incarnation, data, files, check=check)
        future = asyncio.wrap_future(call.future())
        self._calls.add(future)

        def done(_: object) -> None:
            self._calls.discard(future)
            if future.cancelled():
                return
            on_done(future.exception() is None)
            if future.exception() is not None and self.name == name:
                self.give_up(f"it could not be given its work: {_first_line(future.exception())}")

        future.add_done_callback(done)

    async def fetch(self, names: Sequence[str]) -> list[bytes]:
        """Return files of its node's cache folder. Raises RayError or OSError."""
        found: list[bytes] = await self._actor.fetch.remote(list(names))
        return found

    def give_up(self, why: str) -> None:
        """Take the worker as lost, and start it again."""
        self._why = why
        self._lost.set()

    def check(self, now: float) -> None:
        """Notice silence, and have a frozen actor killed: its node does so within 5 s, also where it is stopped."""
        if self.name is None:
            return
        if now - self._heard_at > SILENT_S and not self.is_silent:
            self.is_silent = True
            self._owner.silent(self)
        if now - self._answered_at > _FROZEN_S:
            self._drop_actor()
            self.give_up(f"its actor has not answered for {now - self._answered_at:.0f} s")

    def forgive(self, seconds: float) -> None:
        """Do not count time during which nothing could be heard because this process was held up."""
        self._heard_at += seconds
        self._answered_at += seconds

    # -- its end

    def _drop_actor(self) -> None:
        """Have the actor killed, and go on with another."""
        actor, self._actor = self._actor, None
        call = asyncio.get_running_loop().run_in_executor(None, _kill, actor)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def end(self, why: str) -> None:
        """End worker and actor. What the worker had is lost, which is told of at once."""
        wait_s = _END_S if time.monotonic() - self._answered_at < SILENT_S else _RETRY_S
        self._running.cancel()
        self._gone(why)
        await asyncio.gather(self._running, return_exceptions=True)
        if self._actor is not None:
            with contextlib.suppress(Exception):  # an actor that does not answer is killed all the same
                await asyncio.wait_for(_awaited(self._actor.end.remote()), wait_s)
            await asyncio.to_thread(_kill, self._actor)
        for call in self._calls:
            call.cancel()


def _new_actor() -> Any:
    import ray

    actor = ray.remote(WorkerActor).options(
        num_cpus=0,
        resources={RESOURCE: 1},
        max_restarts=-1,
        max_task_retries=0,  # what is lost is sent again by the dispatcher, elsewhere
        scheduling_strategy="SPREAD",
        max_concurrency=100,
        enable_task_events=False,
    )
    return actor.remote()


def _kill(actor: Any) -> None:
    import ray

    with contextlib.suppress(Exception):  # already gone, or the cluster is
        ray.kill(actor)


async def _awaited(reference: Any) -> Any:
    return await reference


def _first_line(error: BaseException | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
