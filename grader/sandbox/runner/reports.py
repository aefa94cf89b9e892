"""What the worker is told of a run at its end."""

from __future__ import annotations

import os
import signal

from . import wire


def never_started(number: int) -> tuple[bytes, ...]:
    """Return the report of a run that was cancelled before it began."""
    nothing = {
        "code": 0,
        "signal": 0,
        "driver_code": 0,
        "cpu_s": 0.0,
        "idle_s": 0.0,
        "wall_s": 0.0,
        "rss": 0,
        "slowness": 1.0,
    }
    return report({"run": number, "ended": "cancelled", "outside": False, **nothing}, b"", b"")


def report(facts: dict[str, object], stdout: bytes, stderr: bytes) -> tuple[bytes, ...]:
    """Return the pieces of a report: facts as JSON, with its length, and the ends of what was printed."""
    facts["stdout"] = len(stdout)
    text = wire.json(facts)
    return wire.LENGTH.pack(len(text)), text, stdout, stderr


def killed_already(dying: bool, usage: tuple[int, float, int]) -> bool:
    """Whether a process that was at its end before we killed it has been killed. No program can do that to itself: the
    kernel ignores it of the first process of a namespace, and the filter refuses the limit that has the kernel kill."""
    return dying and os.WIFSIGNALED(usage[0]) and os.WTERMSIG(usage[0]) == signal.SIGKILL
