"""Whether the processes of a cell have been stopped from outside: by a signal, a debugger's user, or a freezer.

Programs cannot do this to themselves: each is the first process of a PID namespace, for which the kernel ignores
stop signals that come from inside (pid_namespaces(7)). What it can do to a busy machine leaves a process runnable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from grader.sandbox import cgroup

_STOPPED = "T"  # proc_pid_stat(5), field 3


def why_stopped(pid: int) -> str:
    """Say how a process or one of its descendants has been stopped; "" where none has, or none can be seen."""
    for process in descendants(pid):
        if _state(process) == _STOPPED:
            return f"process {process} of it has been stopped with a signal"
        if cgroup.is_frozen(process):
            return f"process {process} of it is in a frozen control group"
    return ""


def descendants(pid: int) -> Iterator[int]:
    """Yield a process and those below it, parents first. What ends meanwhile is left out."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from descendants(int(child))


def _state(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]
