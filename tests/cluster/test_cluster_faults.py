"""Whatever of a cluster dies or freezes in the middle of a run, each program gets one verdict, and the right one."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cluster_harness as harness
import pytest

from grader.dispatch.blocking import BlockingEngine
from grader.engines import ray_cluster
from grader.sandbox.liveness import descendants

_WORKERS = 3


@dataclass
class Bench:
    """The cluster of this module, with workers that grade."""

    nodes: harness.Nodes
    engine: BlockingEngine
    replaced: int = 0  # nodes that ended although nothing had struck them

    @property
    def ready(self) -> int:
        return int(self.engine.pool.state().get("ready", 0))

    @property
    def retries(self) -> int:
        """How many samples have been given to another worker."""
        return sum(self.engine._driver.state().retries.values())

    def processes(self) -> list[tuple[int, int]]:
        """The actor's and the worker's process of each worker."""
        return list(self.engine.pool.processes().values())  # type: ignore[attr-defined]

    def whole(self) -> None:
        """Have as many nodes as there are meant to be, each with a worker that is ready."""
        for node in self.nodes.workers:
            if not node.has_a_running_raylet():
                node.kill()
        self.add_missing()
        harness.wait_until(self.is_whole, self.described)

    def is_whole(self) -> bool:
        # A node ends by itself when the head has, on a busy machine, not heard of it for a while.
        self.replaced += self.add_missing()
        return self.ready == _WORKERS and all(self.homes())

    def add_missing(self) -> int:
        missing = _WORKERS - len(self.nodes.workers)
        for _ in range(missing):
            self.nodes.add()
        return missing

    def homes(self) -> list[set[int]]:
        """The actors of each node that have a worker which is ready."""
        actors = {actor for actor, _ in self.processes()}
        return [actors & set(descendants(node.process.pid)) for node in self.nodes.workers]

    def described(self) -> str:
        pool = self.engine.pool
        return f"workers are {pool.state()}, for {pool.trouble()}; actors of the nodes that are ready: {self.homes()}"


@pytest.fixture(scope="module")
def health_checks() -> Mapping[str, int]:
    """Our own: a node whose raylet is frozen is to be missed soon."""
    return ray_cluster.HEALTH_CHECKS


@pytest.fixture(scope="module")
def bench(nodes: harness.Nodes, joined: Callable[..., Any], starter: harness.Work) -> Iterator[Bench]:
    for _ in range(_WORKERS):
        nodes.add()
    with harness.engine_over(joined(), starter.suite) as engine:
        made = Bench(nodes, engine)
        made.whole()
        yield made


# Each fault returns the processes that it struck.


def a_worker(bench: Bench) -> int:
    return bench.processes()[0][1]


def struck(number: int, pids: Iterable[int]) -> list[int]:
    found = list(pids)
    assert found, "there is nothing to strike"
    for pid in found:
        harness.send_signal(pid, number)
    return found


def pid_namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def kill_sample(bench: Bench) -> list[int]:
    def sample() -> int | None:
        for _, worker in bench.processes():
            spaces = {pid: pid_namespace(pid) for pid in descendants(worker)}
            # That of the worker, that of its cell, and that of the sample.
            if len(found := list(dict.fromkeys(filter(None, spaces.values())))) > 2:
                return next(pid for pid, space in spaces.items() if space == found[2])
        return None

    return struck(signal.SIGKILL, [harness.wait_until(sample, "a sample runs")])


def signal_first_of_cell(number: int) -> Callable[[Bench], list[int]]:
    def first_of_cell(bench: Bench) -> list[int]:
        below = descendants(a_worker(bench))
        # What launched it waits outside of the cell: nothing comes of its being stopped.
        return struck(number, [pid for pid in below if "import runner" in harness.command_line(pid)][:1])

    return first_of_cell


def kill_cell(bench: Bench) -> list[int]:
    return struck(signal.SIGKILL, list(descendants(a_worker(bench)))[1:])


def signal_worker(number: int) -> Callable[[Bench], list[int]]:
    return lambda bench: struck(number, [a_worker(bench)])


def signal_actor(number: int) -> Callable[[Bench], list[int]]:
    return lambda bench: struck(number, [bench.processes()[0][0]])


def kill_all_workers(bench: Bench) -> list[int]:
    return struck(signal.SIGKILL, [worker for _, worker in bench.processes()])


def signal_raylet(number: int) -> Callable[[Bench], list[int]]:
    return lambda bench: struck(number, [bench.nodes.workers[0].raylet()])


def kill_two_nodes(bench: Bench) -> list[int]:
    pids = [node.raylet() for node in bench.nodes.workers[:2]]
    for node in bench.nodes.workers[:2]:
        node.kill()
    return pids


FAULTS: dict[str, Callable[[Bench], list[int]]] = {
    "sample-killed": kill_sample,
    "supervisor-killed": signal_first_of_cell(signal.SIGKILL),
    "cell-killed": kill_cell,
    "cell-frozen": signal_first_of_cell(signal.SIGSTOP),
    "worker-killed": signal_worker(signal.SIGKILL),
    "worker-frozen": signal_worker(signal.SIGSTOP),
    "all-workers-killed": kill_all_workers,
    "actor-killed": signal_actor(signal.SIGKILL),
    "actor-frozen": signal_actor(signal.SIGSTOP),
    "raylet-killed": signal_raylet(signal.SIGKILL),
    "two-nodes-killed": kill_two_nodes,
    "raylet-frozen": signal_raylet(signal.SIGSTOP),
}


# These are noticed by the end of a process that we wait for; Ray, and a silence, take their time.
AT_ONCE = {"supervisor-killed", "cell-killed", "worker-killed"}


@dataclass(frozen=True)
class Struck:
    """A run in which something was struck: the verdicts and when each came, and the processes that were struck, when,
    after how many verdicts, and after how many retries of the whole bench."""

    verdicts: list[dict[str, Any]]
    came_at: list[float]
    pids: list[int]
    at: float
    begun_before: int
    retries_before: int

    @property
    def retried(self) -> list[int]:
        """Which verdicts are of samples that were graded again."""
        return [index for index, verdict in enumerate(self.verdicts) if verdict["attempts"] > 1]

    @property
    def is_prompt(self) -> bool:
        """Whether what was graded again was so before the last tenth of what came after the fault."""
        after = len(self.verdicts) - self.begun_before
        return bool(self.retried) and max(self.retried) < len(self.verdicts) - after // 10


def grade_and_strike(bench: Bench, work: harness.Work, fault: str) -> Struck:
    bench.whole()
    verdicts, came_at, struck_at, retries = [], [], 0.0, bench.retries
    due = len(work.programs) // 5
    for verdict in bench.engine.grade(work.programs):
        verdicts.append(verdict)
        came_at.append(time.monotonic())
        if len(verdicts) == due:
            retries = bench.retries
        # A sample may have ended by itself before the signal came: then the next one is struck.
        if len(verdicts) == due or (
            fault == "sample-killed" and len(verdicts) > due and bench.retries == retries
        ):
            pids = FAULTS[fault](bench)
            struck_at, begun_before = time.monotonic(), len(verdicts)
    assert harness.judged(verdicts) == work.expected
    return Struck(verdicts, came_at, pids, struck_at, begun_before, retries)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_changes_no_verdict(
    bench: Bench, starter: harness.Work, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = grade_and_strike(bench, starter, fault)
    noticed_by = time.monotonic() + harness.DEADLINE_S
    while bench.retries == run.retries_before and time.monotonic() < noticed_by:
        if fault in AT_ONCE:
            # The worker had just nothing to do: its work had been done, or had not come yet.
            run = grade_and_strike(bench, starter, fault)
        else:
            # A worker whose raylet is frozen works on until Ray has noticed, and may do everything before.
            assert harness.judged(list(bench.engine.grade(starter.programs))) == starter.expected
    bench.whole()
    assert bench.retries > run.retries_before, "no worker held anything that it struck"
    harness.wait_until(
        lambda: not any(map(harness.command_line, run.pids)), "what was struck has been replaced"
    )
    if fault in AT_ONCE:
        # What came back is graded next, and does not wait for anything: not for the end of what waited already. The
        # machine may stand still for the rest of a run, though, but not of five.
        for _ in range(4):
            if not run.is_prompt:
                bench.whole()
                run = grade_and_strike(bench, starter, fault)
        assert run.is_prompt
    after = [at for at in run.came_at if at >= run.at]
    gap = max((b - a for a, b in zip([run.at, *after], after, strict=False)), default=0.0)
    with capsys.disabled():
        print(
            f"\n{fault}: {len(run.retried)} graded again, no verdict for {gap:.1f} s at the most, "
            f"the last {run.came_at[-1] - run.at:.1f} s after it, all workers back after "
            f"{time.monotonic() - run.at:.1f} s; nodes that ended by themselves so far: {bench.replaced}"
        )
