"""SandboxFusion's API (https://github.com/bytedance/SandboxFusion): programs are run, and completions are judged.

The models are those of its ``sandbox_api.py`` and ``datasets/types.py``. Fields that are not known are taken and left
out of account: ROLL sends ``expected_stdout`` along. Load, drains and our own failures are answered with 504, because
verl's client tries again for that status alone and takes any other one for a failed test.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from grader.limits import MIB, Limits
from grader.server.auth import AnyCaller
from grader.server.batches import Owner
from grader.server.bodies import read_model
from grader.server.compat.running import (
    MAX_MEMORY_MIB,
    MAX_TIME_S,
    Wanted,
    decoded_files,
    exit_status,
    json_answer,
    refused_input,
    run_for,
    stderr_of,
    stdout_of,
    wanted_run,
)
from grader.server.compat.shedding import shedding_part, shedding_router
from grader.server.openapi import problems, takes
from grader.server.problems import Refused
from grader.server.service import Part
from grader.worker.execution import Executed, Execution

SHED = 504
PROBLEMS = problems(400, 401, 403, 408, 413, 415, 422, SHED)
PYTHON = "python"

# verl waits for compile_timeout + run_timeout + 10 s. A Python program has nothing to compile, so that the first of
# them is left for waiting; the rest is for slow processors and the way.
_LEAST_WAIT_S, _MOST_WAIT_S = 5.0, 60.0
_PATIENCE_S = 8.0

Seconds = Annotated[float, Field(gt=0, le=MAX_TIME_S, allow_inf_nan=False)]
RunStatus = Literal["Success", "Failed", "SandboxError"]


class RunCodeRequest(BaseModel):
    """A program to be run. ``run_timeout`` limits its CPU time, and the time in which it is idle, in seconds.

    ``memory_limit_MB`` is in MiB; what is below 1 stands for the default. ``files`` and the files of the answer are in
    base64.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    code: str
    language: str
    compile_timeout: Seconds = 10
    run_timeout: Seconds = 10
    memory_limit_MB: int = Field(default=-1, le=MAX_MEMORY_MIB)
    stdin: str | None = None
    files: dict[str, str | None] = Field(default={}, max_length=1000)
    fetch_files: list[str] = Field(default=[], max_length=1000)
    args: list[str] = Field(default=[], max_length=1000)


class CommandRunResult(BaseModel):
    """How a program ended. ``return_code`` is null at a time limit, and negative where a signal ended it."""

    status: Literal["Finished", "Error", "TimeLimitExceeded"]
    execution_time: float | None = None
    return_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None


class RunCodeResponse(BaseModel):
    """What a program did. ``execution_time`` is in wall-clock seconds."""

    status: RunStatus
    message: str
    compile_result: CommandRunResult | None = None
    run_result: CommandRunResult | None = None
    executor_pod_name: str | None = None
    files: dict[str, str] = {}


def make_part() -> Part:
    """Make the routes of SandboxFusion, and those that ScaleBox, a fork of it, adds."""
    from grader.server.compat import sandbox_fusion_datasets, scalebox

    router = shedding_router("SandboxFusion", SHED)
    router.add_api_route("/v1/ping", ping, methods=["GET"])
    router.add_api_route(
        "/run_code", run_code, methods=["POST"], response_model=RunCodeResponse, responses=PROBLEMS
    )
    sandbox_fusion_datasets.add_routes(router)
    scalebox.add_routes(router)
    return shedding_part(router)


async def ping() -> str:
    """Say that the service is there."""
    return "pong"


@takes(RunCodeRequest)
async def run_code(request: Request, caller: AnyCaller) -> Response:
    """Run a program and say what it printed and how it exited, which is its own word."""
    wanted = await read_model(request, RunCodeRequest)
    run = wanted_of(wanted, caller.owner)
    executed = await run_for(
        request,
        caller,
        run,
        wait_s=min(max(wanted.compile_timeout, _LEAST_WAIT_S), _MOST_WAIT_S),
        answer_s=wanted.compile_timeout + wanted.run_timeout + _PATIENCE_S,
    )
    size = len(executed.stdout) + len(executed.stderr) + sum(map(len, executed.files.values()))
    return await json_answer(lambda: response_of(executed, run.limits), size)


def wanted_of(wanted: RunCodeRequest, owner: Owner) -> Wanted:
    """Return what a request asks to be run. Raises Refused for another language, and for files that cannot be meant."""
    check_language(wanted.language, "language")
    with refused_input("files"):
        execution = Execution(
            source=wanted.code,
            stdin=(wanted.stdin or "").encode(),
            files=decoded_files(wanted.files),
            fetch=tuple(dict.fromkeys(wanted.fetch_files)),
            args=tuple(wanted.args),
            time_s=wanted.run_timeout,
        )
    memory = wanted.memory_limit_MB
    return wanted_run(execution, owner, memory_bytes=memory * MIB if memory > 0 else None)


def check_language(language: str, place: str) -> None:
    """Raise Refused (422) for any language but Python."""
    if language != PYTHON:
        raise Refused(f"{language[:40]!r} is not available here; there is {PYTHON!r}", place=place)


def response_of(executed: Executed, limits: Limits) -> dict[str, Any]:
    """Return a ``RunCodeResponse``: Success is exit status 0, anything else is Failed."""
    code = exit_status(executed)
    result = {
        "status": "TimeLimitExceeded" if code is None else "Finished",
        "execution_time": executed.wall_s,
        "return_code": code,
        "stdout": stdout_of(executed),
        "stderr": stderr_of(executed, limits),
    }
    files = {name: base64.b64encode(data).decode() for name, data in executed.files.items()}
    return run_response("Success" if code == 0 else "Failed", result, files)


def run_response(status: RunStatus, result: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
    """Return a ``RunCodeResponse``; a Python program that does not compile fails when it is run."""
    return {
        "status": status,
        "message": "",
        "compile_result": None,
        "run_result": result,
        "executor_pod_name": None,
        "files": files,
    }
