"""Container cells whose samples are parted by user ids, for hosts that forbid user namespaces."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import marshal
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from grader.dispatch.blocking import BlockingEngine
from grader.engines.local import LocalPool
from grader.errors import CellLostError, InputError
from grader.limits import MIB, Limits
from grader.samples import read_samples
from grader.sandbox import docker_engine, factory, images
from grader.sandbox.cell import Answers, Cell, Done
from grader.sandbox.docker import DockerCell
from grader.sandbox.options import CellOptions
from grader.sandbox.runner import kernel, uids
from grader.suites import registry
from grader.worker.program import Program
from grader.worker.requests import RunRequest, function_payload, run_limits

LIMITS = Limits(time_floor_s=20.0, idle_s=60.0, memory_bytes=256 * MIB, tmp_bytes=16 * MIB)
HONEST = "def f(n):\n    return n * 7919"
WHO = "import os\ndef f(n):\n    return repr((os.getresuid(), os.getresgid(), os.getgroups(), os.listdir('/tmp')))"


@pytest.fixture(scope="module")
def docker() -> None:
    missing = factory.unavailable_reason(CellOptions(sandbox="docker"))
    if missing:
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    images.build()


@pytest.fixture
def cell(docker: None) -> Iterator[Cell]:
    with contextlib.closing(DockerCell(LIMITS, isolation="uids")) as made:
        yield made


def run(cell: Cell, source: str, argument: object = 3, limits: Limits = LIMITS) -> tuple[Done, str]:
    """Call ``f`` of a program once; returns how it ended, and its answers as text."""
    inputs = marshal.dumps([argument])
    payload = function_payload(source, "f", struct.pack("<I", len(inputs)) + inputs, stop_at_error=True)
    request = RunRequest((payload,), run_limits(limits, {}), (1,), lambda _: False, limits.memory_bytes)
    cell.start_run(
        request.encoded(limits, cell.address_space), request.limits, group_sizes=(1,), zygote=request.zygote
    )
    data = b""
    while True:
        for event in cell.receive(60.0):
            if not isinstance(event, Answers):
                return event, data.decode("utf-8", "replace")
            data += event.data


def user_of(cell: Cell) -> int:
    """The user of a run that finds nothing of another."""
    found = re.search(r"\(\((\d+), \1, \1\), \(\1, \1, \1\), \[\], \[\]\)", run(cell, WHO)[1])
    assert found
    return int(found[1])


def passes(cell: Cell) -> bool:
    done, text = run(cell, HONEST)
    return (done.ended, done.code) == ("exited", 0) and struct.pack("<q", 3 * 7919).decode(
        "utf-8", "replace"
    ) in text


def test_the_container_has_three_capabilities_and_is_stamped_with_them(cell):
    client = docker_engine.connect()
    try:
        found = client.inspect_container(cell._container)
    finally:
        client.close()
    host = found["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] == ["SETUID", "SETGID", "KILL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert "uids" in cell.layers
    assert not {"userns", "pidns", "mountns", "no_capabilities"} & set(cell.layers)
    assert any(layer.startswith("landlock") for layer in cell.layers)


def test_the_profile_allows_no_namespace_so_that_none_can_be_needed(cell):
    code = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print([l.unshare(f) for f in (1 << 28, 1 << 17)])"
    command = ["docker", "exec", cell._container, "/python/bin/python3", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[-1, -1]\n"
    assert passes(cell)


def test_every_run_has_a_user_of_its_own_and_they_are_used_again(cell):
    seen = [user_of(cell) for _ in range(40)]
    assert len(set(seen[:32])) == 32
    assert seen[32:] == seen[:8]


def test_a_sample_has_no_capability_and_reads_nothing_of_the_engine(cell):
    done, text = run(
        cell,
        "import os\n"
        "def f(n):\n"
        "    out = []\n"
        "    for act in (lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.kill(1, 9), lambda: os.fork(),\n"
        "                *(lambda p=p: os.listdir(p) for p in ('/', '/proc', '/sys', '/etc', '/dev', '/dev/mqueue')),\n"
        "                *(lambda p=p: open(p) for p in ('/proc/1/environ', '/proc/self/status', '/etc/hosts'))):\n"
        "        try: out.append(act())\n"
        "        except PermissionError: pass\n"
        "    return repr(out) + 'ok'\n",
    )
    assert "[]ok" in text, (done, text)
    assert passes(cell)


LEAVE = """
import os
def f(n):
    os.makedirs('a/b')
    for name in ('x', '.hidden', 'a/b/c'):
        open('/tmp/' + name, 'w').write('left')
    os.symlink('/', '/tmp/a/link')
    os.chmod('/tmp/a/b', 0)
    os.chmod('/tmp/a', 0)
    return 'left all'
"""


def test_files_that_a_sample_leaves_are_gone_for_the_next(cell):
    for _ in range(3):
        assert "left all" in run(cell, LEAVE)[1]
        user_of(cell)


def test_limits_hold(cell):
    short = replace(LIMITS, time_floor_s=0.5, idle_s=0.5)
    assert run(cell, "def f(n):\n    while True: pass", limits=short)[0].ended == "cpu_limit"
    assert run(cell, "import time\ndef f(n):\n    time.sleep(99)", limits=short)[0].ended == "idle_limit"
    stop = "import os, signal\ndef f(n):\n    os.kill(0, signal.SIGSTOP)"
    assert run(cell, stop, limits=short)[0].ended == "idle_limit"
    done, text = run(cell, "def f(n):\n    return len([bytearray(b'x' * (1 << 20)) for _ in range(2000)])")
    assert done.memory_kill or "MemoryError" in text
    _, text = run(cell, "import os\ndef f(n):\n    os.kill(-1, 9)\n    return 'nobody else'")
    assert "nobody else" in text
    assert passes(cell)


def test_a_user_of_whom_a_process_is_left_is_not_used_again(cell):
    next_user = user_of(cell) + 1
    sleeper = ["/python/bin/python3", "-c", "import time; time.sleep(600)"]
    command = ["docker", "exec", "-d", "-u", f"{next_user}:{next_user}", cell._container, *sleeper]
    subprocess.run(command, check=True)
    with pytest.raises(CellLostError, match=rf"user {next_user} is not gone: process \d+") as lost:
        all(passes(cell) for _ in range(40))
    assert lost.value.blamed


def test_what_is_left_of_a_user_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(uids, "SCRATCH", str(tmp_path))
    assert uids.traces_of(0x7FFFFFF0) == []
    (tmp_path / "file").touch()
    made = subprocess.run(["ipcmk", "-Q"], capture_output=True, text=True, check=True).stdout.split()[-1]
    try:
        found = uids.traces_of(os.getuid())
    finally:
        subprocess.run(["ipcrm", "-q", made], check=True)
    assert {f"process {os.getpid()}", f"{tmp_path}/file", f"msg {made}"} <= set(found)


def test_it_is_refused_where_it_means_nothing(tmp_path):
    with pytest.raises(InputError, match="--sandbox docker"):
        CellOptions(sandbox="namespaces", isolation="uids")
    with pytest.raises(InputError, match="leave --runtime runsc out"):
        CellOptions(sandbox="docker", runtime="runsc", isolation="uids")
    with pytest.raises(InputError, match="there is no isolation 'none'"):
        CellOptions(sandbox="docker", isolation="none")


def test_verdicts_are_those_of_the_embedded_sandbox(docker, own_cache):
    suite = registry.load("starter")
    samples = [given for given in read_samples(registry.starter_samples_path(), suite) if given.is_solution]
    programs = [Program(given.task_id, str(number), given.text) for number, given in enumerate(samples)]
    judged = []
    for pool in (
        LocalPool(limits=Limits(), workers=1),
        LocalPool(limits=Limits(), workers=1, cells=CellOptions(sandbox="docker", isolation="uids")),
    ):
        with BlockingEngine(pool, suite, limits=Limits()) as engine:
            verdicts = sorted(engine.grade(programs), key=lambda verdict: int(verdict["sample_id"]))
        judged.append([(verdict["status"], verdict["groups"]) for verdict in verdicts])
    assert judged[0] == judged[1]
    assert len({status for status, _ in judged[0]}) > 2


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSPC])
def test_a_host_that_forbids_user_namespaces_is_told_from_a_full_disk(number):
    ctypes.set_errno(number)
    with pytest.raises(OSError, match="unshare") as refused:
        kernel._checked(-1, "unshare 0x10020000")
    text = docker_engine.explain("the container does not start", f"OSError: {refused.value}")
    assert "forbids user namespaces" in text
    assert "uids" in text
