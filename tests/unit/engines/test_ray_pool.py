"""The Ray engine's decisions, without a Ray: slots are stand-ins, and so is what they say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from grader.engines import ray_slot
from grader.engines.pool import PoolEvent, PoolFailed, WorkerSaid
from grader.engines.ray import RayPool
from grader.engines.ray_actor import Refused, Started
from grader.engines.ray_slot import Slot
from grader.limits import Limits
from grader.suites.inline import SUITE_SHA256, InlineTasks
from grader.suites.task import Task
from grader.version import __version__
from grader.worker.execution import Executed
from grader.worker.grading import Policy
from grader.worker.messages import Cancel, Grade, Lost, Prepare, Prepared, Ran
from grader.worker.program import Program

POLICY = Policy(Limits(), None, True)


@dataclass(eq=False)
class StandIn:
    """A slot with a worker on another machine."""

    name: str | None = None
    failure: Refused | None = None
    failures: int = 3
    started: Started | None = None
    sent: list[Any] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def send(self, messages: Any, files: Any, on_done: Any, *, check: bool) -> None:
        self.sent += messages
        self.files += files

    async def fetch(self, names: list[str]) -> list[bytes]:
        return [b"answers"] * len(names)


class Desk:
    """A pool with one worker, in a cache folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRADER_CACHE_DIR", str(folder))
        self.told: list[PoolEvent] = []
        self.pool = RayPool(limits=Limits(), address="127.0.0.1:6379")
        self.pool._listener = self.told.append
        self.pool.cache = folder
        self.slot = StandIn(started=Started("node", {}, "key", __version__, "another folder", (1, 2)))
        assert self.slot.started
        self.pool.ready(cast(Slot, self.slot), self.slot.started)
        self.told.clear()
        tasks = InlineTasks()
        for number in range(2):
            tasks.add({"inputs": [f"{number}\n"], "outputs": ["1\n"]}, "tests")
        self.tasks: list[Task] = list(tasks.suite.tasks.values())
        self.grades = [
            Grade(number, Program(task.task_id, str(number), ""), task, SUITE_SHA256, POLICY)
            for number, task in enumerate(self.tasks)
        ]

    def paths(self, job: Grade) -> list[Path]:
        assert self.pool._files
        return [self.pool.cache / name for name in self.pool._files.names(job)]

    @property
    def said(self) -> list[Any]:
        return [report for event in self.told if isinstance(event, WorkerSaid) for report in event.reports]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_a_bundle_that_cannot_be_read_here_costs_its_own_samples_an_attempt(desk: Desk) -> None:
    unreadable, fine = desk.grades
    for path in desk.paths(fine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"answers")
    cancel = Cancel((7,))

    async def send() -> None:
        assert desk.slot.name
        desk.pool.send(desk.slot.name, [unreadable, fine, cancel])
        await asyncio.sleep(0)

    asyncio.run(send())
    assert desk.slot.sent == [fine, cancel]
    assert [desk.pool.cache / name for name in desk.slot.files] == desk.paths(fine)
    (lost,) = desk.said
    assert (lost.number, lost.blamed) == (unreadable.number, False)
    assert "cannot be read" in lost.why
    assert not [event for event in desk.told if isinstance(event, PoolFailed)]


def test_a_full_disk_here_costs_a_reference_an_attempt(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("grader.engines.ray_files.write_once", full)

    async def made() -> None:
        assert desk.slot.name
        desk.pool.send(desk.slot.name, [Prepare(5, desk.tasks[0], SUITE_SHA256, Limits())])
        await asyncio.sleep(0)
        desk.pool.said(cast(Slot, desk.slot), [Prepared(5)])
        await asyncio.gather(*desk.pool._tasks)

    asyncio.run(made())
    (lost,) = desk.said
    assert isinstance(lost, Lost)
    assert (lost.number, lost.blamed) == (5, False)
    assert "No space left" in lost.why
    assert not [event for event in desk.told if isinstance(event, PoolFailed)]


def test_nothing_is_kept_of_a_reference_that_was_taken_back(desk: Desk) -> None:
    async def taken_back() -> None:
        assert desk.slot.name
        desk.pool.send(desk.slot.name, [Prepare(5, desk.tasks[0], SUITE_SHA256, Limits()), Cancel((5,))])
        await asyncio.sleep(0)

    asyncio.run(taken_back())
    assert desk.pool._preparing == {}


@pytest.mark.parametrize(
    "report", [Ran(1, Executed("exited", 0, 0, b"", b"", 0.0, 0.0, 0)), Prepared(1, "the reference raised")]
)
def test_any_result_shows_that_a_worker_works(desk: Desk, report: Any) -> None:
    desk.pool.said(cast(Slot, desk.slot), [report])
    assert desk.slot.failures == 0


def test_what_keeps_workers_from_starting_is_trouble_until_one_is_ready(desk: Desk) -> None:
    assert desk.pool.trouble() is None
    desk.pool._slots = [cast(Slot, desk.slot)]
    desk.pool.lost(cast(Slot, desk.slot), "gone")
    desk.slot.failure = Refused("InfrastructureError", "the disk is full")
    desk.slot.name = None
    assert desk.pool.trouble() == "the disk is full"
    desk.pool.ready(cast(Slot, desk.slot), cast(Started, desk.slot.started))
    assert desk.pool.trouble() is None


def test_an_actor_that_cannot_be_made_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_slot, "_PATIENCE_S", (0.0,))
    refused: list[Refused] = []

    class Owner:
        enough = asyncio.Event()

        def next_incarnation(self) -> int:
            return 1

        def refused(self, slot: Slot, error: Refused) -> None:
            refused.append(error)
            if len(refused) == 2:
                self.enough.set()

    def no_actor() -> Any:
        raise RuntimeError("the head does not answer")

    monkeypatch.setattr(ray_slot, "_new_actor", no_actor)

    async def run() -> None:
        owner = Owner()
        slot = Slot(cast(Any, owner))
        await asyncio.wait_for(owner.enough.wait(), 60)
        assert slot.failure
        await slot.end("the test is over")

    asyncio.run(run())
    assert {error.text for error in refused} == {
        "an actor cannot start a worker: RuntimeError: the head does not answer"
    }


def test_what_is_for_an_actor_that_has_been_dropped_goes_nowhere_and_holds_up_nothing() -> None:
    """In the moment until the pool hears of it: what is for other workers is sent after it."""

    class Owner:
        def next_incarnation(self) -> int:
            return 1

    arrived: list[bool] = []

    async def run() -> None:
        slot = Slot(cast(Any, Owner()))
        slot.name = "frozen"
        slot.send([Cancel((1,))], {}, arrived.append, check=False)
        slot._running.cancel()

    asyncio.run(run())
    assert arrived == [False]
