"""Cells that are stopped or killed while programs run in them: noticed, and told from cells that are only slow."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grader.errors import CellLostError
from grader.limits import Limits
from grader.sandbox import cgroup, liveness
from grader.sandbox.cell import Cell, Done
from grader.sandbox.namespaces import NamespaceCell
from grader.sandbox.runner import wire
from grader.worker.bundle import encode_inputs
from grader.worker.functions import split_frames
from grader.worker.requests import RunRequest, function_payload, run_limits

LIMITS = Limits(time_floor_s=120.0, idle_s=600.0)
SLEEP = "import time\ndef f():\n    time.sleep(600)"
FREEZERS = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def cell(sandbox_root: Path) -> Iterator[NamespaceCell]:
    made = NamespaceCell(sandbox_root.resolve(), LIMITS, groups=not cgroup.unavailable_reason())
    try:
        yield made
    finally:
        made.close()


def start(cell: Cell, source: str, limits: Limits = LIMITS) -> int:
    payload = function_payload(source, "f", encode_inputs([[]]), stop_at_error=True)
    request = RunRequest((payload,), run_limits(limits, {}), (1,), lambda _: False, limits.memory_bytes)
    return cell.start_run(
        request.encoded(limits, cell.address_space), request.limits, group_sizes=(1,), zygote=request.zygote
    )


def wait_until_it_runs(cell: Cell) -> list[int]:
    """The cell's processes: launcher, supervisor, zygote, sample."""
    while not cell.receive(60.0):
        pass
    return list(liveness.descendants(cell.first_process))


def watch(cell: Cell, run: int = 1, until: Callable[[], bool] = lambda: False) -> Done | None:
    """Do as a worker's loop does, until a run is over."""
    while not until():
        for event in cell.receive(0.2):
            if isinstance(event, Done) and event.run == run:
                return event
        cell.check_alive()
    return None


@pytest.mark.parametrize("which", [1, 2], ids=["supervisor", "zygote"])
def test_a_cell_that_was_stopped_is_lost(cell, which):
    run = start(cell, SLEEP)
    processes = wait_until_it_runs(cell)
    assert len(processes) == 4
    os.kill(processes[which], signal.SIGSTOP)
    after = start(cell, SLEEP)  # for which the supervisor needs the zygote
    cell.kill_run(run)
    with pytest.raises(CellLostError, match="stopped with a signal") as lost:
        watch(cell, after)
    assert not lost.value.blamed
    cell.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes[:1])


def test_a_sample_that_was_stopped_is_not_judged(cell):
    limits = Limits(time_floor_s=120.0, idle_s=0.5)
    start(cell, "def f():\n    while True: pass", limits)
    os.kill(wait_until_it_runs(cell)[3], signal.SIGSTOP)
    with pytest.raises(CellLostError, match="stopped from outside") as lost:
        watch(cell)
    assert not lost.value.blamed


@pytest.mark.parametrize(
    "source",
    ["def f():\n    while True: pass", SLEEP, "import threading\nthreading.Event().wait()\ndef f(): pass"],
    ids=["running", "sleeping", "loading"],
)
def test_a_sample_that_was_killed_is_not_judged(cell, source):
    start(cell, source)
    while len(processes := list(liveness.descendants(cell.first_process))) < 4:
        cell.receive(0.05)
    os.kill(processes[3], signal.SIGKILL)
    with pytest.raises(CellLostError, match=r"killed from outside|could not set up") as lost:
        watch(cell)
    assert not lost.value.blamed


@pytest.mark.parametrize(
    "attempt",
    [
        "import os\nos.kill(os.getpid(), 9)\nos.kill(1, 9)\nos.kill(0, 9)\nos.killpg(0, 9)",
        "import ctypes\nctypes.CDLL(None).syscall(234, 1, 1, 9)",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
        "import ctypes\nctypes.CDLL(None).setrlimit(0, (ctypes.c_ulong * 2)(1, 1))",
        "import signal, ctypes\nsignal.setitimer(signal.ITIMER_PROF, 0.001)\nsignal.alarm(1)",
        "import os, fcntl, socket\na, b = socket.socketpair()\nfcntl.fcntl(a, 10, 9)\n"
        "fcntl.fcntl(a, fcntl.F_SETOWN, 1)\nfcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC)\nb.send(b'x')",
        "import os\nos.close(3)",
    ],
    ids=["kill", "tgkill", "setrlimit", "libc-setrlimit", "timers", "sigio", "hang-up"],
)
def test_no_program_can_have_itself_killed_like_that(cell, attempt):
    """Or it could ask for another cell, again and again, instead of being judged."""
    body = "\n".join(f"        {line}" for line in attempt.splitlines())
    wait = "    end = time.process_time() + 1.2\n    while time.process_time() < end: pass\n"
    start(cell, f"import time\ndef f():\n    try:\n{body}\n    except Exception: pass\n{wait}")
    done = watch(cell)
    assert done is not None
    assert not done.memory_kill
    after = start(cell, "def f():\n    return 1")
    assert watch(cell, after).ended == "exited"


def test_a_frozen_cell_is_lost(cell):
    if not os.access(FREEZERS, os.W_OK):
        reason = "needs root and a freezer of control groups, version 1"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    start(cell, SLEEP)
    processes = wait_until_it_runs(cell)
    group = FREEZERS / f"grader-test-{os.getpid()}"
    group.mkdir()
    try:
        for process in processes:
            (group / "cgroup.procs").write_text(str(process))
        (group / "freezer.state").write_text("FROZEN")
        with pytest.raises(CellLostError, match="frozen control group"):
            watch(cell)
        cell.close()  # does not wait for ever
    finally:
        (group / "freezer.state").write_text("THAWED")
        while (group / "cgroup.procs").read_text():
            time.sleep(0.01)
        while group.exists():
            with contextlib.suppress(OSError):
                group.rmdir()


def test_a_cell_that_is_let_go_again_soon_is_not_lost(cell):
    run = start(cell, SLEEP)
    supervisor = wait_until_it_runs(cell)[1]
    os.kill(supervisor, signal.SIGSTOP)
    cell.check_alive()
    time.sleep(1.0)
    os.kill(supervisor, signal.SIGCONT)
    begin = time.monotonic()
    assert watch(cell, until=lambda: time.monotonic() > begin + 2.0) is None
    cell.kill_run(run)
    assert watch(cell).ended == "cancelled"


def test_the_absence_of_the_worker_is_not_the_cells(cell, monkeypatch):
    """As when both were stopped, and go on together: the answer is still to come."""
    start(cell, SLEEP)
    wait_until_it_runs(cell)
    cell._silent_s = 1.0
    cell.check_alive()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    monkeypatch.setattr("select.select", lambda *_: ([], [], []))
    cell.check_alive()


def test_a_sleep_goes_on_after_a_stop(cell):
    """The kernel has the process call restart_syscall(2), which the filter must let through."""
    start(cell, "import time\ndef f():\n    time.sleep(2.0)")
    received, stopped, done = b"", False, False
    while not done:
        for event in cell.receive(60.0):
            done = isinstance(event, Done)
            received += b"" if done else event.data
        for sample in [] if stopped else list(liveness.descendants(cell.first_process))[3:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(sample, signal.SIGSTOP)
                os.kill(sample, signal.SIGCONT)
        stopped = True
    assert [kind for kind, _ in split_frames(received)] == [wire.LOADED, wire.VALUE, wire.FINISHED]


def test_a_quiet_cell_is_alive(cell):
    start(cell, SLEEP)
    wait_until_it_runs(cell)
    begin = time.monotonic()
    assert watch(cell, until=lambda: time.monotonic() > begin + 3.0) is None


@pytest.mark.parametrize("which", [0, 1, 2], ids=["launcher", "supervisor", "zygote"])
def test_nobody_is_blamed_for_a_cell_that_was_killed(cell, which):
    run = start(cell, SLEEP)
    processes = wait_until_it_runs(cell)
    after = start(cell, SLEEP)
    os.kill(processes[which], signal.SIGKILL)
    if which == 2:  # the supervisor misses its zygote when it next needs it
        cell.kill_run(run)
    with pytest.raises(CellLostError) as lost:
        watch(cell, after)
    assert not lost.value.blamed


def test_what_breaks_the_protocol_is_blamed(cell):
    """As if the supervisor had been taken over."""
    for frame in (b"\x02\x00\x00\x00D{}", b"\xff\xff\xff\xffA", b"\x00\x00\x00\x00?", b"\x01\x00\x00\x00A0"):
        cell._incoming[:] = frame
        with pytest.raises(CellLostError) as lost:
            cell.receive(0)
        assert lost.value.blamed
    cell._incoming.clear()


def test_a_supervisor_that_fails_is_blamed(cell):
    cell._send(ord("R"), b"no marshalled tuple")
    with pytest.raises(CellLostError, match="failed") as lost:
        watch(cell)
    assert lost.value.blamed
