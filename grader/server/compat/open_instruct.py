"""open-instruct's code server (https://github.com/allenai/open-instruct, ``open_instruct/code/api.py``).

Its tests are judged by the native judge, each by itself: assertions run in a process that the program cannot reach.
"""

from __future__ import annotations

import ast
import builtins
import sys
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from grader.server.answers import to_json
from grader.server.auth import AnyCaller, Caller
from grader.server.bodies import read_model
from grader.server.compat.grading import grade_inline, time_limits
from grader.server.compat.running import MAX_TIME_S
from grader.server.compat.shedding import shed_problems, shedding_part, shedding_router
from grader.server.openapi import PROBLEMS_OF_BODIES, takes
from grader.server.problems import Refused
from grader.server.service import Part
from grader.server.streams import JSON
from grader.suites.inline import MAX_TESTS
from grader.suites.source import parse_source

# Its client gives up after 30 to 300 s, and tries again after a 503.
_TIMEOUT_S = 300.0


class TestRequest(BaseModel):
    """A program and its tests. ``max_execution_time`` is for one test, in CPU seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    __test__ = False

    program: str
    tests: list[Any] = Field(max_length=MAX_TESTS)
    max_execution_time: float = Field(default=1.0, gt=0, le=MAX_TIME_S, allow_inf_nan=False)


class TestAnswer(BaseModel):
    """By test: 1 for passed, 0 for failed; and the CPU seconds that it took."""

    __test__ = False

    results: list[int]
    runtimes: list[float]


def make_part() -> Part:
    """Make the routes of open-instruct's code server."""
    router = shedding_router("open-instruct")

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Say that the service is there."""
        return {"status": "healthy"}

    for path, endpoint in (("/test_program", test_program), ("/test_program_stdio", test_program_stdio)):
        router.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            response_model=TestAnswer,
            responses=shed_problems(*PROBLEMS_OF_BODIES),
        )
    return shedding_part(router)


@takes(TestRequest)
async def test_program(request: Request, caller: AnyCaller) -> Response:
    """Judge a program by assertions."""
    wanted = await read_model(request, TestRequest)
    tests = [(place, assertion_test(test, place)) for place, test in _placed(wanted)]
    return await _judged(request, caller, wanted, tests)


@takes(TestRequest)
async def test_program_stdio(request: Request, caller: AnyCaller) -> Response:
    """Judge a program by what it prints."""
    wanted = await read_model(request, TestRequest)
    tests = [(place, stdio_test(test, place)) for place, test in _placed(wanted)]
    return await _judged(request, caller, wanted, tests)


def _placed(wanted: TestRequest) -> list[tuple[str, Any]]:
    return [(f"tests[{number}]", test) for number, test in enumerate(wanted.tests)]


async def _judged(
    request: Request, caller: Caller, wanted: TestRequest, tests: list[tuple[str, dict[str, Any]]]
) -> Response:
    if not tests:
        return Response(to_json({"results": [], "runtimes": []}), media_type=JSON)
    judged = await grade_inline(
        request,
        caller,
        wanted.program,
        tests,
        is_solution=True,
        limits=time_limits(wanted.max_execution_time),
        fail_fast=True,
        timeout_s=_TIMEOUT_S,
    )
    answer = {
        "results": [int(verdict["passed"]) for verdict in judged.verdicts],
        "runtimes": [verdict["cpu_s"] for verdict in judged.verdicts],
    }
    return Response(to_json(answer), media_type=JSON)


def stdio_test(test: Any, place: str) -> dict[str, Any]:
    """Return the inline test of ``{"input", "output"}``, compared as LiveCodeBench does (whose code it uses)."""
    if not isinstance(test, dict) or not {"input", "output"} <= test.keys():
        raise Refused("an object with input and output is needed", place=place)
    return {"inputs": [test["input"]], "outputs": [test["output"]]}


def assertion_test(test: Any, place: str) -> dict[str, Any]:
    """Return the inline test of one test's source.

    In open-instruct a test is run in the program's own namespace. Here it has stand-ins for the program's functions and
    classes that it uses, and imports of the standard library's modules that it uses. Raises Refused for a test that
    uses nothing of the program.
    """
    if not isinstance(test, str):
        raise Refused("source of assertions is needed", place=place)
    try:
        tree = parse_source(test)
    except ValueError as error:
        raise Refused(str(error), place=place) from error
    modules, names = _unknown(tree)
    if not names and not _imports_solution(tree):
        raise Refused(
            "it uses no function or class of the program, so there is nothing to be tested", place=place
        )
    setup = "\n".join(f"import {name}" for name in modules)
    if len(names) == 1 and not _imports_solution(tree):
        return {"kind": "assertions", "tests": [test], "setup": setup, "entry_point": names[0]}
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise Refused("a test that uses several names of the program needs an assertion", place=place)
    imported = f"from solution import {', '.join(names)}\n" if names else ""
    return {"kind": "assertions", "tests": f"{imported}{test}", "setup": setup}


def _imports_solution(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.ImportFrom) and node.module == "solution" for node in tree.body)


def _unknown(tree: ast.Module) -> tuple[list[str], list[str]]:
    """The standard library's modules that a test uses without importing them, and the program's names."""
    bound = set(dir(builtins))
    loaded: dict[str, None] = {}
    owners: set[str] = set()
    plain: set[str] = set()
    attribute_values = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                loaded[node.id] = None
                (owners if id(node) in attribute_values else plain).add(node.id)
            else:
                bound.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    unknown = [name for name in loaded if name not in bound]
    modules = [name for name in unknown if name in owners - plain and name in sys.stdlib_module_names]
    return modules, [name for name in unknown if name not in modules]
