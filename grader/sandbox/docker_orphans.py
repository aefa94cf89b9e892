"""Whose a container is, so that those of a grader that crashed can be told from those in use, and removed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from grader.errors import SandboxError
from grader.sandbox import docker_engine

ROLE_LABEL, OWNER_LABEL = "grader.sandbox", "grader.owner"
CELL = "cell"


def own_labels() -> dict[str, str]:
    """Return the labels of a container of this process: what it is, and whose."""
    return {ROLE_LABEL: CELL, OWNER_LABEL: _owner()}


def _owner() -> str:
    return f"{_machine()}/{os.getpid()}/{_start_time(os.getpid())}"


def _machine() -> str:
    """This boot of this kernel, and the PID namespace in which our process ids mean something."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def _start_time(pid: int) -> str:
    """A process's start in clock ticks since boot (proc_pid_stat(5), field 22); "" if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def is_orphan(owner: str, state: str) -> bool:
    """Whether nobody can use a container any more.

    ``owner`` is its label, ``state`` what the daemon says ("running", "exited", ...). Of a process in another PID
    namespace nothing is known here: its container counts as used while it runs, and its supervisor ends by itself when
    its owner's end of the pipe is closed.
    """
    machine, _, rest = owner.rpartition("/")
    machine, _, pid = machine.rpartition("/")
    if machine != _machine() or not pid.isdigit():
        return state in ("exited", "dead")
    return _start_time(int(pid)) != rest


def reap(client: Any) -> int:
    """Remove the containers whose owner no longer lives; returns how many. Raises SandboxError."""
    removed = 0
    with docker_engine.explained("cannot look for abandoned containers"):
        for container in client.containers(all=True, filters={"label": f"{ROLE_LABEL}={CELL}"}):
            if is_orphan(container["Labels"].get(OWNER_LABEL, ""), container["State"]):
                remove(client, container["Id"])
                removed += 1
    return removed


_left: set[str] = set()


def remove(client: Any, container: str) -> None:
    """Kill and remove a container, which may be gone already. One that cannot be removed is remembered."""
    _left.add(container)
    docker_engine.ignoring_missing(lambda: client.remove_container(container, force=True, v=True))
    _left.discard(container)


def remove_left(client: Any) -> None:
    """Remove what could not be removed before, e.g. because the daemon was being restarted."""
    for container in list(_left):
        with contextlib.suppress(SandboxError), docker_engine.explained("cannot remove a container"):
            remove(client, container)
