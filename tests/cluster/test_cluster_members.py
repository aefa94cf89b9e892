"""Nodes come and go, expected answers are brought to each once, and what cannot work is said so."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cluster_harness as harness
import pytest

from grader.engines.ray import RayPool
from grader.engines.ray_actor import Started
from grader.errors import InfrastructureError, InputError
from grader.limits import Limits
from grader.sandbox.liveness import descendants
from grader.suites import registry
from grader.version import __version__


def ready(engine: Any) -> int:
    return int(engine.pool.state().get("ready", 0))


def bundles(cache: Path) -> Counter[str]:
    return Counter(path.name for path in cache.glob("expected/*/*"))


def test_workers_come_with_nodes_and_go_when_there_is_nothing_to_do(
    nodes: harness.Nodes,
    joined: Callable[..., RayPool],
    starter: harness.Work,
) -> None:
    nodes.add(2)
    with harness.engine_over(joined(idle_s=3.0, min_workers=1), starter.suite) as engine:
        assert harness.judged(list(engine.grade(starter.programs))) == starter.expected
        harness.wait_until(lambda: len(engine.pool.processes()) == 1, "idle workers are released")
        harness.wait_until(lambda: ready(engine) == 1, "and counted no more")
        nodes.add(1)
        all_back, until = False, time.monotonic() + harness.DEADLINE_S
        while not all_back:  # there has to be work all the time, or they are released again
            assert time.monotonic() < until, (
                "released workers and that of the new node were waited for in vain"
            )
            verdicts = []
            for verdict in engine.grade(starter.programs):
                verdicts.append(verdict)
                all_back = all_back or ready(engine) == 3
            assert harness.judged(verdicts) == starter.expected
    for node in nodes.workers:
        node.kill()


@pytest.mark.dataset
def test_expected_answers_are_made_once_and_brought_to_each_node_once(
    nodes: harness.Nodes, joined: Callable[..., RayPool], data_dir: Path, own_cache: Path
) -> None:
    """With faults of several kinds meanwhile. The driver's cache folder is empty and none of the nodes' at first."""
    suite = registry.load("humaneval+")
    tasks = [f"HumanEval/{number}" for number in (0, 1, 2, 4, 8, 23, 31, 40, 53, 60)]
    work = harness.work_of(suite, harness.programs_from_references(suite, tasks), copies=12)
    for path in own_cache.glob("expected/*/*"):
        path.unlink()
    for number in range(2):
        nodes.add(1, name=f"data-{number}")
    with harness.engine_over(joined(), work.suite) as engine:
        harness.wait_until(lambda: ready(engine) == 2, "both workers are ready")
        assert len(bundles(own_cache)) == len(tasks), "made on a node, and brought here before grading began"
        verdicts = []
        for verdict in engine.grade(work.programs):
            verdicts.append(verdict)
            if len(verdicts) in (20, 60):
                actor, worker = next(iter(engine.pool.processes().values()))
                harness.send_signal(worker if len(verdicts) == 20 else actor, signal.SIGKILL)
        assert harness.judged(verdicts) == work.expected
    for node in nodes.workers:
        made = bundles(node.cache)
        assert made  # those of the tasks that it graded
        assert made <= bundles(own_cache)
        assert not list(node.cache.rglob(".making-*"))
        node.kill()


def test_a_node_without_room_on_its_disk_spoils_nothing(
    nodes: harness.Nodes, joined: Callable[..., RayPool], starter: harness.Work, small_disk: Path
) -> None:
    warnings: list[str] = []
    nodes.add(1, name="roomy")
    nodes.add(1, name="full", cache=small_disk)
    with harness.engine_over(joined(on_warning=warnings.append), starter.suite) as engine:
        harness.wait_until(lambda: ready(engine) == 2, "both workers are ready")
        verdicts = []
        for verdict in engine.grade(starter.programs):
            if not verdicts:
                fill(small_disk)
                for path in small_disk.glob("expected/*/*"):
                    path.unlink()
                fill(small_disk)
            verdicts.append(verdict)
        assert harness.judged(verdicts) == starter.expected
        harness.wait_until(lambda: any("is full" in text for text in warnings), "it is said what is wrong")
    for node in nodes.workers:
        node.kill()


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / f"filler-{time.monotonic_ns()}").open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()


def test_an_address_that_cannot_be_used_is_refused() -> None:
    for address in ("ray://127.0.0.1:10001", "127.0.0.1", "head:none"):
        with pytest.raises(InputError, match=r"HOST:PORT|HEAD:6379"):
            RayPool(limits=Limits(), address=address)


@pytest.mark.parametrize(
    ("key", "version", "said"), [("other", __version__, "other packages"), ("key", "0.0", "same version")]
)
def test_a_node_that_differs_from_the_others_is_refused(key: str, version: str, said: str) -> None:
    pool = RayPool(limits=Limits(), address="127.0.0.1:6379")
    pool._key = "key"
    started = Started("node-7", {}, key, version, "folder", (1, 2))
    with pytest.raises(InfrastructureError, match=f"node-7.*{said}"):
        pool.ready(cast(Any, None), started)


def test_where_nobody_answers_it_is_said(starter: harness.Work) -> None:
    address = f"127.0.0.1:{harness.free_port()}"
    with (
        pytest.raises(InfrastructureError, match=f"no Ray cluster answers at {address}"),
        harness.engine_over(RayPool(limits=Limits(), address=address), starter.suite),
    ):
        pass


def test_a_cluster_of_our_own_leaves_nothing_and_demands_a_token(alone: None, starter: harness.Work) -> None:
    import ray

    before = set(descendants(os.getpid()))
    home = set(Path.home().glob(".ray/*"))
    with harness.engine_over(RayPool(limits=Limits(), workers=2), starter.suite) as engine:
        assert harness.judged(list(engine.grade(starter.programs))) == starter.expected
        pids = harness.below(os.getpid()) - before
        assert pids
        address = ray.get_runtime_context().gcs_address
        refused = harness.run_driver(address, {"RAY_AUTH_MODE": "disabled", "RAY_NUM_REDIS_GET_RETRIES": "2"})
        assert "Unauthenticated" in refused or "AuthenticationError" in refused, refused
    assert harness.below(os.getpid()) - before == set()
    assert not [pid for pid in pids if harness.command_line(pid)]
    assert set(Path.home().glob(".ray/*")) == home
    assert not list(Path(tempfile.gettempdir()).glob(f"grader-ray-{os.getpid()}-*"))


def test_nothing_goes_by_the_wall_clock() -> None:
    """The clock may be set back by an hour at any time: only clocks that cannot be set are asked for durations."""
    import grader

    root = Path(grader.__file__).parent
    for folder in ("dispatch", "engines", "worker", "sandbox"):
        for path in (root / folder).rglob("*.py"):
            if path.name in (
                "eviction.py",
                "cgroup.py",
            ):  # which tests/contracts/test_wall_clock.py gives reasons for
                continue
            text = path.read_text("utf-8")
            for asked in ("time.time(", "time_ns()", "datetime.now", "CLOCK_REALTIME", "utcnow"):
                found = text.replace("process_time_ns()", "").replace("monotonic_ns()", "")
                assert asked not in found, f"{path} asks for the time of day"
    assert time.get_clock_info("monotonic").adjustable is False
