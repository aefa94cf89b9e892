"""Fixtures: a Ray cluster a module, one at a time on this machine; nothing of it is left afterwards."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import cluster_harness as harness

from grader.engines import ray_cluster
from grader.engines.ray import RayPool
from grader.limits import Limits
from grader.run import program_of
from grader.samples import read_samples
from grader.suites import registry


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """Only one test process at a time has clusters: each of them has a dozen processes."""
    with Path(tempfile.gettempdir(), "grader-cluster-tests.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def head_ip() -> str:
    """The address at which the head listens; a module may have its own."""
    return "127.0.0.1"


@pytest.fixture(scope="module")
def health_checks() -> Mapping[str, int]:
    """How the head looks after its nodes; a module in which they stop answering has our own settings."""
    return harness.PATIENT_CHECKS


@pytest.fixture(scope="module")
def nodes(
    alone: None, sandbox_root: Path, head_ip: str, health_checks: Mapping[str, int]
) -> Iterator[harness.Nodes]:
    """A head; tests or modules add what they need. Nothing of it is left afterwards."""
    pytest.importorskip("ray")
    folder = Path(tempfile.mkdtemp(prefix="gct-"))  # short: sockets are in it
    made = harness.Nodes(folder, sandbox_root, ray_cluster._TOKEN, uuid.uuid4().hex, head_ip, health_checks)
    try:
        made.start_head()
        yield made
    finally:
        made.close()
        harness.no_process_is_left(made.mark)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def joined(nodes: harness.Nodes) -> Iterator[Callable[..., RayPool]]:
    """Make a pool that joins the cluster, with the token that the nodes have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", nodes.token)
        from ray._raylet import Config

        Config.initialize("")  # another test may have imported Ray before
        yield lambda **options: RayPool(address=nodes.address, limits=Limits(), **options)


@pytest.fixture(scope="session")
def starter(sandbox_root: Path) -> harness.Work:
    """Samples of the starter suite that are quick, several times over: a few seconds of work."""
    path = registry.starter_samples_path()
    statuses = json.loads(path.with_name("starter_expected.json").read_text("utf-8"))
    quick = {name for name, status in statuses.items() if status not in ("time_limit", "memory_limit")}
    suite = registry.load("starter")
    given = [sample for sample in read_samples(path, suite) if sample.sample_id in quick]
    return harness.work_of(suite, [program_of(sample, suite) for sample in given], copies=8)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 100 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", folder],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode:
        harness.unavailable(f"a file system cannot be mounted here: {made.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
