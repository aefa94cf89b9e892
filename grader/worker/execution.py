"""Run a whole program and say what it did, without judging it: for the endpoints of other graders that ask for that.

What is found here is the program's own word: an exit status and an output prove nothing of a program that wants to
deceive. Verdicts are made in ``grading``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

from grader.errors import InputError
from grader.judge.stream import Raised, read_raised
from grader.limits import Limits
from grader.sandbox.runner import wire
from grader.worker.functions import split_frames
from grader.worker.requests import Conversation, RunRequest, collect_into, ending_of, run_limits

# Bytes of exception reports beside the files that are fetched.
_LONGEST_REPORT = 64 * 1024

Ended = Literal["exited", "signalled", "time_limit", "memory_limit", "output_limit", "stopped"]


@dataclass(frozen=True, slots=True)
class Execution:
    """A program to run as ``python program.py`` would be, in a folder of its own.

    ``stdin`` is what it reads, ``args`` what it is called with; ``files`` are put into the folder before, by relative
    path; ``fetch`` names files to be returned after. ``time_s`` limits its CPU time, and the time in which it neither
    runs nor waits for a processor.
    Raises InputError for a path that leads out of the folder.
    """

    source: str
    stdin: bytes = b""
    files: Mapping[str, bytes] = field(default_factory=dict)
    fetch: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    time_s: float = 10.0

    def __post_init__(self) -> None:
        for name in (*self.files, *self.fetch):
            path = PurePosixPath(name)
            if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
                raise InputError(
                    f"the file {name!r:.100} is not in the program's folder; give a path relative to it"
                )


@dataclass(frozen=True, slots=True)
class Executed:
    """What a program did. ``stderr`` is its end only where it is long. Times in seconds."""

    ended: Ended
    code: int
    signal: int
    stdout: bytes
    stderr: bytes
    cpu_s: float
    wall_s: float
    peak_memory_bytes: int
    error: Raised | None = None
    compiled: bool = True
    files: Mapping[str, bytes] = field(default_factory=dict)


def execute(execution: Execution, limits: Limits) -> Conversation[Executed]:
    """Run a program within ``limits``, of which ``time_s`` takes the time limits' place."""
    output, answers = bytearray(), bytearray()
    done = yield RunRequest(
        payloads=(
            {
                "mode": "program",
                "source": execution.source,
                "stdin": execution.stdin,
                "files": dict(execution.files),
                "fetch": execution.fetch,
                "args": execution.args,
            },
        ),
        limits=replace(run_limits(limits, {}, load_s=execution.time_s), idle_s=execution.time_s),
        group_sizes=(),
        on_data=collect_into(answers, stop_above=_LONGEST_REPORT + limits.tmp_bytes),
        on_output=output.extend,
        memory_bytes=limits.memory_bytes,
        whole_program=True,
    )
    frames = split_frames(bytes(answers))
    raised = next((body for kind, body in frames if kind in (wire.RAISED, wire.UNCOMPILABLE)), None)
    ending = ending_of(done, limits.memory_bytes)
    ended: Ended = "memory_limit" if ending.memory_kill else _ENDED.get(done.ended, "stopped")
    return Executed(
        ended=ended,
        code=done.code,
        signal=done.signal,
        stdout=bytes(output),
        stderr=done.stderr_tail,
        cpu_s=done.cpu_s,
        wall_s=done.wall_s,
        peak_memory_bytes=done.peak_memory_bytes,
        error=read_raised(raised) if raised else None,
        compiled=all(kind != wire.UNCOMPILABLE for kind, _ in frames),
        files=_files(frames, execution.fetch),
    )


_ENDED: dict[str, Ended] = {
    "exited": "exited",
    "signalled": "signalled",
    "cpu_limit": "time_limit",
    "idle_limit": "time_limit",
    "output_limit": "output_limit",
}


def _files(frames: list[tuple[int, bytes]], wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The files that were asked for: bytes of one frame each, the path's number before them."""
    found = {}
    for kind, body in frames:
        if kind == wire.FILE and len(body) >= wire.LENGTH.size:
            number = wire.LENGTH.unpack_from(body)[0]
            if number < len(wanted):
                found[wanted[number]] = body[wire.LENGTH.size :]
    return found
