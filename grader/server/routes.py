"""The native routes that are not about jobs: grading, suites, health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from grader.server.answers import Asked, to_json
from grader.server.auth import AnyCaller, caller_of
from grader.server.batches import given_task_ids, prepare_batch
from grader.server.bodies import parsed_aside, read_body
from grader.server.idempotency import HEADER, answered_once, key_given
from grader.server.models import GradeAnswer, GradeRequest, SuitesAnswer, TasksAnswer
from grader.server.openapi import PROBLEMS_OF_BODIES, PROBLEMS_OF_READING, asks_caller, problems, takes
from grader.server.problems import Refused
from grader.server.service import Service, service_of
from grader.server.streams import JSON, NDJSON, PiecesResponse, json_pieces, ndjson_pieces
from grader.suites import registry
from grader.version import __version__

open_router = APIRouter(tags=["health"])
router = APIRouter(prefix="/v1")

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>grader</title></head><body>
<h1>grader {version}</h1><p>This service runs model-written programs against test suites, in a sandbox, and answers
with verdicts. Its interface is described at <a href="docs">/docs</a>; <a href="readyz">/readyz</a> says whether it can
grade now.</p></body></html>
"""
_GRADED = {
    "description": "Verdicts in the order of the samples, and the summary; or, with `Accept: application/x-ndjson`, "
    'a verdict a line as they are done, and last a line `{"summary": ...}`.',
    "content": {NDJSON: {"schema": {"type": "string"}}},
    "model": GradeAnswer,
}


@router.post(
    "/grade",
    tags=["grading"],
    responses={200: _GRADED, **problems(409, *PROBLEMS_OF_BODIES)},
    openapi_extra={"parameters": [HEADER]},
)
@takes(GradeRequest)
@asks_caller
async def grade(request: Request) -> Response:
    """Grade samples.

    Ends when the last verdict is in, or when `timeout_s` has passed, with what is there. Bodies may be compressed
    (`Content-Encoding: gzip` or `zstd`). A request that is sent again with the same `Idempotency-Key` gets the answer
    of the first.
    """
    began = time.monotonic()
    deadline_from = asyncio.get_running_loop().time()
    caller, key = await caller_of(request), key_given(request)
    body = await read_body(request)
    media_type = NDJSON if wants_ndjson(request.headers.get("accept", "")) else JSON
    service, request_id = service_of(request), request.state.request_id

    async def pieces() -> AsyncGenerator[bytes, None]:
        wanted = await parsed_aside(body, GradeRequest)
        deadline = None if wanted.timeout_s is None else deadline_from + wanted.timeout_s
        with caller.taking_samples(len(wanted.samples)):
            batch = await prepare_batch(
                wanted, service.suites, owner=caller.owner, request_id=request_id, deadline=deadline
            )
            ks, names = tuple(sorted(set(wanted.k))), given_task_ids(wanted, batch)
            asked = Asked(service, batch, ks, wanted.use_cache, began, deadline, names, wanted.include_flags)
            async with aclosing((ndjson_pieces if media_type == NDJSON else json_pieces)(asked)) as made:
                async for piece in made:
                    yield piece

    once = await answered_once(request, key, caller.owner.tenant, body, media_type, pieces)
    return PiecesResponse(once, media_type)


def wants_ndjson(accept: str) -> bool:
    """Whether an Accept header asks for NDJSON by name."""
    for part in accept.lower().split(","):
        kind, _, parameters = part.partition(";")
        if kind.strip() == NDJSON and parameters.replace(" ", "") not in (
            "q=0",
            "q=0.0",
            "q=0.00",
            "q=0.000",
        ):
            return True
    return False


@router.get("/suites", tags=["suites"], response_model=SuitesAnswer, responses=problems(*PROBLEMS_OF_READING))
async def suites(request: Request, caller: AnyCaller) -> Response:
    """List the suites that requests can name."""
    service = service_of(request)
    return Response(await asyncio.to_thread(_suites, service), media_type="application/json")


def _suites(service: Service) -> bytes:
    rows: list[dict[str, object]] = [
        {
            "name": info.name,
            "aliases": list(info.aliases),
            "version": info.version,
            "description": info.description,
            "licence": info.licence,
            "sha256": info.sha256,
            "available": info.location is not None,
        }
        for info in registry.available()
    ]
    for suite in service.suites.own:
        own = {"aliases": [], "description": "a suite of this server's own", "licence": "", "available": True}
        rows.append({"name": suite.name, "version": suite.version, "sha256": suite.sha256, **own})
    return to_json({"suites": rows})


@router.get(
    "/suites/{name}/tasks",
    tags=["suites"],
    response_model=TasksAnswer,
    responses=problems(404, *PROBLEMS_OF_READING),
)
async def tasks(request: Request, name: str, caller: AnyCaller) -> Response:
    """List a suite's tasks as a model may be shown them: prompts and entry points, no references and no tests."""
    service = service_of(request)
    return Response(await asyncio.to_thread(_tasks, service, name), media_type="application/json")


def _tasks(service: Service, name: str) -> bytes:
    suite = service.suites.load(name[:128], place="name", status=404)
    rows = [
        {
            "task_id": task.task_id,
            "prompt": task.prompt,
            "entry_point": task.entry_point,
            "groups": [group.name for group in task.groups],
        }
        for task in suite.tasks.values()
    ]
    identity = {"name": suite.name, "version": suite.version, "sha256": suite.sha256}
    return to_json({"suite": identity, "tasks": rows})


@open_router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the process lives."""
    return {"status": "alive", "version": __version__}


@open_router.get("/readyz", responses=problems(503))
async def readyz(request: Request) -> dict[str, str]:
    """Say whether the service takes work: a worker is ready, and it is not about to stop."""
    service = service_of(request)
    if service.draining:
        raise Refused("the server is about to stop", status=503, title="Draining")
    state = service.grading.state()
    if state.failure is not None:
        raise Refused("no worker can grade here; the log says why", status=503, title="Cannot grade now")
    if not any(state.workers.get(kind) for kind in ("ready", "busy")):
        raise Refused("no worker is ready yet", status=503, title="Not ready", retry_after_s=1.0)
    return {"status": "ready"}


@open_router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def page() -> HTMLResponse:
    """Say what this is."""
    policy = {"content-security-policy": "default-src 'none'"}
    return HTMLResponse(_PAGE.format(version=escape(__version__)), headers=policy)
