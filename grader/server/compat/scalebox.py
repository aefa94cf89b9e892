"""ScaleBox's addition to SandboxFusion (https://github.com/icip-cas/ScaleBox): tests that come with a completion.

``test_cases`` becomes inline tests (docs/inline-tests.md), which the native judge compares. With ``run_all_cases`` each
case is a task of its own, since clients count the cases that passed.
"""

from __future__ import annotations

import ast
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from grader.server.auth import AnyCaller
from grader.server.bodies import read_model
from grader.server.compat.grading import Judged, grade_inline, time_limits
from grader.server.compat.sandbox_fusion import PROBLEMS, Seconds
from grader.server.compat.sandbox_fusion_datasets import (
    EvalResult,
    Id,
    TestConfig,
    _json,
    check_config,
    eval_result,
    exec_info,
)
from grader.server.openapi import takes
from grader.server.problems import Refused
from grader.suites.inline import GROUP, MAX_TESTS
from grader.suites.source import parse_source, unparsed

_DEFAULT_RUN_S = 10.0
_DEFAULT_TOTAL_S = 300.0


class TestCases(BaseModel):
    """Tests. ``stdin_stdout``: texts in, texts out; ``function_call``: arguments, and the result in a list of one;
    ``assert``: source that defines ``check(candidate)``, or asserts."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    __test__ = False

    type: Literal["stdin_stdout", "function_call", "assert"] | None = None
    input: list[Any] = Field(default=[], max_length=MAX_TESTS)
    output: list[Any] = Field(default=[], max_length=MAX_TESTS)
    fn_name: str | None = None
    json_input: bool = False
    test: str | None = None
    entry_point: str | None = None


class ProvidedData(BaseModel):
    """The tests of a request."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    test_cases: TestCases


class Extra(BaseModel):
    """``run_all_cases``: go on after the first case that fails. ``total_timeout`` is wall-clock seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run_all_cases: bool = False
    total_timeout: Seconds = _DEFAULT_TOTAL_S
    special_judge_program: str | None = None


class CommonEvaluateConfig(BaseModel):
    """How to test. ``run_timeout`` is for one case, in CPU seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    language: str | None = None
    run_timeout: Seconds | None = None
    custom_extract_logic: str | None = None
    provided_data: ProvidedData
    extra: Extra = Extra()


class CommonEvaluateRequest(BaseModel):
    """A completion and its tests."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    completion: str
    config: CommonEvaluateConfig
    id: Id = 0
    dataset: str | None = None


def add_routes(router: APIRouter) -> None:
    """Add ScaleBox's route."""
    router.add_api_route(
        "/common_evaluate_batch",
        common_evaluate_batch,
        methods=["POST"],
        response_model=EvalResult,
        responses=PROBLEMS,
    )


@takes(CommonEvaluateRequest)
async def common_evaluate_batch(request: Request, caller: AnyCaller) -> Response:
    """Judge a completion by the tests that come with it."""
    wanted = await read_model(request, CommonEvaluateRequest)
    config = wanted.config
    if not config.language:
        raise Refused("config.language field must exist, got None", status=400)
    check_config(TestConfig(language=config.language, custom_extract_logic=config.custom_extract_logic))
    if config.extra.special_judge_program:
        raise Refused("special judges are not available here", place="config.extra.special_judge_program")
    place = "config.provided_data.test_cases"
    tests = inline_tests(config.provided_data.test_cases, place, each=config.extra.run_all_cases)
    judged = await grade_inline(
        request,
        caller,
        wanted.completion,
        tests,
        is_solution=False,
        limits=time_limits(config.run_timeout or _DEFAULT_RUN_S),
        fail_fast=True,
        timeout_s=config.extra.total_timeout,
    )
    program = judged.program
    cases = outcomes(judged)
    return _json(eval_result(wanted.id, program.source, program.how, cases, judged.verdicts[0]))


def inline_tests(cases: TestCases, place: str, *, each: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return the inline tests: one task of all cases, or, with ``each``, a task a case. Raises Refused."""
    kind = cases.type or ("function_call" if cases.fn_name is not None else "stdin_stdout")
    if kind == "assert":
        return [(place, _assertions(cases, place))]
    if not cases.input:
        raise Refused("empty: without a test anything would pass", place=f"{place}.input")
    if len(cases.output) != len(cases.input):
        said = f"{len(cases.output)} for {len(cases.input)} inputs; give one each"
        raise Refused(said, place=f"{place}.output")
    if kind == "function_call" and not cases.fn_name:
        raise Refused("missing, and needed for function_call", place=f"{place}.fn_name")
    size = 1 if each else len(cases.input)
    pieces = [
        (n, cases.input[n : n + size], cases.output[n : n + size]) for n in range(0, len(cases.input), size)
    ]
    make = _printed if kind == "stdin_stdout" else _calls
    return [(f"{place}[{n}]" if each else place, make(cases, given, out, place)) for n, given, out in pieces]


def _printed(_: TestCases, given: list[Any], outputs: list[Any], __: str) -> dict[str, Any]:
    # ScaleBox takes upper case for lower case, and numbers that are near: CodeContests' rule does.
    return {"kind": "stdio", "inputs": given, "outputs": outputs, "comparison": "codecontests"}


def _calls(cases: TestCases, given: list[Any], outputs: list[Any], place: str) -> dict[str, Any]:
    if not cases.json_input:
        # The result is the first of a list; a bare value is taken as it is.
        outputs = [out[0] if isinstance(out, list) and len(out) == 1 else out for out in outputs]
        for number, arguments in enumerate(given):
            if not isinstance(arguments, list):
                raise Refused("a list of arguments is needed", place=f"{place}.input[{number}]")
    return {"inputs": given, "outputs": outputs, "fn_name": cases.fn_name}


def _assertions(cases: TestCases, place: str) -> dict[str, Any]:
    if not cases.test or not cases.entry_point:
        raise Refused("test and entry_point are needed for assert", place=place)
    try:
        tree = parse_source(cases.test)
        has_check = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
        if has_check:
            tree.body = [node for node in tree.body if not _calls_check(node)]
        source = unparsed(tree)
    except ValueError as error:
        raise Refused(str(error), place=f"{place}.test") from error
    if not has_check:
        return {"kind": "assertions", "tests": [source], "entry_point": cases.entry_point}
    return {
        "kind": "assertions",
        "tests": [f"check({cases.entry_point})"],
        "setup": source,
        "entry_point": cases.entry_point,
    }


def _calls_check(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "check"
    )


def outcomes(judged: Judged) -> list[dict[str, Any]]:
    """Return an ``EvalTestCase`` a case, in order; those that were not run are left out."""
    found = []
    for verdict in judged.verdicts:
        group = verdict["groups"].get(GROUP)
        right = 0 if group is None else group["passed"]
        # Without fail_fast's end these are all; with it, those before the first that failed.
        count = group["total"] if verdict["passed"] and group is not None else right
        found += [_case(verdict, passed=True)] * count
        if not verdict["passed"]:
            found.append(_case(verdict, passed=False))
    return found


def _case(verdict: dict[str, Any], *, passed: bool) -> dict[str, Any]:
    return {"passed": passed, "exec_info": exec_info(verdict, passed=passed), "test_info": None}
