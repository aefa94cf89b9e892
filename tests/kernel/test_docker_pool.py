"""A warm pool of real containers: renewal, one-shot mode, lost cells, many starts at once, and a restarted daemon."""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from grader.errors import CellLostError, InputError, SandboxError
from grader.limits import MIB, Limits
from grader.sandbox import docker_engine, docker_orphans, docker_starts, factory, images, pool
from grader.sandbox.cell import Answers, Done
from grader.sandbox.docker import DockerCell
from grader.sandbox.factory import CellSource
from grader.sandbox.options import CellOptions
from grader.sandbox.pooled_cell import PooledCell
from grader.sandbox.renewal import Renewal
from grader.worker.requests import RunRequest, function_payload, run_limits

LIMITS = Limits(time_floor_s=20.0, idle_s=60.0, memory_bytes=256 * MIB, tmp_bytes=16 * MIB)
HONEST = "def f(n):\n    return n * 7919"
SLEEPER = "import time\ndef f(n):\n    time.sleep(50)"
PATIENCE_S = 100.0  # for what must happen some time


def needed(missing: str) -> None:
    if missing:
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)


@pytest.fixture(scope="session")
def docker() -> None:
    needed(factory.unavailable_reason(CellOptions(sandbox="docker")))
    images.build()


@pytest.fixture
def cells(docker: None, tmp_path: Path) -> Iterator[Callable[..., CellSource]]:
    yield lambda **options: factory.prepare(
        CellOptions(sandbox="docker", renewal=Renewal(**options)), tmp_path
    )
    pool.close_all()
    assert own_containers() == []


def own_containers() -> list[str]:
    client = docker_engine.connect()
    try:
        owner = f"{docker_orphans.OWNER_LABEL}={docker_orphans.own_labels()[docker_orphans.OWNER_LABEL]}"
        return [found["Id"] for found in client.containers(all=True, filters={"label": owner})]
    finally:
        client.close()


def start(cell: PooledCell, source: str, argument: int) -> int:
    inputs = marshal.dumps([argument])
    payload = function_payload(source, "f", struct.pack("<I", len(inputs)) + inputs, stop_at_error=True)
    request = RunRequest((payload,), run_limits(LIMITS, {}), (1,), lambda _: False, LIMITS.memory_bytes)
    return cell.start_run(
        request.encoded(LIMITS, cell.address_space), request.limits, group_sizes=(1,), zygote=request.zygote
    )


def finish(cell: PooledCell, *runs: int) -> dict[int, tuple[Done, bytes]]:
    """Wait for these runs; returns how each ended, and its answers."""
    answers: dict[int, bytes] = {}
    done: dict[int, Done] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(done) < len(runs):
        assert time.monotonic() < deadline
        for event in cell.receive(1.0):
            if isinstance(event, Answers):
                answers[event.run] = answers.get(event.run, b"") + event.data
            else:
                done[event.run] = event
    assert set(done) == set(runs)
    return {run: (done[run], answers.get(run, b"")) for run in runs}


def passes(cell: PooledCell, number: int = 3) -> bool:
    run = start(cell, HONEST, number)
    done, answers = finish(cell, run)[run]
    return (done.ended, done.code) == ("exited", 0) and struct.pack("<q", number * 7919) in answers


def container(cell: PooledCell) -> str:
    return cell._current._container


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_shot_gives_every_run_a_fresh_container(cells):
    source = cells(one_shot=True, spares=2)
    with contextlib.closing(source.make(LIMITS)) as cell:
        seen = []
        for number in range(4):
            assert passes(cell, number)
            seen.append(container(cell))
    assert len(set(seen)) == 4


def test_runs_wait_for_the_next_cell_and_are_answered_under_their_own_numbers(cells):
    source = cells(max_runs=2)
    with contextlib.closing(source.make(LIMITS)) as cell:
        seen = {container(cell)}
        runs = [start(cell, HONEST, number) for number in range(5)]
        ended = finish(cell, *runs)
        seen.add(container(cell))
    for number, run in enumerate(runs):
        assert struct.pack("<q", number * 7919) in ended[run][1]
    assert len(seen) == 2


def test_a_cell_is_replaced_when_it_is_old_and_not_while_a_sample_runs(cells):
    source = cells(max_age_s=0.5)
    with contextlib.closing(source.make(LIMITS)) as cell:
        first = container(cell)
        long = start(cell, "import time\ndef f(n):\n    time.sleep(0.8)\n    return n * 7919", 5)
        after = start(cell, HONEST, 6)
        ended = finish(cell, long, after)
        assert struct.pack("<q", 5 * 7919) in ended[long][1]
        until(lambda: passes(cell) and container(cell) != first)


def test_a_run_that_waits_can_be_cancelled_and_one_that_runs_killed(cells):
    source = cells(one_shot=True)
    with contextlib.closing(source.make(LIMITS)) as cell:
        runs, waits = start(cell, SLEEPER, 1), start(cell, SLEEPER, 2)
        cell.kill_run(waits)
        cell.kill_run(runs)
        ended = finish(cell, runs, waits)
        assert {done.ended for done, _ in ended.values()} == {"cancelled"}
        assert passes(cell)


def test_the_memory_limit_goes_with_the_owner_from_cell_to_cell(cells):
    source = cells(one_shot=True)
    with contextlib.closing(source.make(LIMITS)) as cell:
        cell.set_memory_limit(64 * MIB)
        for _ in range(2):
            run = start(cell, "def f(n):\n    return len(bytearray(b'x' * (150 << 20)))", 1)
            done, answers = finish(cell, run)[run]
            assert done.memory_kill or b"MemoryError" in answers


def test_the_owner_of_a_lost_cell_gets_the_spare(cells):
    source = cells()
    cell = source.make(LIMITS)
    assert passes(cell)
    until(lambda: len(cell._pool._spares) == 1)
    spare = cell._pool._spares[0].cell._container
    start(cell, SLEEPER, 1)
    docker_kill(container(cell))
    with pytest.raises(CellLostError, match="status 137"):
        finish(cell, 2)
    cell.close()
    with contextlib.closing(source.make(LIMITS)) as second:
        assert container(second) == spare
        assert passes(second)


def test_a_spare_that_dies_or_is_paused_is_replaced(cells):
    source = cells(spares=2)
    with contextlib.closing(source.make(LIMITS)) as cell:
        warm = cell._pool
        until(lambda: len(warm._spares) == 2)
        killed, paused = (spare.cell._container for spare in list(warm._spares))
        docker_kill(killed)
        subprocess.run(["docker", "pause", paused], check=True, capture_output=True)
        until(lambda: not {killed, paused} & set(own_containers()) and len(own_containers()) == 3)
        assert passes(cell)


def docker_kill(name: str) -> None:
    subprocess.run(["docker", "kill", name], check=True, capture_output=True)


def test_containers_are_started_a_few_at_a_time(tmp_path, docker):
    starting, most, lock = 0, 0, threading.Lock()

    def make():
        nonlocal starting, most
        with lock:
            starting += 1
            most = max(most, starting)
        try:
            return DockerCell(LIMITS)
        finally:
            with lock:
                starting -= 1

    with ThreadPoolExecutor(4 * docker_starts.at_once()) as storm:
        waiting = [
            storm.submit(docker_starts.patiently, make, tmp_path, 60.0)
            for _ in range(4 * docker_starts.at_once())
        ]
        for future in waiting:
            future.result().close()
    assert 0 < most <= docker_starts.at_once()


def test_a_pool_is_refused_where_there_are_no_containers(tmp_path):
    with pytest.raises(InputError, match="--sandbox docker"):
        CellOptions(sandbox="namespaces", renewal=Renewal())
    with pytest.raises(ValueError, match="positive"):
        Renewal(spares=0)


@pytest.mark.parametrize("step", ["create_container", "attach_socket"])
def test_a_daemon_that_goes_away_before_it_has_answered_leaves_no_container(docker, monkeypatch, step):
    import docker as sdk

    original = getattr(sdk.APIClient, step)

    def cut_off(self, *arguments, **options):
        answer = original(self, *arguments, **options)
        if step == "attach_socket":  # the SDK's objects around a connection keep each other, and it, alive
            answer._sock.close()
            answer._response.close()
            answer.close()
        raise {"create_container": ConnectionError, "attach_socket": AttributeError}[step]("no raw socket")

    monkeypatch.setattr(sdk.APIClient, step, cut_off)
    before = own_containers()
    with pytest.raises(docker_engine.DaemonAwayError):
        DockerCell(LIMITS)
    assert own_containers() == before


# A daemon of this test's own, since it is killed


class Daemon:
    """A second Docker daemon, with its own folders and socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/d.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        config = self.folder / "daemon.json"
        config.write_text('{"iptables": false, "bridge": "none", "shutdown-timeout": 1}')
        # dockerd believes the number of a process that was killed, and that nobody has waited for, to be alive.
        (self.folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["dockerd", "--config-file", str(config), "--host", self.host, "--data-root", f"{self.folder}/data",
                 "--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/pid"],
                stdout=log, stderr=log,
            )  # fmt: skip
        until(
            lambda: (
                subprocess.run(
                    ["docker", "-H", self.host, "info"], check=False, capture_output=True
                ).returncode
                == 0
            )
        )

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        self.process.wait()

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def end_what_is_left(self) -> None:
        """End the shims of containers that this daemon did not remove, because a test failed before."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)


# The SDK leaves the socket open with which it could not reach the daemon (docker 7, UnixHTTPConnection.connect).
unreachable = pytest.mark.filterwarnings(
    "ignore:.*<socket.socket fd=:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def daemon(docker: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        needed("a second Docker daemon can be started by root alone, where dockerd is installed")
    folder = Path(tempfile.mkdtemp(prefix="gd-"))  # a short path: sockets have no room for a long one
    made = Daemon(folder)
    try:
        made.start()
        monkeypatch.setenv("DOCKER_HOST", made.host)
        images.build()
        yield made
        pool.close_all()
        assert own_containers() == []
    finally:
        pool.close_all()
        gc.collect()
        if made.process and made.process.poll() is None:
            made.stop()
        made.end_what_is_left()
        for mount in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if mount.split()[1].startswith(str(folder)):
                subprocess.run(["umount", "-l", mount.split()[1]], check=False)
        shutil.rmtree(folder)


@unreachable
@pytest.mark.parametrize("end", [Daemon.stop, Daemon.kill], ids=["stopped", "killed"])
def test_cells_lost_by_a_restart_of_the_daemon_are_replaced(daemon, end, tmp_path):
    source = factory.prepare(CellOptions(sandbox="docker", renewal=Renewal()), tmp_path)
    cell = source.make(LIMITS)
    assert passes(cell)
    start(cell, SLEEPER, 1)
    end(daemon)
    with pytest.raises(CellLostError):
        finish(cell, 2)
    cell.close()
    with ThreadPoolExecutor(1) as background:
        again = background.submit(lambda: (time.sleep(1.5), daemon.start()))
        with contextlib.closing(source.make(LIMITS)) as second:
            assert passes(second)
            until(lambda: len(own_containers()) == 2)  # and none that the restart has left
        again.result()


@unreachable
def test_a_daemon_that_does_not_come_back_is_an_error_that_says_so(daemon, tmp_path):
    source = factory.prepare(CellOptions(sandbox="docker"), tmp_path)
    daemon.stop()
    with pytest.raises(docker_engine.DaemonAwayError, match=r"no Docker daemon answers at unix://.*start it"):
        docker_starts.patiently(lambda: DockerCell(LIMITS), source.starts, 1.0)
    warm = pool.WarmPool(lambda: source._container(LIMITS, 0.0), Renewal(), patience_s=1.0)
    try:
        with pytest.raises(SandboxError, match=r"no cell could be made for 1 s: no Docker daemon answers"):
            warm.take()
    finally:
        warm.close()
    daemon.start()
