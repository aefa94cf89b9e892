"""Real Ray clusters on this machine: a head and worker nodes, each a ``ray start`` of its own with its own cache."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from grader.dispatch.blocking import BlockingEngine
from grader.engines import ray_cluster
from grader.engines.local import LocalPool
from grader.engines.pool import Pool
from grader.limits import Limits
from grader.sandbox.liveness import descendants
from grader.suites.task import Suite
from grader.worker.program import Program

DEADLINE_S = 150.0
# A node that is gone is missed as soon as with our own; one that this machine does not let answer in time is kept.
PATIENT_CHECKS = {**ray_cluster.HEALTH_CHECKS, "health_check_timeout_ms": 15_000}
_MARK = "GRADER_CLUSTER_TEST"
_RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]


def wait_until(
    condition: Callable[[], Any], what: str | Callable[[], str], deadline_s: float = DEADLINE_S
) -> Any:
    """Wait for something to become true, with a deadline that only a broken program meets.

    ``what`` it is, or at the deadline says what is so instead.
    """
    end = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"waited in vain: {what if isinstance(what, str) else what()}"
        time.sleep(0.02)


@dataclass
class Node:
    """One ``ray start``. ``cache`` is the cache folder of its workers."""

    process: subprocess.Popen[bytes]
    cache: Path
    slots: int

    def raylet(self) -> int:
        return next(pid for pid in descendants(self.process.pid) if "raylet/raylet" in command_line(pid))

    def has_a_running_raylet(self) -> bool:
        """Whether its raylet is there and not stopped."""
        found = [pid for pid in descendants(self.process.pid) if "raylet/raylet" in command_line(pid)]
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in found]
        return self.process.poll() is None and bool(found) and not {"T", "Z"} & set(states)

    def kill(self) -> None:
        """End everything of the node at once, as when its power is cut; only what is in a cell dies with its worker."""
        for _ in range(2):
            for pid in descendants(self.process.pid):
                send_signal(pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Nodes:
    """A cluster. The first node is the head, which has no workers."""

    folder: Path
    sandbox_root: Path
    token: str
    mark: str
    head_ip: str = "127.0.0.1"
    health_checks: Mapping[str, int] = field(default_factory=lambda: PATIENT_CHECKS)
    port: int = 0
    nodes: list[Node] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.head_ip}:{self.port}"

    @property
    def workers(self) -> list[Node]:
        return [node for node in self.nodes[1:] if node.process.poll() is None]

    def start_head(self) -> None:
        self.port = free_port()
        checks = json.dumps(dict(self.health_checks))
        self._start(
            ["--head", f"--port={self.port}", f"--node-ip-address={self.head_ip}", "--include-dashboard=false",
             f"--temp-dir={self.folder}/r", f"--system-config={checks}"], 0, "head",
        )  # fmt: skip
        wait_until(lambda: answers(self.port, self.head_ip), "the head answers")

    def add(
        self, slots: int = 1, *, name: str = "", ip: str = "127.0.0.1", cache: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> Node:  # fmt: skip
        """Start a node; it joins soon."""
        name = name or f"node-{len(self.nodes)}"
        # Each its own folder: nodes that start at the same time would choose the same names for their sockets.
        folder = self.folder / f"t{len(self.nodes)}"
        arguments = [f"--address={self.address}", f"--node-ip-address={ip}", f"--temp-dir={folder}"]
        return self._start(arguments, slots, name, cache, prefix)

    def _start(
        self, arguments: Sequence[str], slots: int, name: str,
        cache: Path | None = None, prefix: Sequence[str] = (),
    ) -> Node:  # fmt: skip
        cache = cache or self.folder / name
        (cache / "roots").mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (cache / "roots" / self.sandbox_root.name).symlink_to(self.sandbox_root.resolve())
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*prefix, *_RAY, "start", "--block", "--disable-usage-stats", "--num-cpus=0", "--num-gpus=0",
                 f"--resources={json.dumps({'sandbox': slots} if slots else {})}", "--object-store-memory=80000000",
                 "--min-worker-port=0", "--max-worker-port=0", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, _MARK: self.mark,
                     "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
                     "GRADER_CACHE_DIR": str(cache), "PYTHONWARNINGS": "ignore"},
            )  # fmt: skip
        node = Node(process, cache, slots)
        self.nodes.append(node)
        return node

    def close(self) -> None:
        for node in reversed(self.nodes):
            if node.process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(node.process.pid, signal.SIGCONT)
                node.kill()
        for pid in marked(self.mark):
            send_signal(pid, signal.SIGCONT)
            # Ray's agents of a node that was killed end by themselves, but some only after half a minute.
            if "Agent" in command_line(pid):
                send_signal(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """The processes that were started, by whatever way, by a cluster's nodes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{_MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").replace("\0", " ")
    except OSError:
        return ""


def send_signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(port: int, ip: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((ip, port), 1).close()
    except OSError:
        return False
    return True


def engine_over(pool: Pool, suite: Suite) -> BlockingEngine:
    return BlockingEngine(pool, suite, limits=Limits())


@dataclass(frozen=True)
class Work:
    """Programs of a suite, and what an undisturbed run on this machine says of them."""

    suite: Suite
    programs: list[Program]
    expected: dict[str, Any]


def judged(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What verdicts say of the programs: all but times, memory, attempts, and output cut short by an early end."""
    measured = {"cpu_s", "wall_s", "peak_memory_bytes", "attempts", "cached", "stdout_tail", "sandbox"}
    found: dict[str, Any] = {}
    for verdict in verdicts:
        assert verdict["sample_id"] not in found, "a sample was graded twice"
        found[verdict["sample_id"]] = {name: value for name, value in verdict.items() if name not in measured}
    return found


def work_of(suite: Suite, once: Sequence[Program], copies: int) -> Work:
    """Programs, each ``copies`` times, with what the local engine says of them."""
    named = {one.task_id for one in once}
    suite = replace(suite, tasks={name: task for name, task in suite.tasks.items() if name in named})
    with engine_over(LocalPool(limits=Limits(), workers=2), suite) as engine:
        verdicts = judged(list(engine.grade(once)))
    programs, expected = [], {}
    for copy in range(copies):
        for one in once:
            name = f"{one.sample_id}#{copy}"
            programs.append(replace(one, sample_id=name))
            expected[name] = verdicts[one.sample_id] | {"sample_id": name}
    return Work(suite, programs, expected)


def programs_from_references(suite: Suite, tasks: Sequence[str]) -> list[Program]:
    """For each task its reference, and the same with a mistake."""
    programs = []
    for name in tasks:
        task = suite.tasks[name]
        spoilt = f"{task.reference}\n\n\ndef {task.entry_point}(*_):\n    return 'wrong'\n"
        programs += [Program(name, f"{name}/right", task.reference), Program(name, f"{name}/wrong", spoilt)]
    return programs


def below(pid: int) -> set[int]:
    """The processes below one that still run."""
    return {child for child in descendants(pid) if child != pid and command_line(child)}


def run_driver(address: str, environment: Mapping[str, str]) -> str:
    """Try to join a cluster from another process; returns what is printed."""
    code = f"import ray; ray.init(address={address!r}, log_to_driver=False); print('joined')"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=False,
            text=True,
            env={**kept, **environment},
            timeout=DEADLINE_S,
        )
    except subprocess.TimeoutExpired as error:
        return str(error.stderr)
    return ended.stdout + ended.stderr


def no_process_is_left(mark: str) -> None:
    """Wait until all that a cluster's nodes have started is gone; else end it, and fail."""
    end = time.monotonic() + DEADLINE_S
    while marked(mark) and time.monotonic() < end:
        time.sleep(0.05)
    left = {
        pid: f"{command_line(pid)} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[:2]}"
        for pid in marked(mark)
    }
    for pid in left:
        send_signal(pid, signal.SIGKILL)
    assert left == {}, f"processes of the cluster are left: {left}"


def unavailable(reason: str) -> NoReturn:
    """Skip the test, but in CI fail it: there, everything that a test needs is meant to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
