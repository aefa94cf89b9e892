"""The Ray engine: workers on the nodes of a Ray cluster, a node's share given by its resource ``sandbox``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial

from grader import settings
from grader.engines.pool import (
    Listener,
    PoolEvent,
    PoolFailed,
    WorkerHeard,
    WorkerLost,
    WorkerReady,
    WorkerSaid,
    WorkerSilent,
    error_of,
)
from grader.engines.ray_actor import Order, Refused, Started
from grader.engines.ray_cluster import RESOURCE, Cluster, checked_address, take_back_signals
from grader.engines.ray_files import ClusterFiles
from grader.engines.ray_slot import Slot
from grader.errors import GraderError, InfrastructureError
from grader.limits import Limits
from grader.sandbox.options import CellOptions
from grader.status import Status
from grader.version import __version__
from grader.worker.grading import broken_tests
from grader.worker.messages import Cancel, Graded, Job, Lost, Prepare, Prepared, Ran, Report

_CHECK_S = 0.5
_RESIZE_S = 1.0
_FAILED_STARTS = 3
_USUAL_CELLS = CellOptions()


class RayPool:
    """Workers in a Ray cluster, one an actor.

    ``address`` is the cluster's (HOST:PORT, or ``auto``); None starts a Ray on this machine, which ends with the
    pool. ``workers`` is how many there are at the most: None means as many as the nodes have of the resource
    ``sandbox``, or in a Ray of our own one a processor. After ``idle_s`` seconds of wall-clock time without work,
    all but ``min_workers`` are released, so that an autoscaler can take their nodes away. Where no worker is ready
    within ``start_s`` seconds, the pool fails; so does a Ray of our own where starts keep failing, but with ``patient``
    not once a worker has been ready.

    Raises InputError for an address that cannot be had.
    """

    name = "ray"

    def __init__(
        self,
        *,
        limits: Limits,
        address: str | None = None,
        workers: int | None = None,
        min_workers: int | None = None,
        idle_s: float = 60.0,
        start_s: float = 600.0,
        cells: CellOptions = _USUAL_CELLS,
        patient: bool = False,
        on_progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
        on_warning: Callable[[str], None] = lambda _message: None,
    ) -> None:
        self._address = checked_address(address)
        own = workers or len(os.sched_getaffinity(0))
        self._most = workers if self._address else own
        self._least = min_workers if min_workers is not None else 1 if self._address else own
        self._idle_s, self._start_s = idle_s, start_s
        self._order = Order(0, cells, limits)
        self._patient = patient
        self._on_progress, self._on_warning = on_progress, on_warning
        self._slots: list[Slot] = []
        self._by_name: dict[str, Slot] = {}
        self._outbox: dict[str, list[Job | Cancel]] = {}
        self._preparing: dict[tuple[str, int], list[str]] = {}
        self._incarnations = itertools.count(1)
        self._files: ClusterFiles | None = None
        self._key = ""
        self._failed: GraderError | None = None
        self._jobs = 0
        self._places = 0 if self._address else own
        self._work_came = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._warned: set[str] = set()

    # -- the protocol

    async def start(self, listener: Listener) -> None:
        """Start or join the cluster, and begin to start workers. Raises a GraderError where that fails."""
        self._listener = listener
        self.cache = settings.cache_dir()
        self._on_progress("ray", 0, 1)
        self._cluster = await asyncio.to_thread(Cluster, self._address, self._places)
        take_back_signals()
        self._on_progress("ray", 1, 1)
        self._busy_at = time.monotonic()
        self._in_background(self._watch_workers())
        self._in_background(self._watch_cluster())
        self._in_background(self._expect_a_worker())

    async def close(self) -> None:
        """End every worker and leave the cluster; one that we started ends."""
        cluster = getattr(self, "_cluster", None)
        if cluster is None:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        slots, self._slots = self._slots, []
        self._failed = self._failed or InfrastructureError("the engine has been closed")
        await asyncio.gather(*(slot.end("the engine has been closed") for slot in slots))
        await asyncio.to_thread(cluster.leave)

    def send(self, worker: str, messages: Sequence[Job | Cancel]) -> None:
        """Give a worker messages; those of one moment travel together."""
        if worker not in self._by_name:
            return
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.setdefault(worker, []).extend(messages)

    def demand(self, jobs: int) -> None:
        """Take how many jobs wait and run."""
        if jobs and not self._jobs:
            self._work_came.set()
        if jobs or self._jobs:
            self._busy_at = time.monotonic()
        self._jobs = jobs

    @property
    def workers(self) -> int:
        """How many workers there are or are to be."""
        return self._most or max(self._places, len(self._by_name), 1)

    def state(self) -> Mapping[str, int]:
        """Return how many workers are in which state; ``refused`` are those that could not be started."""
        return Counter(
            ("lost" if slot.is_silent else "ready")
            if slot.name
            else "refused"
            if slot.failure
            else "starting"
            for slot in self._slots
        )

    def trouble(self) -> str | None:
        """Return why no worker works, if that is so; it may pass."""
        return (
            None if self._by_name else next((slot.failure.text for slot in self._slots if slot.failure), None)
        )

    def processes(self) -> Mapping[str, tuple[int, int]]:
        """Return, for each worker, the process ids of its actor and of its worker process, on their node."""
        return {name: slot.started.pids for name, slot in self._by_name.items() if slot.started}

    # -- what slots tell

    def next_incarnation(self) -> int:
        """Return a number for a start."""
        return next(self._incarnations)

    def order(self, incarnation: int) -> Order:
        """Return how to start a worker."""
        order = self._order
        return Order(incarnation, order.cells, order.limits)

    def ready(self, slot: Slot, started: Started) -> None:
        """Take that a worker is ready. Raises InfrastructureError for one that is not like the others."""
        if started.version != __version__:
            raise InfrastructureError(
                f"the node {started.node} has grader {started.version}, and this machine {__version__}; "
                "install the same version on all nodes"
            )
        self._key = self._key or started.key
        if started.key != self._key:
            raise InfrastructureError(
                f"programs on the node {started.node} would find another interpreter or other packages "
                f"({started.key}) than on the others ({self._key}); give all nodes the same Python and image"
            )
        self._files = self._files or ClusterFiles(self.cache, self._key)
        slot.name = f"{started.node}-{next(self._incarnations)}"
        self._by_name[slot.name] = slot
        self._warned.clear()  # what is wrong later is said again
        self._tell(WorkerReady(slot.name, started.node, started.stamp, started.key))

    def said(self, slot: Slot, reports: Sequence[Report]) -> None:
        """Pass on what a worker reports; that a bundle was made, only when it is here."""
        assert slot.name
        now = []
        for report in map(partial(self._second_chance, slot), reports):
            if isinstance(report, Graded | Ran | Prepared):
                slot.failures = 0
            names = (
                self._preparing.pop((slot.name, report.number), None)
                if isinstance(report, Prepared)
                else None
            )
            if names is None or (isinstance(report, Prepared) and report.error):
                now.append(report)
            else:
                self._in_background(self._bring_here(slot, slot.name, report, names))
        self._tell(WorkerSaid(slot.name, now))

    def _second_chance(self, slot: Slot, report: Report) -> Report:
        """Have another node try what could not be judged on this one, e.g. because its files are gone."""
        if not isinstance(report, Graded) or report.verdict["status"] != Status.INFRASTRUCTURE_ERROR:
            return report
        if broken_tests(report.verdict) is None:
            if self._files and slot.started:
                self._files.forget(slot.started.folder)
            return Lost(report.number, blamed=False, why=str(report.verdict["error"]))
        return report

    def heard(self, slot: Slot) -> None:
        """Pass on that a worker speaks again."""
        assert slot.name
        self._tell(WorkerHeard(slot.name))

    def silent(self, slot: Slot) -> None:
        """Pass on that a worker is silent."""
        assert slot.name
        self._tell(WorkerSilent(slot.name))

    def lost(self, slot: Slot, why: str) -> None:
        """Pass on that a worker is gone."""
        assert slot.name
        del self._by_name[slot.name]
        self._outbox.pop(slot.name, None)
        for key in [key for key in self._preparing if key[0] == slot.name]:
            del self._preparing[key]
        self._tell(WorkerLost(slot.name, why))

    def refused(self, slot: Slot, error: Refused) -> None:
        """Take that a worker could not be started; where that is so everywhere, the pool has failed."""
        if error.text not in self._warned and len(self._warned) < 100:
            self._warned.add(error.text)
            self._on_warning(f"a worker cannot be started: {error.text}")
        everywhere = all(other.failure for other in self._slots)
        lasting = error.kind != "InfrastructureError" or slot.failures >= _FAILED_STARTS
        # Where there have been workers, what is wrong may pass: who started a cluster for one command does not wait.
        hopeless = not self._key or (self._cluster.started and not self._patient)
        if everywhere and lasting and hopeless:
            self._fail(error_of(error.kind, error.text))

    def _fail(self, error: GraderError) -> None:
        self._tell(PoolFailed(error))
        self._failed = error

    def _tell(self, event: PoolEvent) -> None:
        if not self._failed:
            self._listener(event)

    # -- jobs and their files

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, {}
        for name, messages in outbox.items():
            slot = self._by_name.get(name)
            if slot is not None:
                self._send_with_files(slot, name, messages)

    def _send_with_files(self, slot: Slot, name: str, messages: Sequence[Job | Cancel]) -> None:
        assert self._files
        assert slot.started
        folder = slot.started.folder
        for message in messages:
            if isinstance(message, Prepare):
                self._preparing[name, message.number] = self._files.names(message)
            elif isinstance(message, Cancel):
                for number in message.numbers:
                    self._preparing.pop((name, number), None)
        # By value: shared objects of Ray are fetched from any node that has them, and where that one has died,
        # another is asked only after object_manager_pull_timeout_ms (10 s by default).
        sent, files, unread = self._files.enclosed(folder, messages)
        if unread:
            self._tell(WorkerSaid(name, unread))
        if not sent:
            return
        known = self._files

        def done(arrived: bool) -> None:
            if arrived:
                known.note(folder, files)
            else:
                known.forget(folder)

        slot.send(sent, files, done, check=not known.is_here(folder))

    async def _bring_here(self, slot: Slot, name: str, report: Report, names: list[str]) -> None:
        """Fetch a bundle that was made on a node, then pass the report on."""
        assert self._files
        started = slot.started
        if started is None or slot.name != name:
            return
        if not self._files.is_here(started.folder):
            try:
                contents = await slot.fetch(names)
            except Exception as error:  # RayError, or what reading raised there
                if slot.name == name:
                    slot.give_up(f"expected answers could not be fetched from it: {error}")
                return
            try:
                await self._files.receive(names, contents)
            except OSError as error:
                assert isinstance(report, Prepared)
                why = f"the cache folder {self.cache} cannot be written: {error}"
                report = Lost(report.number, blamed=False, why=why)
            else:
                self._files.note(started.folder, names)
        if slot.name == name:
            self._tell(WorkerSaid(name, [report]))

    # -- the cluster's size, and its health

    async def _expect_a_worker(self) -> None:
        await asyncio.sleep(self._start_s)
        if not self._key:
            reason = next((slot.failure.text for slot in self._slots if slot.failure), "")
            self._fail(
                InfrastructureError(
                    f"no worker is ready after {self._start_s:g} s: "
                    + (reason or f"the cluster has room for {self._places}; start nodes with "
                                 f"""ray start --address=HEAD:PORT --resources='{{"{RESOURCE}": N}}'""")
                )
            )  # fmt: skip

    async def _watch_workers(self) -> None:
        checked_at = time.monotonic()
        while True:
            await asyncio.sleep(_CHECK_S)
            now = time.monotonic()
            held_up_s = now - checked_at - _CHECK_S
            checked_at = now
            for slot in self._slots:
                if held_up_s > _CHECK_S:  # this process was stopped or busy: nothing could be heard
                    slot.forgive(held_up_s)
                slot.check(now)

    async def _watch_cluster(self) -> None:
        while True:
            self._work_came.clear()
            # Where the head node is down, the answer may be long in coming; nothing depends on it meanwhile.
            with contextlib.suppress(Exception):
                self._places = await asyncio.to_thread(self._cluster.places)
                await asyncio.to_thread(self._cluster.ask_for, self._needed())
            self._resize()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RESIZE_S):
                    await self._work_came.wait()

    @property
    def _idle(self) -> bool:
        return not self._jobs and time.monotonic() - self._busy_at > self._idle_s

    def _needed(self) -> int:
        """How many places an autoscaler is to provide; as many again as there are while there is work for them."""
        if self._idle:
            return self._least
        doubled = max(self._least, min(self._jobs, 2 * self._places), self._jobs > 0)
        return doubled if self._most is None else min(self._most, max(doubled, self._jobs))

    def _resize(self) -> None:
        """Have as many workers as there are places, or few while there is nothing to do.

        No actor is made that would have to wait for a place: if it were given up in the moment in which it gets one,
        Ray 2.60 would lose the place. For the same reason, those that wait because their node died are left alone.
        """
        wanted = 0 if self._failed else min(self._places, self._most or self._places)
        if self._idle:
            wanted = min(wanted, self._least)
            for slot in sorted(self._slots, key=lambda slot: slot.name is not None)[
                : len(self._slots) - wanted
            ]:
                self._slots.remove(slot)
                self._in_background(slot.end("it was released: there was nothing to do"))
        while len(self._slots) < wanted:
            self._slots.append(Slot(self))

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
