"""Control groups of a cell: memory and number of processes, on hierarchy version 1 and 2.

A group's name has the owner's PID namespace, process id and start time, so that groups left by a killed owner can be
told from those in use, and removed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grader.errors import SandboxError

_PREFIX = "grader-"
_FOREIGN_S = 3600.0  # after which a group of another PID namespace, in which no process is, counts as left
_numbers = itertools.count()
_THREAD_BYTES = 192 << 20  # of a thread's stack and its arena, as glibc maps them
_SPARE_BYTES = 4 << 30
# Beside the sample: launcher, supervisor, driver and six zygotes, which are started when they are needed. With room for
# fewer, how many threads a sample can have would depend on those that came before it.
RUNNER_MEMORY, RUNNER_PROCESSES = 64 << 20, 9


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy and the group below which ours are made."""

    version: int
    parent: Path


@dataclass(frozen=True, slots=True)
class Group:
    """The control groups of one cell: one folder on version 2, one a controller on version 1."""

    version: int
    memory: Path
    folders: tuple[Path, ...]

    def limit_memory(self, size: int) -> None:
        """Set the limit in bytes, swap included. Raises SandboxError."""
        if self.version == 1:
            # The limit with swap may never be below the one without: which must go first depends on the old ones.
            with_swap = self.memory / "memory.memsw.limit_in_bytes"
            if with_swap.exists():
                with contextlib.suppress(SandboxError):
                    _write(with_swap, size)
            else:  # swap is not counted: so nothing of the group may go there, rather than all of it
                _write_if_there(self.memory / "memory.swappiness", 0)
            _write(self.memory / "memory.limit_in_bytes", size)
            _write_if_there(with_swap, size)
        else:
            _write(self.memory / "memory.max", size)
            _write_if_there(self.memory / "memory.swap.max", 0)

    def out_of_memory_kills(self) -> int:
        """How many processes the kernel has killed here for want of memory."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        for line in (self.memory / name).read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0

    def remove(self) -> None:
        """Remove the groups; waits up to a second for the kernel to let go of their last process."""
        for folder in self.folders:
            for _ in range(100):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)
                else:
                    break


def mapped_beside_group(memory_bytes: int, threads: int) -> int:
    """Return how many bytes a sample may map where a control group limits those that it uses.

    Far more than an honest program does, and little enough that its page tables (a page of them for every 2 MiB) fit
    into the memory that the group has for the runner. The kernel frees them a while after their process has ended, when
    they count against the next sample; and it cannot take them from a process that it kills for want of memory, so that
    it would kill the runner's processes too.
    """
    return memory_bytes + threads * _THREAD_BYTES + _SPARE_BYTES


def make_group(memory_bytes: int, processes: int) -> Group:
    """Make the groups of a new cell. Raises SandboxError where that cannot be done, e.g. because this user may not."""
    name = f"{_PREFIX}{_pid_namespace()}-{os.getpid()}-{_start_time(os.getpid())}-{next(_numbers)}"
    hierarchies = find_hierarchies()
    missing = [controller for controller in ("memory", "pids") if controller not in hierarchies]
    if missing:
        raise SandboxError(
            f"no hierarchy with the controller {' or '.join(missing)} is mounted and delegated"
        )
    folders = []
    try:
        for hierarchy in dict.fromkeys((hierarchies["memory"], hierarchies["pids"])):
            folder = hierarchy.parent / name
            folder.mkdir()
            folders.append(folder)
        group = Group(hierarchies["memory"].version, folders[0], tuple(folders))
        group.limit_memory(memory_bytes)
        _write(folders[-1] / "pids.max", processes)
    except (OSError, SandboxError) as error:
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, SandboxError):
            raise
        parent = Path(error.filename).parent if error.filename else hierarchies["memory"].parent
        raise SandboxError(f"cannot make a group below {parent}: {error.strerror}") from error
    return group


def unavailable_reason() -> str:
    """Say why groups cannot be made here; "" if they can."""
    try:
        make_group(1 << 30, 64).remove()
    except SandboxError as error:
        return str(error)
    return ""


def find_hierarchies() -> dict[str, Hierarchy]:
    """Find where the memory and pids controllers can be used: version 1 mounts first, else the version 2 tree."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers else [""]:
            own[controller] = path
    found: dict[str, Hierarchy] = {}
    for mount, kind, options in _mounts():
        if kind == "cgroup":
            for controller in {"memory", "pids"} & set(options.split(",")):
                found[controller] = Hierarchy(1, _below(mount, own.get(controller, "/")))
        elif kind == "cgroup2":
            parent = _delegating(mount, own.get("", "/"))
            if parent is not None:
                for controller in ("memory", "pids"):
                    found.setdefault(controller, Hierarchy(2, parent))
    return found


def group_of(pid: int) -> Group | None:
    """Return the groups that another process is in, or None where this process cannot see them."""
    paths: dict[str, str] = {}
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path.lstrip("/"))
    for mount, kind, options in _mounts():
        version = 1 if kind == "cgroup" else 2
        name = "memory" if version == 1 else ""
        if name in paths and (version == 2 or name in options.split(",")):
            folder = mount / paths[name]
            if (folder / ("memory.oom_control" if version == 1 else "memory.events")).exists():
                return Group(version, folder, (folder,))
    return None


def cpu_counter_of(pid: int) -> Path | None:
    """Return the file that counts the CPU time of another process's group; None where it cannot be seen."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for mount, kind, options in _mounts():
            if "cpuacct" in controllers.split(",") and kind == "cgroup" and "cpuacct" in options.split(","):
                found = mount / path.lstrip("/") / "cpuacct.usage"
            elif not controllers and kind == "cgroup2":
                found = mount / path.lstrip("/") / "cpu.stat"
            else:
                continue
            if path != "/" and found.exists():
                return found
    return None


def is_frozen(pid: int) -> bool:
    """Whether a process is in a group that a freezer has stopped; False where that cannot be seen."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for mount, kind, options in _mounts() if controllers in ("", "freezer") else ():
            group = mount / path.lstrip("/")
            with contextlib.suppress(OSError):
                if controllers:
                    if kind == "cgroup" and "freezer" in options.split(","):
                        return (group / "freezer.state").read_text().strip() != "THAWED"
                elif kind == "cgroup2" and "frozen 1" in (group / "cgroup.events").read_text().splitlines():
                    return True
    return False


def read_cpu_s(counter: Path) -> float:
    """Return the CPU seconds in such a file. Raises OSError when the group is gone."""
    text = counter.read_text()
    return int(text.split()[1]) / 1e6 if counter.name == "cpu.stat" else int(text) / 1e9


def _mounts() -> Iterator[tuple[Path, str, str]]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, options, *_ = line.split(" ")
        if kind in ("cgroup", "cgroup2"):
            yield Path(mount), kind, options


def _below(mount: Path, path: str) -> Path:
    """The process's own group, or the root of the mount where a container shows only a part of the tree."""
    own = mount / path.lstrip("/")
    return own if own.is_dir() else mount


def _delegating(mount: Path, path: str) -> Path | None:
    """The nearest group, from our own upwards, that gives memory and pids to its children."""
    current = _below(mount, path)
    while True:
        with contextlib.suppress(OSError):
            if {"memory", "pids"} <= set((current / "cgroup.subtree_control").read_text().split()):
                return current
            if {"memory", "pids"} <= set((current / "cgroup.controllers").read_text().split()):
                (current / "cgroup.subtree_control").write_text("+memory +pids")
                return current
        if current == mount:
            return None
        current = current.parent


def remove_abandoned() -> int:
    """Remove the groups whose owner no longer lives; returns how many."""
    removed = 0
    for hierarchy in set(find_hierarchies().values()):
        for folder in hierarchy.parent.glob(f"{_PREFIX}*-*-*-*"):
            if _is_abandoned(folder):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    removed += 1
    return removed


def _is_abandoned(folder: Path) -> bool:
    """Whether a group is one of ours whose owner no longer lives.

    Of a process in another PID namespace nothing is known here, and its group is empty until its cell has entered it:
    so it counts as used while it is young. The kernel refuses to remove one in which a process is.
    """
    parts = folder.name.removeprefix(_PREFIX).split("-")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        return False
    namespace, pid, started, _ = parts
    if namespace == _pid_namespace():
        return _start_time(int(pid)) != started
    with contextlib.suppress(OSError):
        return time.time() - folder.stat().st_mtime > _FOREIGN_S
    return False


def _pid_namespace() -> str:
    """The number of the namespace in which our process ids mean something."""
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _start_time(pid: int) -> str:
    """The process's start time in clock ticks since boot; "" if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _write_if_there(file: Path, value: int) -> None:
    if file.exists():
        _write(file, value)


def _write(file: Path, value: int) -> None:
    try:
        file.write_text(str(value))
    except OSError as error:
        raise SandboxError(f"cannot write {value} to {file}: {error}") from error
