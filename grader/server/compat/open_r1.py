"""open-r1's batch routers (https://github.com/huggingface/open-r1): ``scripts/e2b_router.py``, ``morph_router.py``.

The scripts that open-r1's ``code_reward`` sends start an interpreter for each test case, which no sandbox here allows.
Such a script is recognised by its shape; its program and its test cases are taken out and judged, and the answer is
the share that passed: what the script would have come to, but not to be forged. Any other script is run as a notebook's
cell.
"""

from __future__ import annotations

import ast
import asyncio
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from grader.errors import InfrastructureError
from grader.server.answers import to_json
from grader.server.auth import AnyCaller, Caller
from grader.server.bodies import read_model
from grader.server.compat.cells import RESULT_FILE, with_result
from grader.server.compat.grading import grade_inline, time_limits
from grader.server.compat.running import (
    MAX_TIME_S,
    error_answer,
    run_for,
    stderr_of,
    stdout_of,
    wanted_run,
    why_killed,
)
from grader.server.compat.shedding import shed_problems, shedding_part, shedding_router
from grader.server.openapi import PROBLEMS_OF_BODIES, takes
from grader.server.problems import Refused
from grader.server.refusals import note_refusal
from grader.server.service import Part
from grader.suites.inline import MAX_TESTS
from grader.suites.source import parse_source, unparsed
from grader.worker.execution import Executed, Execution

_DEFAULT_CASE_S = 5.0
_MAX_SCRIPTS = 4096
_MAX_SCRIPT_CHARACTERS = 32 << 20


class ScriptsRequest(BaseModel):
    """Scripts to be run. ``timeout`` is for each of them, ``request_timeout`` for waiting; both in seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    scripts: list[str] = Field(max_length=_MAX_SCRIPTS)
    languages: list[str] | None = Field(default=None, max_length=_MAX_SCRIPTS)
    language: str | None = None
    timeout: float = Field(default=30, gt=0, le=MAX_TIME_S, allow_inf_nan=False)
    request_timeout: float = Field(default=30, gt=0, le=MAX_TIME_S, allow_inf_nan=False)


class E2bExecution(BaseModel):
    """What a script did: its result, what it printed, and what it raised."""

    results: list[dict[str, Any]]
    logs: dict[str, list[str]]
    error: dict[str, str] | None
    execution_count: int


class E2bResult(BaseModel):
    """One script's result in the e2b router's words; ``execution`` is null where there is none."""

    execution: E2bExecution | None
    exception_str: str | None


class MorphResult(BaseModel):
    """One script's result in the morph router's words."""

    text: str | None
    exception_str: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a script: its result as text, what it printed and raised, and why there is none of it.

    ``is_its_fault``: that there is none says something about the program.
    """

    text: str | None = None
    stdout: str = ""
    stderr: str = ""
    error: tuple[str, str] | None = None
    why_none: str | None = None
    is_its_fault: bool = False


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A program and its test cases, taken out of a script."""

    program: str
    cases: Sequence[Mapping[str, str]]
    case_s: float = _DEFAULT_CASE_S


def make_e2b_part() -> Part:
    """Make the routes of the e2b router."""
    return _part("open-r1, e2b router", e2b_result, list[E2bResult])


def make_morph_part() -> Part:
    """Make the routes of the morph router."""
    return _part("open-r1, morph router", morph_result, list[MorphResult])


def _part(tag: str, result_of: Callable[[Outcome], dict[str, Any]], answer: Any) -> Part:

    async def shed_answer(request: Request, error: Refused) -> Response:
        """Say of each script that it cannot be run now."""
        wanted = await read_model(request, ScriptsRequest)
        results = [result_of(Outcome(why_none=error.detail))] * len(wanted.scripts)
        return error_answer(request, error, results, status=200)

    router = shedding_router(tag, answer=shed_answer)

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Say that the service is there."""
        return {"status": "ok"}

    @router.post("/execute_batch", response_model=answer, responses=shed_problems(*PROBLEMS_OF_BODIES))
    @takes(ScriptsRequest)
    async def execute_batch(request: Request, caller: AnyCaller) -> Response:
        """Run scripts; the answers are in their order."""
        wanted = await read_model(request, ScriptsRequest)
        languages = languages_of(wanted)
        doing = [
            _outcome(request, caller, wanted, script, language)
            for script, language in zip(wanted.scripts, languages, strict=True)
        ]
        outcomes = await asyncio.gather(*doing)
        return Response(to_json([result_of(outcome) for outcome in outcomes]), media_type="application/json")

    return shedding_part(router)


def languages_of(wanted: ScriptsRequest) -> list[str]:
    """Return a language a script. Raises Refused where their numbers differ."""
    if wanted.languages is None:
        return [wanted.language or "python"] * len(wanted.scripts)
    if len(wanted.languages) != len(wanted.scripts):
        said = f"{len(wanted.languages)} for {len(wanted.scripts)} scripts; give one each"
        raise Refused(said, place="languages")
    return wanted.languages


async def _outcome(
    request: Request, caller: Caller, wanted: ScriptsRequest, script: str, language: str
) -> Outcome:
    if language.lower() not in ("python", "python3"):
        said = f"the language {language[:40]!r} is not available here; there is python"
        note_refusal(request, Refused(said, place="languages"))
        return Outcome(why_none=said)
    try:
        evaluation = await asyncio.to_thread(evaluation_in, script)
        if evaluation is not None:
            return await _evaluated(request, caller, wanted, evaluation)
        source = await asyncio.to_thread(with_result, script)
        execution = Execution(source, fetch=(RESULT_FILE,), time_s=wanted.timeout)
        run = wanted_run(execution, caller.owner)
        executed = await run_for(request, caller, run, wait_s=wanted.request_timeout)
        return outcome_of(executed, why_killed(executed, run.limits), stderr_of(executed, run.limits))
    except InfrastructureError as error:
        return Outcome(why_none=f"could not be run now; send it again ({type(error).__name__})")
    except Refused as error:
        note_refusal(request, error)
        return Outcome(why_none=error.detail)


async def _evaluated(
    request: Request, caller: Caller, wanted: ScriptsRequest, evaluation: Evaluation
) -> Outcome:
    tests = [
        (f"test_cases[{number}]", {"kind": "stdio", "inputs": [case["input"]], "outputs": [case["output"]]})
        for number, case in enumerate(evaluation.cases)
    ]
    judged = await grade_inline(
        request,
        caller,
        evaluation.program,
        tests,
        is_solution=True,
        limits=time_limits(evaluation.case_s),
        fail_fast=True,
        timeout_s=wanted.timeout + wanted.request_timeout,
    )
    passed = sum(verdict["passed"] for verdict in judged.verdicts)
    return Outcome(text=repr(passed / len(tests)))


def evaluation_in(script: str) -> Evaluation | None:
    """Return what open-r1's script evaluates; None for any other script.

    Its shape: imports, a function ``evaluate_code`` that runs ``python3 -c`` on each case's ``input``, the program as a
    string, the cases as ``json.loads`` of a string, and a call of the function with both as the last line.
    """
    if "evaluate_code" not in script or len(script) > _MAX_SCRIPT_CHARACTERS:
        return None
    try:
        return _evaluation_of(parse_source(textwrap.dedent(script.strip("\n"))).body)
    except ValueError:  # no Python, or none that can be written out to be compared: not one of open-r1's
        return None


def _evaluation_of(body: Sequence[ast.stmt]) -> Evaluation | None:
    body = [node for node in body if not isinstance(node, ast.Import)]
    if len(body) != 4 or [type(node) for node in body] != [ast.FunctionDef, ast.Assign, ast.Assign, ast.Expr]:
        return None
    function, program, cases, call = body
    assert isinstance(function, ast.FunctionDef)
    assert isinstance(program, ast.Assign)
    assert isinstance(cases, ast.Assign)
    assert isinstance(call, ast.Expr)
    case_s = _case_time(function)
    loaded = cases.value
    is_call = unparsed(call.value) == "evaluate_code(code_snippet, test_cases)"
    if case_s is None or not is_call or not isinstance(loaded, ast.Call) or len(loaded.args) != 1:
        return None
    named = (unparsed(program.targets[0]), unparsed(cases.targets[0]), unparsed(loaded.func))
    text, source = _constant(loaded.args[0]), _constant(program.value)
    if named != ("code_snippet", "test_cases", "json.loads") or text is None or source is None:
        return None
    read = _cases(text)
    return None if read is None else Evaluation(source, read, case_s)


def _case_time(function: ast.FunctionDef) -> float | None:
    """The time-out of each case, of a function that is open-r1's; None for another one."""
    text = unparsed(function)
    is_known = (
        text.startswith("def evaluate_code(code, test_cases):")
        and "for case in test_cases:" in text
        and "subprocess.run(['python3', '-c', code], input=case['input']" in text
        and "case['output']" in text
        and "passed / total" in text
    )
    if not is_known:
        return None
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and unparsed(node.targets[0]) == "exec_timeout":
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, int | float) and value.value > 0:
                return float(min(value.value, MAX_TIME_S))
    return _DEFAULT_CASE_S


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _cases(text: str) -> list[Mapping[str, str]] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not 0 < len(found) <= MAX_TESTS:
        return None
    for case in found:
        if not isinstance(case, dict) or not all(
            isinstance(case.get(key), str) for key in ("input", "output")
        ):
            return None
    return found


def outcome_of(executed: Executed, why: str, stderr: str) -> Outcome:
    """Return what became of a script that was run; ``why`` is for which limit it was killed, but for its time."""
    stdout = stdout_of(executed)
    if executed.ended == "time_limit":
        return Outcome(
            stdout=stdout, stderr=stderr, why_none="the time limit was exceeded", is_its_fault=True
        )
    if executed.error is not None:
        raised = (executed.error.type, executed.error.message)
        return Outcome(stdout=stdout, stderr=stderr, error=raised)
    if executed.ended != "exited" or executed.code:
        said = why or f"exit status {executed.code}, signal {executed.signal}"
        return Outcome(stdout=stdout, stderr=stderr, error=("SystemExit", said))
    result = executed.files.get(RESULT_FILE)
    return Outcome(None if result is None else result.decode("utf-8", "replace"), stdout, stderr)


def e2b_result(outcome: Outcome) -> dict[str, Any]:
    """Return an ``E2bResult``. Without an execution open-r1 leaves a script's reward out (None)."""
    if outcome.why_none is not None:
        return {"execution": None, "exception_str": outcome.why_none}
    error = outcome.error
    execution = {
        "results": [] if outcome.text is None else [{"text": outcome.text, "is_main_result": True}],
        "logs": {
            "stdout": [outcome.stdout] if outcome.stdout else [],
            "stderr": [outcome.stderr] if outcome.stderr else [],
        },
        "error": error and {"name": error[0], "value": error[1], "traceback": outcome.stderr},
        "execution_count": 1,
    }
    return {"execution": execution, "exception_str": None}


def morph_result(outcome: Outcome) -> dict[str, Any]:
    """Return a ``MorphResult``.

    open-r1 takes ``float(text)`` for the reward. A null there raises in it what makes every reward of the batch 0, so
    that text is never null: it is "" for a script without a result, whose reward is 0, and "nan" for one that could not
    be run or judged for a reason that is not its own (the language, the tests, the load), which its trainer leaves out.
    """
    if outcome.why_none is not None:
        return {"text": "" if outcome.is_its_fault else "nan", "exception_str": outcome.why_none}
    if outcome.error is not None:
        return {"text": "", "exception_str": ": ".join(outcome.error)}
    text = outcome.text or outcome.stdout
    return {"text": text, "exception_str": None if text else "No output from execution"}
