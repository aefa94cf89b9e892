"""Whatever of a cluster dies or freezes in the middle of a run, each program gets one verdict, and the right one."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cluster_harness as harness
import pytest

from grader.dispatch.blocking import BlockingEngine
from grader.sandbox.liveness import descendants

_WORKERS = 3


@dataclass
class Bench:
    """The cluster of this module, with workers that grade."""

    nodes: harness.Nodes
    engine: BlockingEngine

    @property
    def ready(self) -> int:
        return int(self.engine.pool.state().get("ready", 0))

    def processes(self) -> list[tuple[int, int]]:
        """The actor's and the worker's process of each worker."""
        return list(self.engine.pool.processes().values())  # type: ignore[attr-defined]

    def whole(self) -> None:
        """Have as many nodes as there are meant to be, each with a worker that is ready."""
        for node in self.nodes.workers:
            if not node.has_a_running_raylet():
                node.kill()
        for _ in range(_WORKERS - len(self.nodes.workers)):
            self.nodes.add()
        harness.wait_until(self.is_whole, "all workers are ready")

    def is_whole(self) -> bool:
        actors = {actor for actor, _ in self.processes()}
        homes = [actors & set(descendants(node.process.pid)) for node in self.nodes.workers]
        return self.ready == _WORKERS == len(homes) and all(homes)


@pytest.fixture(scope="module")
def bench(nodes: harness.Nodes, joined: Callable[..., Any], starter: harness.Work) -> Iterator[Bench]:
    for _ in range(_WORKERS):
        nodes.add()
    with harness.engine_over(joined(), starter.suite) as engine:
        made = Bench(nodes, engine)
        made.whole()
        yield made


def a_worker(bench: Bench) -> int:
    return bench.processes()[0][1]


def kill_sample(bench: Bench) -> None:
    def sample() -> int | None:
        for _, worker in bench.processes():
            below = list(descendants(worker))
            if len(below) > 4:  # the worker, the first process of its cell, two zygotes
                return below[-1]
        return None

    harness.send_signal(harness.wait_until(sample, "a sample runs"), signal.SIGKILL)


def signal_first_of_cell(number: int) -> Callable[[Bench], None]:
    return lambda bench: harness.send_signal(list(descendants(a_worker(bench)))[1], number)


def kill_cell(bench: Bench) -> None:
    for pid in list(descendants(a_worker(bench)))[1:]:
        harness.send_signal(pid, signal.SIGKILL)


def signal_worker(number: int) -> Callable[[Bench], None]:
    return lambda bench: harness.send_signal(a_worker(bench), number)


def signal_actor(number: int) -> Callable[[Bench], None]:
    return lambda bench: harness.send_signal(bench.processes()[0][0], number)


def kill_all_workers(bench: Bench) -> None:
    for _, worker in bench.processes():
        harness.send_signal(worker, signal.SIGKILL)


def signal_raylet(number: int) -> Callable[[Bench], None]:
    return lambda bench: harness.send_signal(bench.nodes.workers[0].raylet(), number)


def kill_two_nodes(bench: Bench) -> None:
    for node in bench.nodes.workers[:2]:
        node.kill()


FAULTS: dict[str, Callable[[Bench], None]] = {
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


@pytest.mark.parametrize(
    "fault",
    list(FAULTS),
)
def test_a_fault_changes_no_verdict(
    bench: Bench, starter: harness.Work, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.whole()
    verdicts, came_at, struck = [], [], 0.0
    for verdict in bench.engine.grade(starter.programs):
        verdicts.append(verdict)
        came_at.append(time.monotonic())
        if len(verdicts) == len(starter.programs) // 5:
            FAULTS[fault](bench)
            struck = time.monotonic()
    assert harness.judged(verdicts) == starter.expected
    after = [at for at in came_at if at >= struck]
    gap = max((b - a for a, b in zip([struck, *after], after, strict=False)), default=0.0)
    retried = sum(verdict["attempts"] > 1 for verdict in verdicts)
    bench.whole()
    with capsys.disabled():
        print(
            f"\n{fault}: {retried} graded again, no verdict for {gap:.1f} s at the most, "
            f"the last {came_at[-1] - struck:.1f} s after it, all workers back after {time.monotonic() - struck:.1f} s"
        )
