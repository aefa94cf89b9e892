"""What the worker is told of a run at its end."""

from __future__ import annotations

import os
import signal

from . import wire


def never_started(number: int) -> tuple[bytes, ...]:
    """Return the report of a run that was cancelled before it began."""
    nothing = dict.fromkeys(("code", "signal", "driver_code", "cpu_s", "idle_s", "wall_s", "rss"), 0)
    facts = {"run": number, "ended": "cancelled", "outside": False, "slowness": 1.0}
    return report(facts | nothing, b"", b"")


def report(facts: dict[str, object], stdout: bytes, stderr: bytes) -> tuple[bytes, ...]:
    """Return the pieces of a report: facts as JSON, with its length, and the ends of what was printed."""
    facts["stdout"] = len(stdout)
    text = wire.json(facts)
    return wire.LENGTH.pack(len(text)), text, stdout, stderr


def killed_already(dying: bool, usage: tuple[int, float, int]) -> bool:
    """Whether a process that was at its end before we killed it has been killed. No program can do that to itself: the
    kernel ignores it of the first process of a namespace, and the filter refuses the limit that has the kernel kill."""
    return dying and os.WIFSIGNALED(usage[0]) and os.WTERMSIG(usage[0]) == signal.SIGKILL
