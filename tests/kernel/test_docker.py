"""Cells in real containers, with each runtime that the daemon here has; skipped without a daemon, but failed in CI."""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import grader
from grader.errors import CellLostError, SandboxError
from grader.limits import MIB, Limits
from grader.sandbox import docker_engine, docker_orphans, factory, images, rootfs
from grader.sandbox.cell import Answers, Cell, Done
from grader.sandbox.docker import DockerCell
from grader.sandbox.options import CellOptions
from grader.sandbox.runner import launch
from grader.worker.requests import RunRequest, function_payload, run_limits

LIMITS = Limits(time_floor_s=20.0, idle_s=60.0, memory_bytes=256 * MIB, tmp_bytes=16 * MIB)
RUNTIMES = (None, "runsc")
HONEST = "def f(n):\n    return n * 7919"


@pytest.fixture(scope="session")
def daemon() -> Iterator[object]:
    needed(factory.unavailable_reason(CellOptions(sandbox="docker")))
    images.build("python-scientific")
    client = docker_engine.connect()
    docker_orphans.reap(client)
    yield client
    client.close()


def needed(missing: str) -> None:
    if missing:
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)


@pytest.fixture(scope="module", params=RUNTIMES, ids=lambda runtime: runtime or "runc")
def runtime(request: pytest.FixtureRequest, daemon: object) -> str | None:
    needed(factory.unavailable_reason(CellOptions(sandbox="docker", runtime=request.param)))
    return request.param


@pytest.fixture(scope="module")
def cell(runtime: str | None) -> Iterator[Cell]:
    with made(runtime) as found:
        yield found


@contextlib.contextmanager
def made(runtime: str | None = None, **options) -> Iterator[Cell]:
    found = DockerCell(LIMITS, runtime=runtime, **options)
    try:
        yield found
    finally:
        found.close()


@dataclass
class Ran:
    """What became of a program."""

    done: Done
    answers: bytes

    @property
    def text(self) -> str:
        return self.answers.decode("utf-8", "replace")


def run(cell: Cell, source: str, argument: object = 3, limits: Limits = LIMITS) -> Ran:
    """Call ``f`` of a program once."""
    inputs = marshal.dumps([argument])
    payload = function_payload(source, "f", struct.pack("<I", len(inputs)) + inputs, stop_at_error=True)
    request = RunRequest((payload,), run_limits(limits, {}), (1,), lambda _: False, limits.memory_bytes)
    number = cell.start_run(
        request.encoded(limits, cell.address_space), request.limits, group_sizes=(1,), zygote=request.zygote
    )
    data = b""
    while True:
        for event in cell.receive(60.0):
            assert event.run == number
            if isinstance(event, Answers):
                data += event.data
            else:
                return Ran(event, data)


def passes(cell: Cell) -> bool:
    ran = run(cell, HONEST)
    return (ran.done.ended, ran.done.code) == ("exited", 0) and struct.pack("<q", 3 * 7919) in ran.answers


# What isolates the container


def test_the_container_is_what_was_promised(cell, runtime, daemon):
    found = daemon.inspect_container(cell._container)
    host, config = found["HostConfig"], found["Config"]
    assert host["NetworkMode"] == "none"
    assert host["IpcMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Binds"]
    assert not host["Devices"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert any(option.startswith("seccomp={") for option in host["SecurityOpt"])
    assert 0 < host["Memory"] == host["MemorySwap"]
    assert host["PidsLimit"] > 0
    assert host["NanoCpus"] > 0
    assert {"nofile", "core", "memlock", "msgqueue"} == {limit["Name"] for limit in host["Ulimits"]}
    assert host["LogConfig"]["Type"] == "none"
    assert host["Tmpfs"]["/tmp"].count(f"size={LIMITS.tmp_bytes},nr_inodes=4096") == 1
    assert config["User"] == "65534:65534"
    assert config["Labels"].items() >= docker_orphans.own_labels().items()
    assert (host["Runtime"] == runtime) if runtime else True


def test_the_runners_code_is_locked_in_memory(cell, runtime, daemon):
    """Else the kernel takes it back when a sample has filled the memory: ``runner.kernel.lock_code``."""
    if runtime == "runsc":
        return  # a kernel of its own, whose code no sample can displace
    pid = daemon.inspect_container(cell._container)["State"]["Pid"]
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert int(status["VmLck"].split()[0]) > 3 * 1024  # of libpython alone


def test_a_long_run_has_the_pace_of_its_processor_measured(cell):
    """By the supervisor, or where a gVisor hides the processor from it, by the worker: ``runner.pace``.

    It is 1.0 where no loop was timed, and also where each loop was the fastest so far, as the only one of a short run
    can well be: one of several runs says enough.
    """
    spend = "import time\ndef f(n):\n    while time.process_time() < 0.5: pass"
    assert any(run(cell, spend).done.slowness > 1.0 for _ in range(20))


def test_layers_are_those_in_force(cell, runtime):
    assert cell.backend == "docker"
    inner = {layer.partition("_")[0] for layer in cell.layers}
    assert {"container", "userns", "pidns", "netns", "ipcns", "seccomp", "rlimits"} <= inner
    if runtime == "runsc":
        assert "gvisor" in inner
        assert not inner & {"mountns", "landlock"}
    else:
        assert {"mountns", "landlock"} <= inner


def test_a_sample_sees_nothing_of_the_engine(cell, runtime):
    ran = run(
        cell,
        "import os\n"
        "def f(n):\n"
        "    shown = {d: sorted(os.listdir(d)) for d in ('/proc', '/sys', '/tmp')}\n"
        "    return repr([shown, os.getpid(), os.getuid(), os.getgid(), os.uname().nodename, sorted(os.environ)])\n",
    )
    names = sorted({*launch.ENVIRONMENT} - {"LD_BIND_NOW"})  # for the interpreter's own start
    expected = [{"/proc": [], "/sys": [], "/tmp": []}, 1, 65534, 65534, "cell", names]
    assert repr(expected) in ran.text, ran.text
    if runtime != "runsc":
        ran = run(
            cell, "import os\ndef f(n):\n    return repr([sorted(os.listdir(d)) for d in ('/dev', '/etc')])\n"
        )
        assert repr([["full", "null", "random", "urandom", "zero"], []]) in ran.text, ran.text


def test_nothing_but_tmp_can_be_written_or_changed(cell):
    ran = run(
        cell,
        "import os\n"
        "def f(n):\n"
        "    done = []\n"
        "    for folder, _, _ in os.walk('/'):\n"
        "        for act in (lambda: open(folder + '/x', 'w').close(), lambda: os.chmod(folder, 0o777)):\n"
        "            try:\n"
        "                act()\n"
        "            except OSError:\n"
        "                continue\n"
        "            done.append(folder)\n"
        "    return repr(sorted(set(done)))\n",
    )
    assert "['/tmp']" in ran.text, ran.text


DANGEROUS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
numbers = {"ptrace": 101, "bpf": 321, "keyctl": 250, "add_key": 248, "perf_event_open": 298, "io_uring_setup": 425,
           "userfaultfd": 323, "setns": 308, "open_by_handle_at": 304, "kexec_load": 246, "init_module": 175,
           "pivot_root": 155, "chroot": 161, "umount2": 166, "move_mount": 429, "open_tree": 428, "fsopen": 430,
           "process_vm_readv": 310, "syslog": 103, "quotactl": 179, "swapon": 167, "mknod": 133}
allowed = []
for name, number in numbers.items():
    result = libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0)
    if not (result == -1 and ctypes.get_errno() == 1):
        allowed.append(name)
for name, flag in {"net": 0x40000000, "uts": 0x04000000, "cgroup": 0x02000000, "time": 0x80}.items():
    if libc.unshare(0x10000000 | flag) == 0 or ctypes.get_errno() != 1:
        allowed.append("unshare " + name)
assert libc.unshare(0x10020000) == 0
for name, flags in {"remount": 0x20, "suid": 0, "move": 0x2000, "recursive bind": 0x5000, "shared": 0x100000}.items():
    if libc.mount(b"none", b"/tmp", b"tmpfs", ctypes.c_ulong(flags), b"") == 0 or ctypes.get_errno() != 1:
        allowed.append("mount " + name)
if libc.socket(2, 1, 0) != -1:
    allowed.append("socket inet")
print(allowed)
"""


def test_the_profile_holds_even_before_the_filter_of_a_sample(daemon):
    """What a sample would be up against if it could switch its own filter off."""
    command = ["-P", "-s", "-S", "-c", DANGEROUS]
    options = daemon.create_host_config(
        network_mode="none", cap_drop=["ALL"], read_only=True,
        security_opt=["no-new-privileges:true", f"seccomp={seccomp_profile()}"],
    )  # fmt: skip
    container = daemon.create_container(
        images.reference(), entrypoint=["/python/bin/python3"], command=command, host_config=options,
        labels=docker_orphans.own_labels(),
    )["Id"]  # fmt: skip
    try:
        daemon.start(container)
        status = daemon.wait(container)["StatusCode"]
        said = daemon.logs(container).decode()
    finally:
        docker_orphans.remove(daemon, container)
    assert (status, said) == (0, "[]\n")


def seccomp_profile() -> str:
    return (Path(__file__).parents[2] / "sandbox_images" / "seccomp.json").read_text()


# What happens to programs


FULL_DISK = "def f(n):\n    for n in range(3):\n        open('/tmp/x%d' % n, 'wb').write(bytes(12 << 20))\n"
THREADS = """
import threading, time
def f(n):
    while True:
        threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
"""


def test_times_are_limited(cell):
    short = replace(LIMITS, time_floor_s=0.5, idle_s=0.5)
    assert run(cell, "def f(n):\n    while True:\n        pass\n", limits=short).done.ended == "cpu_limit"
    assert run(cell, "import time\ndef f(n):\n    time.sleep(99)\n", limits=short).done.ended == "idle_limit"
    assert passes(cell)


def test_memory_is_limited(cell):
    hog = run(cell, "def f(n):\n    return len([bytearray(1 << 20) for _ in range(2000)])\n")
    assert hog.done.memory_kill or "MemoryError" in hog.text
    assert passes(cell)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (FULL_DISK, "No space left"),
        (THREADS, "can't start new thread"),
        ("import os\ndef f(n):\n    os.fork()\n", "PermissionError"),
        ("import os\ndef f(n):\n    os.kill(-1, 9)\n", "ProcessLookupError"),
        ("import socket\ndef f(n):\n    socket.socket()\n", "PermissionError"),
    ],
)
def test_what_is_refused_is_an_ordinary_error(cell, source, says):
    assert says in run(cell, source).text
    assert passes(cell)


def test_calls_that_only_an_attack_makes_end_the_sample(cell):
    ran = run(cell, "import ctypes\ndef f(n):\n    ctypes.CDLL(None).unshare(0x10000000)\n")
    assert ran.done.signal == signal.SIGSYS
    assert passes(cell)


def test_nothing_is_left_for_the_next_sample(cell):
    left = run(
        cell,
        "import os\n"
        "def f(n):\n"
        "    os.makedirs('a/b')\n"
        "    for name in ('x', '.hidden', 'a/b/c'):\n"
        "        open('/tmp/' + name, 'w').write('left')\n"
        "    os.symlink('/', '/tmp/a/link')\n"
        "    os.chmod('/tmp/a', 0)\n"
        "    os.chmod('/tmp', 0)\n",
    )
    assert left.done.code == 0, left
    found = run(
        cell, "import os\ndef f(n):\n    return repr([os.listdir('/tmp'), oct(os.stat('/tmp').st_mode)])\n"
    )
    assert "[[], '0o40700']" in found.text, found


def test_packages_are_those_of_the_embedded_sandbox(cell):
    found = run(
        cell,
        "import numpy, sys\ndef f(n):\n    return sys.version.split()[0] + ' numpy ' + numpy.__version__\n",
    )
    assert f"{sys.version.split()[0]} numpy 2." in found.text


def test_the_memory_limit_can_be_changed(cell):
    hog = "def f(n):\n    return len(bytearray(600 << 20)) + n\n"
    more = replace(LIMITS, memory_bytes=900 * MIB)
    try:
        assert run(cell, hog).done.memory_kill or "MemoryError" in run(cell, hog).text
        cell.set_memory_limit(more.memory_bytes)
        assert struct.pack("<q", (600 << 20) + 3) in run(cell, hog, limits=more).answers
    finally:
        cell.set_memory_limit(LIMITS.memory_bytes)
    assert passes(cell)


def test_large_inputs_and_answers_pass_through(cell):
    numbers = list(range(300_000))
    ran = run(cell, "def f(numbers):\n    return [n + 1 for n in numbers[:3000]]\n", argument=numbers)
    assert struct.pack("<q", 3000) in ran.answers


# What becomes of containers


def test_a_closed_cell_leaves_no_container(runtime, daemon):
    with made(runtime) as cell:
        container = cell._container
        assert passes(cell)
    cell.close()
    assert not daemon.containers(all=True, filters={"id": container})


def test_a_cell_that_is_killed_is_lost_and_says_how(runtime, daemon):
    with made(runtime) as cell:
        daemon.kill(cell._container)
        with pytest.raises(CellLostError, match=r"the docker cell ended: .*exit status 137"):
            cell.receive(30.0)


START_AND_WAIT = """
import sys, time
from grader.limits import Limits
from grader.sandbox.docker import DockerCell
cell = DockerCell(Limits())
print(cell._container, flush=True)
time.sleep(600)
"""


def test_containers_of_a_crashed_grader_end_and_are_reaped(daemon):
    with made() as own:
        package = str(Path(grader.__file__).parent.parent)
        crashing = subprocess.Popen(
            [sys.executable, "-c", START_AND_WAIT],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": package},
        )
        with crashing:
            assert crashing.stdout
            orphan = crashing.stdout.readline().decode().strip()
            assert orphan
            crashing.kill()
        deadline = time.monotonic() + 30
        while daemon.containers(filters={"id": orphan}) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not daemon.containers(filters={"id": orphan}), "its processes end with their owner"
        factory.reap_orphans("docker")
        assert not daemon.containers(all=True, filters={"id": orphan})
        assert passes(own), "a container in use is left alone"


# What is said where something is missing


def test_a_missing_image_is_an_error_with_a_remedy(daemon):
    with pytest.raises(
        SandboxError, match=r"grader/python:none is missing: make it with `grader images build python"
    ):
        DockerCell(LIMITS, image="grader/python:none")


def test_an_image_that_is_not_ours_is_refused(daemon):
    base = f"grader/root:{rootfs.root_key()}"
    with pytest.raises(SandboxError, match="is none of its images"):
        DockerCell(LIMITS, image=base)


def test_an_unregistered_runtime_is_an_error_with_a_remedy(daemon):
    before = {found["Id"] for found in daemon.containers(all=True)}
    with pytest.raises(SandboxError, match=r"'kata' is not registered.*daemon\.json"):
        DockerCell(LIMITS, runtime="kata")
    owner = docker_orphans.own_labels()[docker_orphans.OWNER_LABEL]
    own = daemon.containers(all=True, filters={"label": f"{docker_orphans.OWNER_LABEL}={owner}"})
    assert {found["Id"] for found in own} <= before
