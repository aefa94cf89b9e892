"""The real service over a grading that does nothing, for measuring and testing what is in front of the workers.

    python loadtest/noop_service.py [--port 8000] [--api-keys-file FILE] [--body-idle-s S] [--workers N] ...

With ``--workers``, the real dispatcher and the real local engine are there as well, and only their workers do nothing
(``noop_worker.py``). Without:

Every program passes, at once. A program that begins with ``# stub:`` has something else done with its batch:
``# stub: wait 0.5`` waits for so many seconds before its verdict, ``# stub: until FILE`` until there is that file,
``# stub: fail`` has a wrong answer, ``# stub: lose``
has no verdict, ``# stub: overload`` has the batch refused, ``# stub: break`` breaks off the batch, ``# stub: crash``
raises what nobody expects, ``# stub: path`` has an infrastructure error that names a path.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from grader.dispatch.contract import Batch, Grading, PoolState, VerdictFields
from grader.dispatch.making import PoolOptions, make_grading
from grader.errors import InfrastructureError, OverloadedError
from grader.limits import Limits
from grader.server.parts import standard_parts
from grader.server.serve import run
from grader.server.settings import ServerSettings
from grader.status import Status
from grader.telemetry.logs import configure
from grader.worker.execution import Executed, Execution
from grader.worker.program import Program

_STUB = "# stub: "
STAMP = {"backend": "none", "layers": ()}


class NoopGrading:
    """Grades nothing; see the module. ``cancelled`` counts batches that were closed before their end.

    A program that is to be run and not judged prints what it reads.
    """

    def __init__(self) -> None:
        self.started = self.closed = False
        self.batches = 0
        self.programs = 0
        self.cancelled = 0
        self.executed = 0

    @property
    def stamp(self) -> Mapping[str, Any]:
        return STAMP

    async def start(self) -> None:
        self.started = True

    async def close(self) -> None:
        self.closed = True

    def state(self) -> PoolState:
        return PoolState(workers={"ready": 2}, cells={"ready": 2})

    async def execute(
        self, execution: Execution, limits: Limits, *, tenant: str, weight: float = 1.0, timeout_s: float
    ) -> Executed:
        self.executed += 1
        what, _, argument = execution.source.removeprefix(_STUB).partition("\n")[0].partition(" ")
        if not execution.source.startswith(_STUB):
            what = ""
        if what == "wait":
            await asyncio.sleep(float(argument))
        elif what == "overload":
            raise OverloadedError("no room in the queue of this machine", 2.5)
        elif what == "break":
            raise InfrastructureError("the socket /var/lib/grader/worker.sock is gone")
        elif what == "crash":
            raise ZeroDivisionError("in /var/lib/grader/secret.py")
        return Executed("exited", int(what == "fail"), 0, execution.stdin, b"", 0.001, 0.001, 10_000_000)

    async def grade(self, batch: Batch) -> AsyncIterator[list[VerdictFields]]:
        self.batches += 1
        self.programs += len(batch.programs)
        if any(program.source.startswith(f"{_STUB}overload") for program in batch.programs):
            raise OverloadedError("no room in the queue of this machine", 2.5)
        ended = False
        try:
            for program in batch.programs:
                verdict = await _verdict(program, batch)
                if verdict is not None:
                    yield [verdict]
            ended = True
        except InfrastructureError:
            ended = True
            raise
        finally:
            self.cancelled += not ended


async def _verdict(program: Program, batch: Batch) -> VerdictFields | None:
    status, error = Status.PASSED, None
    if program.source.startswith(_STUB):
        what, _, argument = program.source.removeprefix(_STUB).partition("\n")[0].partition(" ")
        if what == "wait":
            await asyncio.sleep(float(argument))
        elif what == "until":
            while not Path(argument).exists():
                await asyncio.sleep(0.01)
        elif what == "lose":
            return None
        elif what == "break":
            raise InfrastructureError("the socket /var/lib/grader/worker.sock is gone")
        elif what == "crash":
            raise ZeroDivisionError("in /var/lib/grader/secret.py")
        elif what == "path":
            status = Status.INFRASTRUCTURE_ERROR
            error = {"type": "CellLostError", "message": "/var/lib/grader/cell is gone", "line": None}
        elif what == "fail":
            status = Status.WRONG_ANSWER
    passed = status is Status.PASSED
    groups = batch.groups or ()
    outcome = {
        "status": status.value,
        "passed": int(passed),
        "total": 1,
        "first_failed": None if passed else 0,
    }
    return {
        "task_id": program.task_id,
        "sample_id": program.sample_id,
        "status": status.value,
        "passed": passed,
        "groups": dict.fromkeys(groups, None if error else outcome),
        "reward": None if error else float(passed),
        "cpu_s": 0.001,
        "wall_s": 0.001,
        "peak_memory_bytes": 10_000_000,
        "error": error,
        "stdout_tail": "",
        "sandbox": STAMP,
        "cached": False,
        "attempts": 1,
        "extraction": program.how,
    }


def _dispatched(workers: int) -> Grading:
    import noop_worker

    noop_worker.in_place()
    return make_grading(PoolOptions(workers=workers))


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--api-keys-file", type=Path)
    parser.add_argument("--max-body-bytes", type=int, default=64 << 20)
    parser.add_argument("--max-connections", type=int, default=16_384)
    parser.add_argument("--database-url")
    parser.add_argument("--compat", action="append", default=[])
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--workers", type=int, default=0)
    for name in ("header", "body-idle", "write", "keep-alive"):
        parser.add_argument(f"--{name}-s", type=float, default=10.0)
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    configure(given.pop("log_level"))
    parts = standard_parts(given.pop("database_url", None), given.pop("compat"))
    workers = given.pop("workers")
    killed_by = run(ServerSettings(**given), _dispatched(workers) if workers else NoopGrading(), parts)
    if killed_by is not None:
        os._exit(128 + killed_by)


if __name__ == "__main__":
    main()
