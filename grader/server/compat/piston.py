"""Piston's API (https://github.com/engineer-man/piston), version 2, for Python.

Errors are Piston's: status 400 with ``{"message": ...}``. Times are in milliseconds, sizes in bytes.
"""

from __future__ import annotations

import base64
import binascii
import signal
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from grader.errors import InputError
from grader.limits import Limits
from grader.server.answers import to_json
from grader.server.auth import AnyCaller, Caller
from grader.server.batches import Owner
from grader.server.bodies import read_model
from grader.server.compat.running import (
    MAX_MEMORY_MIB,
    Wanted,
    error_answer,
    json_answer,
    run_for,
    runs_of,
    shed_with,
    stderr_of,
    stdout_of,
    wanted_run,
    why_killed,
)
from grader.server.compat.shedding import shed_problems, shedding_part, shedding_router
from grader.server.openapi import PROBLEMS_OF_READING, problems, takes
from grader.server.problems import Refused
from grader.server.service import Part, Service, service_of
from grader.server.streams import JSON
from grader.worker.execution import Executed, Execution

_LANGUAGE = "python"
_ALIASES = ("py", "py3", "python3", "python3.x")
_PREFIXES = ("/api/v2", "/api/v2/piston")  # the second is the path of the public instance
_DEFAULT_RUN_MS = 3000.0
_MAX_RUN_MS = 600_000.0
_WAIT_S = 30.0
_VERSION_KEY = "compat_python_version"


class PistonFile(BaseModel):
    """A file. The first one in UTF-8 is the program."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    content: str
    name: str | None = None
    encoding: str | None = None


class PistonRequest(BaseModel):
    """A program to be run, and its limits: 0, negative or missing stands for the default.

    ``run_timeout`` and ``run_cpu_time`` both limit CPU time, and the time in which the program is idle; the lower one
    counts. What is about compiling is taken and left out of account.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    language: str = Field(min_length=1, max_length=128)
    version: str = Field(min_length=1, max_length=128)
    files: list[PistonFile] = Field(min_length=1, max_length=1000)
    stdin: str | None = None
    args: list[str] | None = Field(default=None, max_length=1000)
    run_timeout: float | None = Field(default=None, le=_MAX_RUN_MS, allow_inf_nan=False)
    run_cpu_time: float | None = Field(default=None, le=_MAX_RUN_MS, allow_inf_nan=False)
    run_memory_limit: int | None = Field(default=None, le=MAX_MEMORY_MIB << 20)


class PistonStage(BaseModel):
    """How the program ended. ``code`` is null where a signal ended it; ``output`` is stdout and stderr."""

    stdout: str
    stderr: str
    output: str
    code: int | None
    signal: str | None
    message: str | None
    status: str | None
    cpu_time: float
    wall_time: float
    memory: int


class PistonAnswer(BaseModel):
    """What a program did."""

    run: PistonStage
    language: str
    version: str


class PistonRuntime(BaseModel):
    """A language that can be used."""

    language: str
    version: str
    aliases: list[str]


class PistonMessage(BaseModel):
    """What is wrong with a request."""

    message: str


_MESSAGE: dict[str, Any] = {"description": "The program was not run.", "model": PistonMessage}


def make_part() -> Part:
    """Make Piston's routes."""
    router = shedding_router("Piston", answer=shed_answer)
    for prefix in _PREFIXES:
        router.add_api_route(
            f"{prefix}/execute",
            execute,
            methods=["POST"],
            response_model=PistonAnswer,
            responses=problems(401, 403) | dict.fromkeys((400, 408, 413, 415, 503), _MESSAGE),
        )
        router.add_api_route(
            f"{prefix}/runtimes",
            runtimes,
            methods=["GET"],
            response_model=list[PistonRuntime],
            responses=shed_problems(*PROBLEMS_OF_READING),
        )
    return shedding_part(router)


@takes(PistonRequest)
async def execute(request: Request, caller: AnyCaller) -> Response:
    """Run a program and say what it printed and how it exited, which is its own word."""
    try:
        wanted = await read_model(request, PistonRequest)
        with shed_with(503):
            version = await python_version(service_of(request), caller)
            check_runtime(wanted, version)
            run = wanted_of(wanted, caller.owner)
            executed = await run_for(request, caller, run, wait_s=_WAIT_S)
    except Refused as error:
        if error.status == 422:
            error.status = 400
        return error_answer(request, error, {"message": error.detail})
    about = {"language": _LANGUAGE, "version": version}
    size = 2 * (len(executed.stdout) + len(executed.stderr))
    return await json_answer(lambda: {"run": stage_of(executed, run.limits), **about}, size)


async def shed_answer(request: Request, error: Refused) -> Response:
    """Say that it cannot be done now."""
    return error_answer(request, error, {"message": error.detail})


async def runtimes(request: Request, caller: AnyCaller) -> Response:
    """List the languages that can be used: the Python of the sandbox."""
    version = await python_version(service_of(request), caller)
    row = {"language": _LANGUAGE, "version": version, "aliases": list(_ALIASES)}
    return Response(to_json([row]), media_type=JSON)


async def python_version(service: Service, caller: Caller) -> str:
    """Return the version of the Python in the sandbox, by asking it once."""
    known: str | None = service.shared.get(_VERSION_KEY)
    if known is None:
        asking = Execution("import platform\nprint(platform.python_version())")
        told = await runs_of(service).run(wanted_run(asking, Owner()), caller.owner, _WAIT_S)
        known = service.shared[_VERSION_KEY] = stdout_of(told).strip()
    return known


def check_runtime(wanted: PistonRequest, version: str) -> None:
    """Raise Refused for a language or a version that is not there."""
    if wanted.language not in (_LANGUAGE, *_ALIASES) or not is_version(wanted.version, version):
        raise Refused(f"{wanted.language}-{wanted.version} runtime is unknown")


def is_version(selector: str, version: str) -> bool:
    """Whether a selector means a version: ``*``, or its leading numbers with ``x`` for any (``3``, ``3.11.x``)."""
    parts, known = selector.removeprefix("^").removeprefix("~").split("."), version.split(".")
    return len(parts) <= len(known) and all(
        part in ("*", "x", "X", number) for part, number in zip(parts, known, strict=False)
    )


def wanted_of(wanted: PistonRequest, owner: Owner) -> Wanted:
    """Return what a request asks to be run. Raises Refused where its files cannot be meant."""
    names = [file.name or f"file{number}.code" for number, file in enumerate(wanted.files)]
    main = next((file for file in wanted.files if file.encoding in (None, "", "utf8")), None)
    if main is None:
        raise Refused("files must include at least one utf8 encoded file")
    given = [ms for ms in (wanted.run_timeout, wanted.run_cpu_time) if ms is not None and ms > 0]
    try:
        execution = Execution(
            source=main.content,
            stdin=(wanted.stdin or "").encode(),
            files={name: _content(file) for name, file in zip(names, wanted.files, strict=True)},
            args=tuple(wanted.args or ()),
            time_s=min(given, default=_DEFAULT_RUN_MS) / 1000,
        )
    except InputError as error:
        raise Refused(str(error)) from error
    memory = wanted.run_memory_limit or 0
    return wanted_run(execution, owner, memory_bytes=memory if memory > 0 else None)


def _content(file: PistonFile) -> bytes:
    try:
        if file.encoding == "base64":
            return base64.b64decode(file.content)
        return bytes.fromhex(file.content) if file.encoding == "hex" else file.content.encode()
    except (binascii.Error, ValueError) as error:
        raise Refused(f"the file {file.name!r:.100} is not {file.encoding}") from error


def stage_of(executed: Executed, limits: Limits) -> Mapping[str, Any]:
    """Return how a program ended, with the status words of newer Pistons: TO, OL, SG, RE, or null for success."""
    stdout, stderr = stdout_of(executed), stderr_of(executed, limits)
    exited = executed.ended == "exited"
    number = executed.signal if executed.ended == "signalled" else signal.SIGKILL
    status, message = None, None
    if executed.ended == "time_limit":
        status, message = "TO", "Time limit exceeded"
    elif executed.ended == "output_limit":
        status, message = "OL", "Output limit exceeded"
    elif not exited:
        status, message = "SG", why_killed(executed, limits) or f"Caught fatal signal {int(number)}"
    elif executed.code:
        status, message = "RE", f"Exited with error status {executed.code}"
    return {
        "stdout": stdout,
        "stderr": stderr,
        "output": stdout + stderr,
        "code": executed.code if exited else None,
        "signal": None if exited else _signal_name(number),
        "message": message,
        "status": status,
        "cpu_time": round(executed.cpu_s * 1000, 3),
        "wall_time": round(executed.wall_s * 1000, 3),
        "memory": executed.peak_memory_bytes,
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
