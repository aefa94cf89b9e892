"""Each layer is in force in a running sample: looked at from outside, where the sample cannot lie.

An attack that is stopped by two layers does not notice when one of them is gone; this does.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attack_backends import BACKENDS, descendants
from attack_harness import Harness
from attack_programs.model import LIMITS

from grader.status import Status

# gVisor's processes have no /proc here: what is in force there is asked from inside (tests/kernel/test_docker.py).
pytestmark = pytest.mark.parametrize(
    "backend",
    [name for name, backend in BACKENDS.items() if backend.host_sees_samples and not backend.variant],
    indirect=True,
    scope="session",
)
SLEEPER = "import threading\nthreading.Event().wait()\n"


@contextlib.contextmanager
def sleeping_sample(harness: Harness, supervisor: int) -> Iterator[Path]:
    """The /proc folder of a sample that sleeps; it is ended by its idle limit."""
    before = set(descendants(supervisor))
    verdicts: list[Status] = []
    grading = threading.Thread(target=lambda: verdicts.append(harness.grade(SLEEPER)["status"]))
    grading.start()
    try:
        yield _confined(supervisor, before, filters(harness))
    finally:
        grading.join()
    assert verdicts == [Status.TIME_LIMIT]


def filters(harness: Harness) -> str:
    """How many system call filters a sample has: its zygote's, its own, and a container's profile."""
    return "3" if harness.backend.sandbox == "docker" else "2"


def _confined(supervisor: int, before: set[int], wanted: str) -> Path:
    """Wait until there is a sample that has shut its last door: the filter."""
    for _ in range(500):
        for pid in set(descendants(supervisor)) - before:
            folder = Path(f"/proc/{pid}")
            if f"Seccomp_filters:\t{wanted}" in (folder / "status").read_text():
                return folder
        time.sleep(0.01)
    raise AssertionError("no sample with a system call filter was seen")


def link(entry: Path) -> str:
    return str(entry.readlink())


def facts(sample: Path) -> dict[str, str]:
    lines = (sample / "status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def limit(sample: Path, name: str) -> list[str]:
    (line,) = [line for line in (sample / "limits").read_text().splitlines() if line.startswith(name)]
    return line[len("Max realtime timeout      ") :].split()[:2]


def test_every_layer_is_in_force(harness: Harness) -> None:
    """One test, because each sleeper costs a second, in which this process may have no processor."""
    supervisor = harness.state().supervisor
    for _ in range(10):
        with sleeping_sample(harness, supervisor) as sample:
            try:
                layers_are_in_force(sample, harness, Path(f"/proc/{supervisor}/ns"))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended in the meantime
            return
    raise AssertionError("each sample ended before all of it was looked at")


def layers_are_in_force(sample: Path, harness: Harness, cell: Path) -> None:
    """Fail where a running sample has too few; ``cell``: the namespaces of its cell."""
    known = facts(sample)
    # User: nobody, no capability, no way to one, and a filter.
    assert set(known["Uid"].split()) == {"65534"} or os.geteuid() != 0
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"):
        assert int(known[name], 16) == 0, name
    assert known["NoNewPrivs"] == "1"
    assert (known["Seccomp"], known["Seccomp_filters"]) == ("2", filters(harness))
    # Namespaces: none of ours; a user, process, mount and IPC namespace of the sample's own, not the cell's.
    for name in ("user", "pid", "mnt", "ipc", "net", "uts", "cgroup"):
        own = link(sample / "ns" / name)
        assert own != link(Path("/proc/self/ns") / name), name
        assert (own != link(cell / name)) == (name in ("user", "pid", "mnt", "ipc")), name
    assert known["NSpid"].split()[-1] == "1"
    # A process group and session of its own: kill(0) goes to the group, across namespaces.
    group, session = (sample / "stat").read_text().rpartition(")")[2].split()[2:4]
    assert (group, session) == (sample.name, sample.name)
    # Files: a small tmpfs of its own, and nothing else that can be written.
    mounts = [line.split() for line in (sample / "mountinfo").read_text().splitlines()]
    by_place = {fields[4]: fields for fields in mounts}
    devices = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")}
    if harness.backend.sandbox == "docker":
        # What the engine mounted, and over it what the supervisor covered it with, which alone is seen.
        assert {place: by_place[place][3] for place in ("/proc", "/sys", "/etc", "/dev")} == dict.fromkeys(
            ("/proc", "/sys", "/etc", "/dev"), "/"
        )
        for place in ("/proc", "/sys", "/etc"):
            assert "covered" in by_place[place], place
        covered = tuple(f"/{name}/" for name in ("proc", "sys", "etc", "dev"))
        by_place = {
            at: fields for at, fields in by_place.items() if at in devices or not at.startswith(covered)
        }
    assert set(by_place) <= {"/", "/runner", "/tmp", "/proc", "/sys", "/etc", "/dev", *devices}
    scratch = " ".join(by_place["/tmp"])
    assert "tmpfs" in scratch
    assert f"size={LIMITS.tmp_bytes // 1024}k" in scratch
    assert "nr_inodes=" in scratch
    assert {"nosuid", "nodev", "noexec"} <= set(by_place["/tmp"][5].split(","))
    for place in set(by_place) - {"/tmp"} - devices:
        assert "ro" in by_place[place][5].split(","), place
        if (
            place != "/" or harness.backend.sandbox != "docker"
        ):  # an engine's root has no device node in it, and no_new_privs
            assert {"nosuid", "nodev"} <= set(by_place[place][5].split(",")), place
    # Descriptors: three standard streams and the channel.
    assert sorted(int(entry.name) for entry in (sample / "fd").iterdir())[-1] <= 4
    assert link(sample / "fd/0") == "/dev/null"
    assert re.match("pipe:", link(sample / "fd/3"))
    # Limits, hard and soft.
    for name, value in {
        "Max core file size": 0,
        "Max open files": 256,
        "Max processes": LIMITS.threads,
        "Max file size": LIMITS.tmp_bytes,
        "Max locked memory": 0,
        "Max msgqueue size": 0,
    }.items():
        assert limit(sample, name) == [str(value)] * 2, name
    assert limit(sample, "Max stack size")[0] != "unlimited"
    assert (sample / "oom_score_adj").read_text() == "1000\n"
    # Environment: nothing of the grader's.
    environment = (sample / "environ").read_bytes()
    assert not re.search(rb"GRADER|TOKEN|SECRET|/root|/home|VIRTUAL_ENV|PYTHONPATH", environment)


def test_memory_and_processes_are_counted_by_the_kernel(harness: Harness) -> None:
    """Where the stamp says so, the cell's groups hold its limits."""
    layers = harness.layers
    if not any(layer.startswith("memory_cgroup") for layer in layers):
        assert "memory_rlimit" in layers
        return
    groups = Path(f"/proc/{harness.state().supervisor}/cgroup").read_text()
    found = 0
    for mount in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = mount.split()
        for line in groups.splitlines():
            _, controllers, path = line.split(":", 2)
            mine = kind == "cgroup" and controllers and set(controllers.split(",")) <= set(options.split(","))
            if not mine and not (kind == "cgroup2" and not controllers):
                continue
            for name in ("memory.limit_in_bytes", "memory.max", "pids.max"):
                file = Path(place) / path.lstrip("/") / name
                if file.exists() and file.read_text().strip() not in ("max", "9223372036854771712"):
                    found += 1
                    most = LIMITS.threads + 16 if name == "pids.max" else LIMITS.memory_bytes + (128 << 20)
                    assert int(file.read_text()) <= most, file
    assert found >= 2
