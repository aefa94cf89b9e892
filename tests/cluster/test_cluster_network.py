"""A node whose network cable is cut: real network namespaces, joined by a bridge."""

from __future__ import annotations

import itertools
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import cluster_harness as harness
import pytest

from grader.engines import ray_cluster
from grader.engines.ray import RayPool


@dataclass(frozen=True)
class Wire:
    """A network of two: this machine has ``here``, whoever is in the namespace has ``there``."""

    namespace: str
    device: str
    here: str = "10.213.77.1"
    there: str = "10.213.77.2"

    def cut(self) -> None:
        subprocess.run(["ip", "link", "set", self.device, "down"], check=True)


@pytest.fixture(scope="module")
def wire(alone: None) -> Iterator[Wire]:
    name = f"gct{uuid.uuid4().hex[:6]}"
    made = Wire(name, f"{name}h")
    commands = [
        f"netns add {name}",
        f"link add {made.device} type veth peer name {name}n netns {name}",
        f"addr add {made.here}/30 dev {made.device}",
        f"link set {made.device} up",
        f"-n {name} addr add {made.there}/30 dev {name}n",
        f"-n {name} link set {name}n up",
        f"-n {name} link set lo up",
    ]
    try:
        for command in commands:
            try:
                subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                harness.unavailable(f"needs the right to make network namespaces: {error}")
        yield made
    finally:
        for command in (f"link del {made.device}", f"netns del {name}"):
            subprocess.run(["ip", *command.split()], check=False, capture_output=True)


@pytest.fixture(scope="module")
def health_checks() -> Mapping[str, int]:
    """Our own: what is cut off is to be missed soon."""
    return ray_cluster.HEALTH_CHECKS


@pytest.fixture(scope="module")
def head_ip(wire: Wire) -> str:
    """The head listens where the node beyond the wire can reach it."""
    return wire.here


def test_a_node_that_is_cut_off_loses_no_program(
    wire: Wire,
    nodes: harness.Nodes,
    joined: Callable[..., RayPool],
    starter: harness.Work,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nodes.add(ip=wire.here)
    nodes.add(ip=wire.there, prefix=["ip", "netns", "exec", wire.namespace])
    with harness.engine_over(joined(), starter.suite) as engine:
        harness.wait_until(lambda: engine.pool.state().get("ready") == 2, "both workers are ready")
        verdicts, came_at, cut_at = [], [], 0.0
        for verdict in engine.grade(starter.programs):
            verdicts.append(verdict)
            came_at.append(time.monotonic())
            if len(verdicts) == 40:
                wire.cut()
                cut_at = time.monotonic()
        assert harness.judged(verdicts) == starter.expected
        harness.wait_until(lambda: engine.pool.state().get("ready") == 1, "the node is missed")
        missed = time.monotonic() - cut_at
    gap = max(after - before for before, after in itertools.pairwise(came_at))
    with capsys.disabled():
        print(
            f"\na node cut off: no verdict for {gap:.1f} s at the most, it was missed after {missed:.1f} s at the most"
        )
