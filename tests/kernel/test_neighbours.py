"""Two cells side by side: what one's program takes is its own loss."""

from __future__ import annotations

import concurrent.futures

import pytest

MIB = 1 << 20
HOG = "def f():\n    hoard = []\n    while True:\n        hoard.append(bytearray(b'x' * (1 << 22)))"
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


@pytest.mark.parametrize("control_groups", [True, False], ids=["control-groups", "rlimit"])
def test_numpy_with_many_threads_does_not_fail_for_address_space(this_user, control_groups):
    """At the default limit: what threads map and do not touch must not count as memory that they use."""
    wanted = {"source": THREADS, "entry_point": "f"}
    (run,) = this_user.run(wanted, memory_bytes=1 << 30, control_groups=control_groups)["runs"]
    assert (run["ended"], run["raised"], run["memory_kill"]) == ("exited", [], False)
    assert run["answers"] == [[24, 27000000.0]]
