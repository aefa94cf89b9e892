"""The sandbox server of NeMo-Skills (https://github.com/NVIDIA-NeMo/Skills, ``local_sandbox_server.py``), for Python.

Sessions keep no state here: every request is a program of its own, and ``new_session_created`` is always true.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from grader.limits import Limits
from grader.server.auth import AnyCaller
from grader.server.bodies import read_model
from grader.server.compat.cells import RESULT_FILE, with_result
from grader.server.compat.running import (
    MAX_TIME_S,
    error_answer,
    json_answer,
    run_for,
    stderr_of,
    stdout_of,
    wanted_run,
)
from grader.server.compat.shedding import shed_problems, shedding_part, shedding_router
from grader.server.openapi import PROBLEMS_OF_BODIES, PROBLEMS_OF_READING, takes
from grader.server.problems import Refused
from grader.server.service import Part
from grader.worker.execution import Executed, Execution

_IPYTHON = "ipython"
_LANGUAGES = (_IPYTHON, "python", "python3")
_CUT = "<output cut>"
_WAIT_S = 30.0
_BACKEND = "stateless"


class NemoSkillsRequest(BaseModel):
    """Code to be run; ``timeout`` in seconds of CPU time, and of idle time."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    generated_code: str
    timeout: float = Field(gt=0, le=MAX_TIME_S, allow_inf_nan=False)
    language: str = _IPYTHON
    std_input: str | None = None
    max_output_characters: int = Field(default=1000, ge=0)
    traceback_verbosity: str = "Plain"


class NemoSkillsAnswer(BaseModel):
    """What the code did: completed, error, or timeout."""

    process_status: str
    stdout: str
    stderr: str
    new_session_created: bool | None = None


class NemoSkillsError(BaseModel):
    """What prevented a run. Where the code is not to blame, it has the fields of an answer as well."""

    error: str
    process_status: str | None = None
    stdout: str | None = None
    stderr: str | None = None


def make_part() -> Part:
    """Make the routes of NeMo-Skills' sandbox server."""
    router = shedding_router("NeMo-Skills", answer=shed_answer)

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Say that the service is there."""
        return {"status": "healthy", "worker": "grader"}

    @router.get("/sessions", responses=shed_problems(*PROBLEMS_OF_READING))
    async def sessions(caller: AnyCaller) -> dict[str, Any]:
        """List the sessions: none, since none is kept."""
        return {"sessions": {}, "backend": _BACKEND}

    @router.delete("/sessions/{session_id}", responses=shed_problems(*PROBLEMS_OF_READING))
    async def delete_session(session_id: str, caller: AnyCaller) -> dict[str, str]:
        """Forget a session, of which nothing is kept."""
        return {"message": f"session {session_id} is forgotten; sessions keep no state here"}

    described = shed_problems(*PROBLEMS_OF_BODIES)
    router.add_api_route(
        "/execute",
        execute,
        methods=["POST"],
        response_model=NemoSkillsAnswer,
        # Damaged bodies are told of by problems, as everywhere.
        responses=described
        | {status: {**described[status], "model": NemoSkillsError} for status in (400, 503)},
    )
    return shedding_part(router)


@takes(NemoSkillsRequest)
async def execute(request: Request, caller: AnyCaller) -> Response:
    """Run code and say what it printed. The header X-Session-ID is needed for the language ipython."""
    wanted = await read_model(request, NemoSkillsRequest)
    if wanted.language not in _LANGUAGES:
        said = f"{wanted.language[:40]!r} is not available here; there are {', '.join(_LANGUAGES)}"
        raise Refused(said, place="language")
    is_cell = wanted.language == _IPYTHON
    if is_cell and "x-session-id" not in request.headers:
        said = "X-Session-ID header required for ipython sessions"
        return error_answer(request, Refused(said, status=400), {"error": said})
    source = with_result(wanted.generated_code) if is_cell else wanted.generated_code
    execution = Execution(
        source,
        stdin=(wanted.std_input or "").encode(),
        fetch=(RESULT_FILE,) if is_cell else (),
        time_s=wanted.timeout,
    )
    run = wanted_run(execution, caller.owner)
    executed = await run_for(request, caller, run, wait_s=_WAIT_S)
    return await json_answer(lambda: answer_of(executed, run.limits, wanted), len(executed.stdout))


async def shed_answer(request: Request, error: Refused) -> Response:
    """Say that the code was not run: the client reads these fields whatever the status is."""
    fields = {"process_status": "error", "stdout": "", "stderr": error.detail + "\n", "error": error.detail}
    return error_answer(request, error, fields)


def answer_of(executed: Executed, limits: Limits, wanted: NemoSkillsRequest) -> dict[str, Any]:
    """Return an ``NemoSkillsAnswer``.

    As in the original, a program of the language python is ``completed`` whatever its exit status is, and a cell that
    raised is an ``error``. What was killed for its memory or its output is an ``error`` in both.
    """
    is_cell = wanted.language == _IPYTHON
    stdout, stderr = stdout_of(executed), stderr_of(executed, limits)
    if executed.ended == "time_limit":
        status, stderr = "timeout", f"{stderr}Execution timed out after {wanted.timeout} seconds\n"
    elif executed.ended != "exited" or (is_cell and executed.code):
        status = "error"
    else:
        status = "completed"
    if RESULT_FILE in executed.files:
        stdout += executed.files[RESULT_FILE].decode("utf-8", "replace") + "\n"
    answer = {
        "process_status": status,
        "stdout": _shortened(stdout, wanted.max_output_characters),
        "stderr": _shortened(stderr, wanted.max_output_characters),
    }
    return {**answer, "new_session_created": True} if is_cell else answer


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + _CUT
