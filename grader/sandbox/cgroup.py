"""Control groups of a cell: memory and number of processes, on hierarchy version 1 and 2.

A group's name has the owner's process id and start time, so that groups left by a killed owner can be told from
those in use, and removed.
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
_numbers = itertools.count()


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
            _write(self.memory / "memory.limit_in_bytes", size)
            if with_swap.exists():
                _write(with_swap, size)
        else:
            _write(self.memory / "memory.max", size)
            with contextlib.suppress(SandboxError, FileNotFoundError):
                _write(self.memory / "memory.swap.max", 0)

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


def make_group(memory_bytes: int, processes: int) -> Group | None:
    """Make the groups of a new cell, or return None where this user may not (``unavailable_reason`` says why)."""
    name = f"{_PREFIX}{os.getpid()}-{_start_time(os.getpid())}-{next(_numbers)}"
    hierarchies = find_hierarchies()
    folders = []
    try:
        for hierarchy in dict.fromkeys((hierarchies["memory"], hierarchies["pids"])):
            folder = hierarchy.parent / name
            folder.mkdir()
            folders.append(folder)
        group = Group(hierarchies["memory"].version, folders[0], tuple(folders))
        group.limit_memory(memory_bytes)
        _write(folders[-1] / "pids.max", processes)
    except (KeyError, OSError, SandboxError):
        for folder in folders:
            folder.rmdir()
        return None
    return group


def unavailable_reason() -> str:
    """Say why groups cannot be made here; "" if they can."""
    group = make_group(1 << 30, 64)
    if group is not None:
        group.remove()
        return ""
    found = find_hierarchies()
    missing = [name for name in ("memory", "pids") if name not in found]
    if missing:
        return f"no hierarchy with the controller {' or '.join(missing)} is mounted and delegated"
    return f"no permission to make a group below {found['memory'].parent}"


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
        for folder in hierarchy.parent.glob(f"{_PREFIX}*-*-*"):
            pid, started, *_ = folder.name.removeprefix(_PREFIX).split("-")
            if not (pid.isdecimal() and started.isdecimal()) or _start_time(int(pid)) == started:
                continue  # not one of ours, or in use
            with contextlib.suppress(OSError):
                folder.rmdir()
                removed += 1
    return removed


def _start_time(pid: int) -> str:
    """The process's start time in clock ticks since boot; "" if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _write(file: Path, value: int) -> None:
    try:
        file.write_text(str(value))
    except OSError as error:
        raise SandboxError(f"cannot write {value} to {file}: {error}") from error
