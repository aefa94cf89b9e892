"""Run programs in one embedded cell, and print what came of them as JSON. Run by the tests, as one user or another.

Standard input has a job: ``root`` (the cell's root folder), ``limits`` (fields of Limits), ``control_groups`` (false:
as on a machine that gives none), and ``runs``, each with ``source``, ``entry_point`` and ``inputs``, or with
``stdin`` for a whole program; ``look`` asks for what the host sees of the sample after its first answer.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from grader.limits import Limits
from grader.sandbox import cgroup
from grader.sandbox.cell import Answers, Done
from grader.sandbox.namespaces import NamespaceCell
from grader.sandbox.runner import wire
from grader.sandbox.runner.decoding import decode
from grader.worker.bundle import encode_inputs
from grader.worker.functions import split_frames
from grader.worker.requests import RunRequest, function_payload, run_limits

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
ANSWERED = (wire.VALUE, wire.DIGEST, wire.RAISED)


def main() -> None:
    job = json.load(sys.stdin)
    groups = job["control_groups"] and not cgroup.unavailable_reason()
    limits = Limits(**job["limits"])
    cell = NamespaceCell(Path(job["root"]), limits, groups=groups)
    try:
        results = [run(cell, wanted, limits) for wanted in job["runs"]]
        layers = cell.layers
        left = descendants(cell._process.pid)
        json.dump({"runs": results, "layers": layers, "processes_after": len(left)}, sys.stdout)
    finally:
        cell.close()


def run(cell: NamespaceCell, wanted: dict, limits: Limits) -> dict:
    received, output = bytearray(), bytearray()
    runner = [cell._process.pid, *descendants(cell._process.pid)]
    used = run_time_of(runner)
    number = cell.start_run(
        (request := request_for(wanted, limits)).encoded(limits, cell.address_space),
        request.limits,
        group_sizes=request.group_sizes,
        zygote=request.zygote,
        whole_program=request.whole_program,
    )
    seen = None
    while True:
        for event in cell.receive(1.0):
            if isinstance(event, Done):
                return result_of(event, received, output) | {
                    "host": seen,
                    "runner_s": run_time_of(runner) - used,
                }
            assert isinstance(event, Answers)
            (output if event.is_output else received).extend(event.data)
        answered = sum(kind in ANSWERED for kind, _ in split_frames(bytes(received)))
        if wanted.get("look") and seen is None and answered:
            seen = look(cell)
            cell.kill_run(number)


def request_for(wanted: dict, limits: Limits) -> RunRequest:
    if "stdin" in wanted:
        payload = {"mode": "program", "source": wanted["source"], "stdin": wanted["stdin"].encode()}
        sizes = ()
    else:
        inputs = wanted.get("inputs", [[]])
        payload = function_payload(
            wanted["source"],
            wanted["entry_point"],
            encode_inputs(inputs),
            stop_at_error=False,
            full=wanted.get("look", False),
        )
        sizes = (len(inputs),)
    return RunRequest(
        payloads=(payload,),
        limits=run_limits(limits, {}),
        group_sizes=sizes,
        on_data=lambda _data: False,
        memory_bytes=limits.memory_bytes,
        whole_program="stdin" in wanted,
    )


def result_of(done: Done, received: bytearray, output: bytearray) -> dict:
    frames = split_frames(bytes(received))
    return {
        "answers": [decode(payload) for kind, payload in frames if kind == wire.VALUE],
        "digests": sum(kind == wire.DIGEST for kind, _ in frames),
        "raised": [decode(payload) for kind, payload in frames if kind in (wire.RAISED, wire.UNCOMPILABLE)],
        "finished": any(kind == wire.FINISHED for kind, _ in frames),
        "output": output.decode(errors="replace"),
        "ended": done.ended,
        "code": done.code,
        "signal": done.signal,
        "cpu_s": done.cpu_s,
        "wall_s": done.wall_s,
        "idle_s": done.idle_s,
        "slowness": done.slowness,
        "peak_memory_bytes": done.peak_memory_bytes,
        "memory_kill": done.memory_kill,
        "stdout": done.stdout_tail.decode(errors="replace"),
        "stdout_length": len(done.stdout_tail),
    }


def run_time_of(pids: list[int]) -> float:
    """Seconds that processes of one thread have run, without their children (proc_pid_schedstat)."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def descendants(pid: int) -> list[int]:
    """A process's children, their children and so on, parents first."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop(0)
        for task in Path(f"/proc/{current}/task").glob("*/children"):
            children = [int(child) for child in task.read_text().split()]
            found += children
            waiting += children
    return found


def sockets_of(process: Path) -> list[str]:
    """Its open sockets, as far as this user may see: what cannot be dumped shows its descriptors to root only."""
    try:
        return [link for handle in (process / "fd").iterdir() if "socket" in (link := str(handle.readlink()))]
    except PermissionError:
        return []


def look(cell: NamespaceCell) -> dict:
    """What the host's /proc says of the sample, which is the last descendant of the cell's launcher."""
    process = Path(f"/proc/{descendants(cell._process.pid)[-1]}")
    group = cell._group
    return {
        "status": dict(
            line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line
        ),
        "namespaces": {name: str((process / "ns" / name).readlink()) for name in NAMESPACES},
        "our_namespaces": {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in NAMESPACES},
        "mounts": [line.split() for line in (process / "mountinfo").read_text().splitlines()],
        "interfaces": [
            line.split(":")[0].strip() for line in (process / "net/dev").read_text().splitlines()[2:]
        ],
        "addresses": (process / "net/if_inet6").read_text(),
        "routes": (process / "net/route").read_text().splitlines()[1:],
        "sockets": sockets_of(process),
        "owner_of_its_files": (process / "stat").stat().st_uid,
        "cgroups": (process / "cgroup").read_text().splitlines(),
        "group_names": sorted({folder.name for folder in group.folders}) if group else [],
        "group_files": {
            name: (folder / name).read_text().strip()
            for folder in (group.folders if group else ())
            for name in ("memory.max", "memory.limit_in_bytes", "pids.max")
            if (folder / name).exists()
        },
        "seen_at": time.monotonic(),
    }


if __name__ == "__main__":
    main()
