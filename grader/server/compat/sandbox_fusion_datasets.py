"""SandboxFusion's datasets: prompts go out, completions come in and are judged by the native judge."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from grader.dispatch.contract import VerdictFields
from grader.limits import Limits
from grader.server.answers import to_json
from grader.server.auth import AnyCaller
from grader.server.bodies import read_model
from grader.server.compat.grading import explained, grade_by_suite
from grader.server.compat.running import MAX_TIME_S
from grader.server.compat.sandbox_fusion import (
    PROBLEMS,
    SHED,
    RunCodeResponse,
    Seconds,
    check_language,
    run_response,
)
from grader.server.openapi import problems, takes
from grader.server.problems import Refused
from grader.server.service import Service, service_of
from grader.server.streams import JSON
from grader.status import Status
from grader.suites import registry
from grader.suites.task import Suite, Task

# SandboxFusion's names for what is a suite here; the last two are ours.
DATASETS: Mapping[str, str] = {
    "humaneval_python": "humaneval",
    "mbpp": "mbpp",
    "humaneval_plus": "humaneval+",
    "mbpp_plus": "mbpp+",
}
_TIMEOUT_S = 300.0
_MAX_RESULTS = 100_000

Id = Annotated[str, Field(max_length=256)] | Annotated[int, Field(strict=True)]
DatasetName = Annotated[str, Field(min_length=1, max_length=128)]
ExtractedType = Literal["fenced", "incomplete_fenced", "heuristic", "empty"]
_EXTRACTED: Mapping[str, ExtractedType] = {
    "fenced": "fenced",
    "unclosed_fence": "incomplete_fenced",
    "none": "empty",
}


class TestConfig(BaseModel):
    """How to test. ``run_timeout`` is for all tests of a group together, in CPU seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    __test__ = False

    language: str | None = None
    run_timeout: Seconds | None = None
    custom_extract_logic: str | None = None
    provided_data: Any = None
    extra: dict[str, Any] = {}


class GetPromptsRequest(BaseModel):
    """Which prompts are wanted."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dataset: DatasetName
    config: TestConfig = TestConfig()
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=1_000_000, ge=0)


class GetPromptByIdRequest(BaseModel):
    """Which prompt is wanted."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dataset: DatasetName
    id: Id
    config: TestConfig = TestConfig()


class SubmitRequest(BaseModel):
    """A completion for one problem."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dataset: DatasetName
    id: Id
    completion: str
    config: TestConfig = TestConfig()


class Prompt(BaseModel):
    """A problem as a model is shown it."""

    id: int | str
    prompt: str
    labels: dict[str, Any] = {}


class EvalTestCase(BaseModel):
    """What became of one test group, or of one test of the request's own."""

    passed: bool
    exec_info: RunCodeResponse
    test_info: dict[str, Any] | None = None


class EvalResult(BaseModel):
    """What became of a completion. ``full_code`` and ``test_code`` are always null: tests are not told."""

    id: int | str
    accepted: bool
    extracted_code: str
    full_code: str | None = None
    test_code: str | None = None
    tests: list[EvalTestCase]
    extracted_type: ExtractedType | None = None
    extra: dict[str, Any] | None = None


class Result(BaseModel):
    """What ``get_metrics`` needs of an ``EvalResult``."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Id
    accepted: StrictBool


class GetMetricsRequest(BaseModel):
    """Results to be counted."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dataset: DatasetName
    results: list[Result] = Field(max_length=_MAX_RESULTS)


def add_routes(router: APIRouter) -> None:
    """Add the routes of datasets."""
    router.add_api_route(
        "/list_datasets",
        list_datasets,
        methods=["GET"],
        response_model=list[str],
        responses=problems(401, 403, 422, SHED),
    )
    posts: list[tuple[str, Any, Any]] = [
        ("/list_ids", list_ids, list[int | str]),
        ("/get_prompts", get_prompts, list[Prompt]),
        ("/get_prompt_by_id", get_prompt_by_id, Prompt),
        ("/submit", submit, EvalResult),
        ("/get_metrics", get_metrics, dict[str, Any]),
    ]
    for path, endpoint, answer in posts:
        router.add_api_route(
            path, endpoint, methods=["POST"], response_model=answer, responses=PROBLEMS | problems(404)
        )


async def list_datasets(request: Request, caller: AnyCaller) -> Response:
    """List the datasets whose data is on this server."""
    return _json(await asyncio.to_thread(available_datasets, service_of(request)))


@takes(GetPromptsRequest)
async def list_ids(request: Request, caller: AnyCaller) -> Response:
    """List the ids of a dataset."""
    wanted = await read_model(request, GetPromptsRequest)
    suite = await _suite(request, wanted.dataset)
    ids = [id_of(task_id) for task_id in suite.tasks]
    return _json(ids[wanted.offset : wanted.offset + wanted.limit])


@takes(GetPromptsRequest)
async def get_prompts(request: Request, caller: AnyCaller) -> Response:
    """List a dataset's prompts."""
    wanted = await read_model(request, GetPromptsRequest)
    suite = await _suite(request, wanted.dataset)
    tasks = list(suite.tasks.values())[wanted.offset : wanted.offset + wanted.limit]
    return _json([prompt_of(task) for task in tasks])


@takes(GetPromptByIdRequest)
async def get_prompt_by_id(request: Request, caller: AnyCaller) -> Response:
    """Return one prompt of a dataset."""
    wanted = await read_model(request, GetPromptByIdRequest)
    return _json(prompt_of(task_of(await _suite(request, wanted.dataset), wanted.id)))


@takes(SubmitRequest)
async def submit(request: Request, caller: AnyCaller) -> Response:
    """Judge a completion. The tests stay out of the sandbox, and a program cannot forge the result."""
    wanted = await read_model(request, SubmitRequest)
    check_config(wanted.config)
    if wanted.config.provided_data is not None:
        said = "is taken by /common_evaluate_batch alone; here the dataset's own tests count"
        raise Refused(said, place="config.provided_data")
    suite = await _suite(request, wanted.dataset)
    task = task_of(suite, wanted.id)
    judged = await grade_by_suite(
        request,
        caller,
        replace(suite, tasks={task.task_id: task}),
        [task.task_id],
        wanted.completion,
        is_solution=False,
        limits=_limits(wanted.config),
        fail_fast=True,
        timeout_s=_TIMEOUT_S,
    )
    program, verdict = judged.program, judged.verdicts[0]
    tests = [
        {
            "passed": group["status"] == Status.PASSED,
            "exec_info": exec_info(verdict, passed=group["status"] == Status.PASSED),
            "test_info": {"group": name, "passed": group["passed"], "total": group["total"]},
        }
        for name, group in verdict["groups"].items()
        if group is not None
    ]
    tests = tests or [{"passed": False, "exec_info": exec_info(verdict, passed=False), "test_info": None}]
    return _json(eval_result(wanted.id, program.source, program.how, tests, verdict))


@takes(GetMetricsRequest)
async def get_metrics(request: Request, caller: AnyCaller) -> Response:
    """Count results: the share accepted, and pass@1 as the mean over problems of the share accepted."""
    wanted = await read_model(request, GetMetricsRequest)
    return _json(metrics_of(wanted.results))


def metrics_of(results: list[Result]) -> dict[str, Any]:
    """Return the counts of some results."""
    of_problem: dict[str, list[bool]] = defaultdict(list)
    for result in results:
        of_problem[str(result.id)].append(result.accepted)
    means = [sum(accepted) / len(accepted) for accepted in of_problem.values()]
    return {
        "accepted": sum(result.accepted for result in results),
        "total": len(results),
        "pass@1": sum(means) / len(means) if means else None,
    }


def available_datasets(service: Service) -> list[str]:
    """Return the names of the datasets that can be used: SandboxFusion's, and the other suites by their own names."""
    there = {info.name for info in registry.available() if info.location is not None}
    known = [name for name, suite in DATASETS.items() if suite in there]
    others = [name for name in sorted(there) if name not in DATASETS.values()]
    return [*known, *others, *(suite.name for suite in service.suites.own)]


def id_of(task_id: str) -> int | str:
    """Return the id of a task: SandboxFusion numbers problems, so that ``HumanEval/3`` is 3."""
    number = task_id.rpartition("/")[2]
    return int(number) if number.isascii() and number.isdigit() and str(int(number)) == number else task_id


def task_of(suite: Suite, given: int | str) -> Task:
    """Return the task of an id: a number, its digits, or the task's own name. Raises Refused (404) for no task."""
    wanted = str(given)
    task = suite.tasks.get(wanted)
    if task is None:
        task = next((one for name, one in suite.tasks.items() if str(id_of(name)) == wanted), None)
    if task is None:
        raise Refused(
            f"the dataset has no problem {wanted[:100]!r}; /list_ids has the ids", place="id", status=404
        )
    return task


def prompt_of(task: Task) -> dict[str, Any]:
    """Return a ``Prompt``."""
    labels = {"task_id": task.task_id, "programming_language": "python", "entry_point": task.entry_point}
    return {"id": id_of(task.task_id), "prompt": task.prompt, "labels": labels}


def check_config(config: TestConfig) -> None:
    """Raise Refused for what would be left out of account and change the result."""
    if config.language is not None:
        check_language(config.language, "config.language")
    if config.custom_extract_logic:
        said = "is code that would run in the server; leave it out, code is found in a completion without it"
        raise Refused(said, place="config.custom_extract_logic")


def eval_result(
    given: int | str, source: str, how: str | None, tests: list[dict[str, Any]], verdict: VerdictFields
) -> dict[str, Any]:
    """Return an ``EvalResult``."""
    return {
        "id": given,
        "accepted": all(test["passed"] for test in tests),
        "extracted_code": source,
        "full_code": None,
        "test_code": None,
        "tests": tests,
        "extracted_type": _EXTRACTED.get(how or "", "heuristic"),
        "extra": {"status": verdict["status"], "sandbox": verdict["sandbox"]},
    }


def exec_info(verdict: VerdictFields, *, passed: bool) -> dict[str, Any]:
    """Return a ``RunCodeResponse`` that says of one group or test what the verdict says."""
    is_late = not passed and verdict["status"] == Status.TIME_LIMIT
    result = {
        "status": "TimeLimitExceeded" if is_late else "Finished",
        "execution_time": verdict["wall_s"],
        "return_code": None if is_late else 0 if passed else 1,
        "stdout": verdict["stdout_tail"],
        "stderr": "" if passed else explained(verdict),
    }
    return run_response("Success" if passed else "Failed", result, {})


def _limits(config: TestConfig) -> Limits:
    if config.run_timeout is None:
        return Limits()
    return Limits(
        time_floor_s=min(Limits().time_floor_s, config.run_timeout),
        group_time_s=min(config.run_timeout, MAX_TIME_S),
    )


async def _suite(request: Request, dataset: str) -> Suite:
    service = service_of(request)
    name = DATASETS.get(dataset, dataset)
    # 400 is SandboxFusion's own answer to a dataset that it does not know.
    suite = service.suites.loaded(name)
    if suite is None:
        suite = await asyncio.to_thread(service.suites.load, name, place="dataset", status=400)
    return suite


def _json(answer: Any) -> Response:
    return Response(to_json(answer), media_type=JSON)
