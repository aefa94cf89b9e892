"""The kinds of cell under attack: how each is made, how its processes are seen from outside, and where it differs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from attack_programs import ALL
from attack_programs.model import LIMITS, MEMORY, RUNTIME, TIME, WRONG, Attack

from grader.limits import Limits
from grader.sandbox import cgroup, docker_engine, docker_orphans
from grader.sandbox.options import CellOptions
from grader.status import Status

_RUNSC_STATE = "/var/run/docker/runtime-runc/moby"


@dataclass(frozen=True)
class Backend:
    """A kind of cell.

    ``also`` has further statuses that attacks may get in it, by a pattern of their names; ``without`` has patterns of
    those that are not tried in it, ``spent_by`` of those after which it takes no more runs. Of a ``variant`` of another
    kind only the first attack of every item is tried, and only where GRADER_ATTACKS is "variants" or "all".
    """

    name: str
    sandbox: str
    runtime: str | None = None
    limits: Limits = LIMITS
    also: Mapping[str, tuple[Status, ...]] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    spent_by: tuple[str, ...] = ()
    isolation: str = "namespaces"
    control_groups: bool = True
    variant: bool = False

    @property
    def cells(self) -> CellOptions:
        """The options that cells are made with."""
        return CellOptions(sandbox=self.sandbox, runtime=self.runtime, isolation=self.isolation)

    @property
    def host_sees_samples(self) -> bool:
        """Whether a sample is a process of this kernel, which can be looked at from here."""
        return self.runtime != "runsc"

    def statuses(self, attack: Attack) -> set[Status]:
        """The statuses that an attack may get in this kind of cell."""
        allowed = set(attack.statuses)
        for pattern, further in self.also.items():
            if fnmatchcase(attack.name, pattern):
                allowed.update(further)
        if not self.host_sees_samples and MEMORY in allowed:
            allowed.add(TIME)  # no kernel kills a program there that catches every MemoryError and goes on
        return allowed

    def keeps_cell(self, attack: Attack) -> bool:
        """Whether the next program runs in the same cell."""
        return not any(fnmatchcase(attack.name, pattern) for pattern in self.spent_by)

    def attacks(self) -> Sequence[Attack]:
        """The attacks to try: all, or where each takes long the first of every item, unless GRADER_ATTACKS=all."""
        tried = [attack for attack in ALL if not any(fnmatchcase(attack.name, name) for name in self.without)]
        every = self.host_sees_samples and not self.variant
        if every or os.environ.get("GRADER_ATTACKS") == "all":
            return tried
        return _one_an_item(tried)


def _one_an_item(attacks: Sequence[Attack]) -> list[Attack]:
    seen: set[int] = set()
    chosen = []
    for attack in attacks:
        if not seen.issuperset(attack.items):
            chosen.append(attack)
            seen.update(attack.items)
    return chosen


# Docker makes this file in every container; it is empty.
_DOCKER = {"opens-/.dockerenv": (WRONG,)}
# By user ids: what is in the container can be seen to be there, and not be read.
_SEEN = {"opens-*": (WRONG,)}
# In gVisor: no noexec; a stack and a crowd of threads fill RLIMIT_AS; what makes system calls for ever takes longer.
_GVISOR = _DOCKER | {
    "leaves-loaded-library": (WRONG,),
    "thread-bomb*": (MEMORY,),
    "search-files": (TIME,),
    "links": (TIME,),
    "inodes": (TIME,),
    "directories": (TIME,),
    "kernel-deep-folders": (TIME,),
    "kernel-long-links": (TIME,),
    "credit-of-a-crowd": (RUNTIME,),  # nor more threads
    "signal-storm": (RUNTIME,),  # the first process of a namespace is no exception there
    "machine-code-int-80-*": (WRONG,),  # means what the same number means to syscall
    "forged-close-channel-*": (RUNTIME,),  # ends with its channel: nothing shows there whether it has ended
}
# Its release of 2022 ends now and then where a program has gone over to 32-bit code: that costs a cell, not a verdict.
_NOT_IN_GVISOR = ("compatibility-*",)
# No limit on files there: what a sample leaves in /tmp can be too much to be removed.
_TOO_MANY_FILES = ("directories", "inodes", "links", "kernel-deep-folders", "kernel-long-links")
# gVisor on ptrace makes a system call in the time of a hundred, and its clocks go in steps of 10 ms.
_PATIENT = replace(LIMITS, time_floor_s=4.0, group_time_s=16.0, idle_s=8.0)

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("namespaces", "namespaces"),
        Backend("docker", "docker", also=_DOCKER),
        Backend("docker+runsc", "docker", "runsc", _PATIENT, _GVISOR, _NOT_IN_GVISOR, _TOO_MANY_FILES),
        Backend("docker-uids", "docker", also=_SEEN, isolation="uids", variant=True),
        Backend("namespaces-rlimit", "namespaces", control_groups=False, variant=True),
    )
}
"""A further kind of cell is one more entry here."""


@dataclass(frozen=True)
class Inside:
    """What an attack may not change: the cell, its processes and their open descriptors."""

    cell: str
    supervisor: int
    processes: tuple[int, ...]
    descriptors: Mapping[int, tuple[str, ...]]


def look_inside(backend: Backend, worker: int) -> Inside:
    """Look at the cell of a worker from outside."""
    if backend.sandbox != "docker":
        below = tuple(sorted(descendants(worker)))
        launcher = next(pid for pid in below if parent_of(pid) == worker)
        supervisor = next(pid for pid in below if parent_of(pid) == launcher)
        return Inside(str(launcher), supervisor, below, {pid: descriptors_of(pid) for pid in below})
    container, supervisor = _container(worker)
    if backend.host_sees_samples:
        below = (supervisor, *sorted(descendants(supervisor)))
        return Inside(container, supervisor, below, {pid: descriptors_of(pid) for pid in below})
    command = ["runsc", "--root", _RUNSC_STATE, "ps", "-format", "json", container]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return Inside(container, supervisor, tuple(json.loads(listed.stdout)), {})


def differences(before: Inside, after: Inside) -> str:
    """Say what of a cell is not as it was."""
    if (before.cell, before.supervisor) != (after.cell, after.supervisor):
        return (
            f"the cell is another: {before.cell}/{before.supervisor} is now {after.cell}/{after.supervisor}"
        )
    gone = sorted(set(before.processes) - set(after.processes))
    new = [f"{pid} ({_said_of(pid)})" for pid in sorted(set(after.processes) - set(before.processes))]
    opened = {
        pid: sorted(set(after.descriptors[pid]) ^ set(before.descriptors[pid]))
        for pid in set(before.descriptors) & set(after.descriptors)
        if after.descriptors[pid] != before.descriptors[pid]
    }
    return f"processes gone: {gone}, new: {new}; descriptors that differ: {opened}"


def _said_of(pid: int) -> str:
    """The state and the name of a process's threads, for an error message."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return f"{stat[:80]}, {len(list(Path(f'/proc/{pid}/task').iterdir()))} threads"
    except OSError:
        return "ended since"


def memory_of_group(inside: Inside) -> int | None:
    """Bytes charged to a cell's control group, without what of files can be dropped; None where it has none."""
    group = cgroup.group_of(inside.supervisor)
    own = cgroup.group_of(os.getpid())
    if group is None or (own is not None and group.memory == own.memory):
        return None
    used = group.memory / ("memory.usage_in_bytes" if group.version == 1 else "memory.current")
    counts = dict(line.split() for line in (group.memory / "memory.stat").read_text().splitlines())
    return int(used.read_text()) - int(counts["inactive_file"]) - int(counts["active_file"])


def _container(worker: int) -> tuple[str, int]:
    """The id and the first process of the one container that a worker owns."""
    client = docker_engine.connect()
    try:
        owned = [
            found["Id"]
            for found in client.containers(
                filters={"label": f"{docker_orphans.ROLE_LABEL}={docker_orphans.CELL}"}
            )
            if found["Labels"][docker_orphans.OWNER_LABEL].split("/")[2] == str(worker)
        ]
        (container,) = owned
        return container, client.inspect_container(container)["State"]["Pid"]
    finally:
        client.close()


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes below one."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return
    for thread in threads:
        for child in map(int, (thread / "children").read_text().split()):
            yield child
            yield from descendants(child)


def parent_of(pid: int) -> int:
    return int(_stat(pid)[1])


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, without its children."""
    user, system = _stat(pid)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descriptors_of(pid: int) -> tuple[str, ...]:
    """The open descriptors of a process, and what kind of thing each is."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(f"{entry.name} {os.readlink(entry)}")  # noqa: PTH115
        except FileNotFoundError:
            continue
    return tuple(sorted(found))
