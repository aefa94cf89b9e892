"""What the endpoints share that grade by the native judge: answers stay out of the cell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request

from grader.dispatch.contract import Batch, VerdictFields
from grader.errors import InfrastructureError, SuiteError
from grader.limits import Limits
from grader.run import program_of
from grader.samples import GivenSample
from grader.server.answers import Asked, in_order
from grader.server.auth import Caller
from grader.server.problems import FieldError, Refused
from grader.server.service import service_of
from grader.server.streams import while_connected
from grader.status import Status
from grader.suites.inline import InlineTasks
from grader.suites.task import Suite
from grader.worker.grading import broken_tests
from grader.worker.program import Program

_MAX_ERRORS = 20


@dataclass(frozen=True, slots=True)
class Judged:
    """A program and its verdicts: one by task, in the order of the tasks."""

    program: Program
    verdicts: list[VerdictFields]


async def grade_inline(
    request: Request,
    caller: Caller,
    text: str,
    tests: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    is_solution: bool,
    limits: Limits,
    fail_fast: bool,
    timeout_s: float | None,
) -> Judged:
    """Grade one program by tests that come with the request, each a task of its own.

    ``text`` is the program if it ``is_solution``, else the completion that it is to be found in. ``tests`` has the
    place in the request and the inline tests of each task. Errors are those of :func:`grade_by_suite`.
    """
    suite, samples = await asyncio.to_thread(_inline_suite, tests)
    return await grade_by_suite(
        request,
        caller,
        suite,
        samples,
        text,
        is_solution=is_solution,
        limits=limits,
        fail_fast=fail_fast,
        timeout_s=timeout_s,
        places=[place for place, _ in tests],
    )


async def grade_by_suite(
    request: Request,
    caller: Caller,
    suite: Suite,
    task_ids: Sequence[str],
    text: str,
    *,
    is_solution: bool,
    limits: Limits,
    fail_fast: bool,
    timeout_s: float | None,
    places: Sequence[str] = (),
) -> Judged:
    """Grade one program by tasks of a suite, all of them with the same entry point.

    ``places``: where in the request the tests of each task are, if they came with it. Raises Refused for too many
    samples a second and for tests of the request that fail by themselves, InfrastructureError where one of the tasks
    could not be judged within ``timeout_s``: half a result would be taken for a whole one.
    """
    service, owner = service_of(request), caller.owner
    began, now = time.monotonic(), asyncio.get_running_loop().time()
    with caller.taking_samples(len(task_ids)):
        programs = await asyncio.to_thread(_programs, suite, task_ids, text, is_solution)
        batch = Batch(
            request_id=request.state.request_id,
            suite=suite,
            programs=programs,
            groups=tuple(dict.fromkeys(g.name for one in task_ids for g in suite.tasks[one].groups)),
            limits=limits if owner.ceilings is None else limits.within(owner.ceilings),
            fail_fast=fail_fast,
            tenant=owner.tenant,
            weight=owner.weight,
            timeout_s=timeout_s,
        )
        asked = Asked(service, batch, (1,), True, began, None if timeout_s is None else now + timeout_s)
        verdicts: list[VerdictFields] = []
        await while_connected(request.receive, asked.collect(verdicts.append))
    found = in_order(batch, verdicts)
    broken = [
        FieldError(place, why)
        for place, one in zip(places, found, strict=False)
        if (why := broken_tests(one))
    ]
    if broken:
        raise Refused(errors=broken[:_MAX_ERRORS])
    for verdict in found:
        if verdict["status"] == Status.INFRASTRUCTURE_ERROR:
            error = verdict["error"] or {}
            raise InfrastructureError(f"{verdict['task_id']} was not judged: {error.get('type')}")
    return Judged(programs[0], found)


def _inline_suite(tests: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Suite, list[str]]:
    tasks = InlineTasks()
    task_ids = []
    for place, one in tests:
        try:
            task_ids.append(tasks.add(one, place))
        except SuiteError as error:
            where, _, said = str(error).partition(": ")
            raise Refused(said, place=where) if said else Refused(str(error), place=place) from error
    return tasks.suite, task_ids


def _programs(suite: Suite, task_ids: Sequence[str], text: str, is_solution: bool) -> list[Program]:
    first = program_of(GivenSample(task_ids[0], "0", text, is_solution), suite)
    return [replace(first, task_id=task_id, sample_id=str(n)) for n, task_id in enumerate(task_ids)]


def time_limits(time_s: float | None, memory_bytes: int | None = None) -> Limits:
    """Return limits with ``time_s`` for each test whatever the reference needs, or the defaults for None."""
    limits = Limits() if memory_bytes is None else Limits(memory_bytes=memory_bytes)
    if time_s is None:
        return limits
    return replace(limits, time_floor_s=time_s, time_factor=1.0, group_time_s=max(60.0, time_s))


def explained(verdict: VerdictFields) -> str:
    """Return a verdict's error as one line; "" for none. It never has an expected value of a test."""
    error = verdict["error"]
    if not error:
        return "" if verdict["passed"] else str(verdict["status"])
    line = f" (line {error['line']})" if error.get("line") else ""
    return f"{error['type']}: {error['message']}{line}"
