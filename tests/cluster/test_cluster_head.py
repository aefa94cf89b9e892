"""The head's control store goes down and comes back, where its state is kept outside of it: grading goes on."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cluster_harness as harness
import pytest

from grader.engines import ray_cluster
from grader.engines.ray import RayPool
from grader.limits import Limits


@pytest.fixture
def cluster(alone: None, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that keeps its state in Redis, with room for two workers, made by Ray's own tool for tests."""
    redis = shutil.which("redis-server")
    if redis is None:
        harness.unavailable("needs redis-server, in which a head's state outlives it")
    port, folder, mark = harness.free_port(), Path(tempfile.mkdtemp(prefix="gct-")), uuid.uuid4().hex
    store = subprocess.Popen(
        [redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    monkeypatch.setenv("RAY_REDIS_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    (folder / "ray").mkdir()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", ray_cluster._TOKEN)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv(harness._MARK, mark)
    from ray._raylet import Config
    from ray.cluster_utils import Cluster

    Config.initialize("")
    made = Cluster()
    try:
        harness.wait_until(lambda: harness.answers(port), "Redis answers")
        made.add_node(
            num_cpus=0, resources={"sandbox": 2}, include_dashboard=False, temp_dir=str(folder / "ray"),
            _system_config=dict(harness.PATIENT_CHECKS),
        )  # fmt: skip
        yield made
    finally:
        made.shutdown()
        store.kill()
        store.wait()
        monkeypatch.delenv(harness._MARK)
        harness.wait_until(lambda: not set(harness.marked(mark)) - {os.getpid()}, "the cluster is gone")
        shutil.rmtree(folder, ignore_errors=True)


def test_grading_goes_on_while_the_control_store_is_down(
    cluster: Any, starter: harness.Work, capsys: pytest.CaptureFixture[str]
) -> None:
    with harness.engine_over(
        RayPool(limits=Limits(), address=cluster.address, on_warning=print), starter.suite
    ) as engine:
        harness.wait_until(lambda: engine.pool.state().get("ready") == 2, "both workers are ready")
        verdicts, came_at = [], []
        for verdict in engine.grade(starter.programs):
            verdicts.append(verdict)
            came_at.append(time.monotonic())
            if len(verdicts) == 40:
                cluster.head_node.kill_gcs_server()
            if len(verdicts) == 160:
                cluster.head_node.start_gcs_server()
        assert harness.judged(verdicts) == starter.expected
        # What needs the control store works again too: the worker of an actor that died comes back.
        actor = next(iter(engine.pool.processes().values()))[0]
        harness.send_signal(actor, signal.SIGKILL)

        def is_replaced() -> bool:
            actors = {pids[0] for pids in engine.pool.processes().values()}
            return actor not in actors and engine.pool.state().get("ready") == 2

        harness.wait_until(is_replaced, "the worker is back")
    gap = max(after - before for before, after in itertools.pairwise(came_at))
    with capsys.disabled():
        print(f"\ncontrol store killed, later started again: no verdict for {gap:.1f} s at the most")
