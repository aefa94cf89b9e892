"""The routes of jobs."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, ParamSpec, TypeVar, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from grader.dispatch.contract import Batch
from grader.server.answers import to_json
from grader.server.auth import AnyCaller, caller_of
from grader.server.batches import Owner
from grader.server.bodies import parsed, read_body
from grader.server.idempotency import HEADER, fingerprint, key_given
from grader.server.jobs.errors import StoreUnavailableError, no_such_job
from grader.server.jobs.followers import Following
from grader.server.jobs.models import JobAnswer, JobsAnswer
from grader.server.jobs.records import Job, Look, NewJob
from grader.server.jobs.runner import LINES_AT_ONCE, JobRunner
from grader.server.jobs.store import ID_CHARACTERS
from grader.server.jobs.work import outlined, owner_to_json
from grader.server.models import GradeRequest
from grader.server.openapi import PROBLEMS_OF_BODIES, PROBLEMS_OF_READING, asks_caller, problems, takes
from grader.server.service import Service, service_of
from grader.server.streams import NDJSON

SHARED_NAME = "jobs"
_MOST_INTEGER = 2**31 - 1
_ID = re.compile(rf"[0-9a-f]{{{ID_CHARACTERS}}}")

_OF_ONE = problems(404, *PROBLEMS_OF_READING)
_STREAMED = {
    200: {"content": {NDJSON: {"schema": {"type": "string"}}}, "description": "A verdict a line."},
    **_OF_ONE,
}

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def jobs_router() -> APIRouter:
    """Make the routes below ``/v1/jobs``; they find their JobRunner in ``Service.shared["jobs"]``."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    add = router.add_api_route
    add(
        "", takes(GradeRequest)(asks_caller(accept)), methods=["POST"], status_code=202, response_model=JobAnswer,
        responses=problems(409, *PROBLEMS_OF_BODIES), openapi_extra={"parameters": [HEADER]},
    )  # fmt: skip
    add("", page, methods=["GET"], response_model=JobsAnswer, responses=problems(*PROBLEMS_OF_READING))
    add("/{job_id}", show, methods=["GET"], response_model=JobAnswer, responses=_OF_ONE)
    add(
        "/{job_id}/verdicts", verdicts, methods=["GET"], responses=_STREAMED, response_class=StreamingResponse
    )
    add("/{job_id}", delete, methods=["DELETE"], status_code=204, responses=_OF_ONE)
    return router


async def accept(request: Request) -> Response:
    """Take the body of /v1/grade as a job. When the answer comes, the job is on disk and will be graded, whatever
    happens to the server. The same ``Idempotency-Key`` with the same body is answered with the same job.
    """
    caller, idempotency_key = await caller_of(request), key_given(request)
    service = service_of(request)
    runner = _runner(service)
    body = await read_body(request)
    tenant, digest = caller.owner.tenant, fingerprint(body)
    if idempotency_key is not None:
        made = await _asked(runner, runner.store.replay, tenant, idempotency_key, digest)
        if made is not None:
            return _accepted(made)
    outline = await asyncio.to_thread(_outline, service, caller.owner, body)
    new = NewJob(
        tenant=tenant, owner=owner_to_json(caller.owner), suite=outline.suite.name,
        samples=len(outline.programs), request=body, key=idempotency_key, fingerprint=digest,
    )  # fmt: skip
    with caller.taking_samples(new.samples):
        job, is_new = await _asked(runner, runner.store.accept, new)
    if is_new:
        runner.accepted(job.id)
    return _accepted(job)


async def page(
    request: Request,
    caller: AnyCaller,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: Annotated[
        str | None, Query(pattern=f"^{_ID.pattern}$", description="the last page's next")
    ] = None,
) -> Response:
    """List the tenant's jobs, the latest first, without their summaries."""
    runner = _runner(service_of(request))
    # One more than is shown says whether there is another page.
    found = await _asked(runner, runner.store.page, caller.owner.tenant, before=before, limit=limit + 1)
    shown = found[:limit]
    following = shown[-1].id if len(found) > limit else None
    return _json({"jobs": [_fields(job) | {"summary": None} for job in shown], "next": following})


async def show(request: Request, caller: AnyCaller, job_id: str) -> Response:
    """Show a job: its state, how many samples have a verdict, and the summary when it is done."""
    return _json(_fields(await _job(_runner(service_of(request)), caller.owner.tenant, job_id)))


async def verdicts(
    request: Request,
    caller: AnyCaller,
    job_id: str,
    after: Annotated[int, Query(ge=0, le=_MOST_INTEGER, description="verdicts that the client has")] = 0,
    wait: Annotated[bool, Query(description="follow the job to its end")] = False,
) -> StreamingResponse:
    """Stream the verdicts as NDJSON, in the order in which they were recorded, which stays the same.

    ``after=N`` leaves out the first N: a client that was cut off goes on with the number of lines that it has.
    """
    service = service_of(request)
    runner = _runner(service)
    tenant = caller.owner.tenant
    # Before the answer begins: afterwards, what goes wrong can only break it off.
    first = None
    if _ID.fullmatch(job_id):
        first = await _asked(runner, runner.store.look, tenant, job_id, after=after, limit=LINES_AT_ONCE)
    if first is None:
        raise no_such_job()
    return StreamingResponse(_lines(service, tenant, job_id, after, wait, first), media_type=NDJSON)


async def delete(request: Request, caller: AnyCaller, job_id: str) -> Response:
    """Cancel a job if it is not done, and delete it with its verdicts."""
    runner = _runner(service_of(request))
    tenant = caller.owner.tenant
    if not _ID.fullmatch(job_id) or not await _asked(runner, runner.store.delete, tenant, job_id):
        raise no_such_job()
    runner.deleted(job_id)
    return Response(status_code=204)


async def _lines(
    service: Service, tenant: str, job_id: str, after: int, wait: bool, look: Look
) -> AsyncIterator[bytes]:
    runner = _runner(service)
    following = runner.followers.of(job_id)
    news = None  # of what came since the look; nobody knows for the first
    while True:
        after += look.count
        if look.text:
            yield look.text
        if not look.has_more:
            if not wait or service.draining or look.is_finished:
                return
            if news is not None:
                await following.wait(news)
        news = following.news()
        found = await _look_again(service, following, tenant, after, wait)
        if found is None:
            return  # it was deleted meanwhile
        look = found


async def _look_again(
    service: Service, following: Following, tenant: str, after: int, wait: bool
) -> Look | None:
    while True:
        try:
            return await following.look(tenant, after)
        except StoreUnavailableError:
            if not wait or service.draining:
                raise  # the stream breaks off, which a client can tell from an end
            await asyncio.sleep(_runner(service).settings.retry_s)


def _outline(service: Service, owner: Owner, body: bytes) -> Batch:
    return outlined(parsed(body, GradeRequest), service.suites, owner=owner, request_id="job")


def _runner(service: Service) -> JobRunner:
    return cast(JobRunner, service.shared[SHARED_NAME])


async def _job(runner: JobRunner, tenant: str, job_id: str) -> Job:
    found = await _asked(runner, runner.store.get, tenant, job_id) if _ID.fullmatch(job_id) else None
    if found is None:
        raise no_such_job()
    return found


async def _asked(
    runner: JobRunner, function: Callable[_Given, _Result], *args: _Given.args, **kwargs: _Given.kwargs
) -> _Result:
    try:
        return await runner.database.ask(function, *args, **kwargs)
    except StoreUnavailableError as error:
        raise error.refusal() from error


def _fields(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": job.state,
        "suite": job.suite,
        "samples": job.samples,
        "recorded": job.recorded,
        "statuses": job.statuses,
        "created_at": _utc(job.created_at),
        "started_at": _utc(job.started_at),
        "finished_at": _utc(job.finished_at),
        "summary": None if job.summary is None else json.loads(job.summary),
        "failure": job.failure if job.state == "failed" else None,
        "waits_for": None if job.state == "failed" else job.failure,
    }


def _utc(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _accepted(job: Job) -> Response:
    return _json(_fields(job), 202, {"location": f"/v1/jobs/{job.id}"})


def _json(fields: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = to_json(fields)
    return Response(body, status_code=status, headers=headers, media_type="application/json")
