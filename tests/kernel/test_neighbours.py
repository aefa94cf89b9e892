"""Two cells side by side: what one's program takes is its own loss."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
from dataclasses import replace

import pytest

from grader.sandbox import cgroup

MIB = 1 << 20
HOG = "def f():\n    hoard = []\n    while True:\n        hoard.append(bytearray(b'x' * (1 << 22)))"
# In small steps, between which it needs code.
SLOW_HOG = "def f():\n    hoard = []\n    while True:\n        hoard.append(float(len(hoard)))"
# Holds memory of its own all the while, and looks at it again at the end.
NEIGHBOUR = (
    "import time\ndef f():\n    held = bytearray(b'y' * (1 << 26))\n    end = time.process_time() + 1\n"
    "    while time.process_time() < end: pass\n    return held.count(b'y')"
)
# numpy's linear algebra starts a thread a processor, each with a stack and a buffer of its own.
THREADS = (
    "import threading\nimport numpy\ndef f():\n"
    "    def work(): made.append(float((numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum()))\n"
    "    made = []\n    crowd = [threading.Thread(target=work) for _ in range(24)]\n"
    "    for thread in crowd: thread.start()\n    for thread in crowd: thread.join()\n    return len(made), made[0]"
)


@pytest.mark.parametrize("control_groups", [True, False], ids=["control-groups", "rlimit"])
def test_a_hog_gets_no_neighbour_killed(this_user, control_groups):
    def run(source, memory, times):
        wanted = [{"source": source, "entry_point": "f"}] * times
        return this_user.run(*wanted, memory_bytes=memory, control_groups=control_groups)["runs"]

    with concurrent.futures.ThreadPoolExecutor() as cells:
        neighbour = cells.submit(run, NEIGHBOUR, 256 * MIB, 1)
        hogs = cells.submit(run, HOG, 256 * MIB, 2)
        (beside,) = neighbour.result()
        for hog in hogs.result():
            assert hog["answers"] == []
            assert hog["memory_kill"] or [error[0] for error in hog["raised"]] == ["MemoryError"]
    assert (beside["ended"], beside["answers"], beside["memory_kill"]) == ("exited", [1 << 26], False)


@pytest.fixture
def cold_root(sandbox_root, tmp_path):
    """A root folder of which nothing is in memory: what a cell reads of it first is charged to that cell."""
    root = shutil.copytree(sandbox_root, tmp_path / "root", symlinks=True)
    for file in root.rglob("*"):
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as read:
                os.fsync(read.fileno())
                os.posix_fadvise(read.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return root


@pytest.mark.parametrize("attempt", [1, 2])  # it happens three times of four
def test_a_hog_is_killed_before_the_runners_code_is_taken_from_memory(this_user, cold_root, attempt):
    """The kernel takes back code that was read from files, and the cell would have it read again all the time."""
    if missing := cgroup.unavailable_reason():
        reason = f"without a control group nothing is taken back: {missing}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    hog = {"source": SLOW_HOG, "entry_point": "f"}
    (run,) = replace(this_user, root=cold_root).run(hog, memory_bytes=256 * MIB)["runs"]
    assert run["memory_kill"]
    assert run["runner_s"] < run["cpu_s"] / 4  # 1/50; where it is taken back, half of the sample's and more


@pytest.mark.parametrize("control_groups", [True, False], ids=["control-groups", "rlimit"])
def test_numpy_with_many_threads_does_not_fail_for_address_space(this_user, control_groups):
    """At the default limit: what threads map and do not touch must not count as memory that they use."""
    wanted = {"source": THREADS, "entry_point": "f"}
    (run,) = this_user.run(wanted, memory_bytes=1 << 30, control_groups=control_groups)["runs"]
    assert (run["ended"], run["raised"], run["memory_kill"]) == ("exited", [], False)
    assert run["answers"] == [[24, 27000000.0]]
