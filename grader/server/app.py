"""The application: routes, errors, and the life of the grading behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from grader.dispatch.contract import Grading
from grader.errors import GraderError
from grader.server.auth import KeyRing
from grader.server.bodies import place_of
from grader.server.middleware import FrontMiddleware, log_failure
from grader.server.observed import Observer, metrics_router, observing
from grader.server.openapi import document
from grader.server.problems import FieldError, Problem, problem, problem_of
from grader.server.routes import open_router, router
from grader.server.service import Part, Service
from grader.server.settings import ServerSettings
from grader.server.suites import Suites
from grader.telemetry.metrics import Metrics
from grader.telemetry.requests import RequestMetrics
from grader.telemetry.traces import make_traces
from grader.version import __version__

_log = structlog.get_logger("grader.server")

_DESCRIPTION = (
    "Runs untrusted, model-written programs against test suites in a sandbox, and answers with verdicts."
)


def create_app(settings: ServerSettings, grading: Grading, parts: Sequence[Part] = ()) -> FastAPI:
    """Make the application. ``parts`` are added to the routes that every service has.

    The grading is started when the application is, and closed with it; what the application's parts share is
    ``app.state.service``. Raises InputError where the file of API keys or a suite's file is wrong.
    """
    keys = KeyRing(settings.api_keys_file) if settings.api_keys_file is not None else None
    service = Service(settings=settings, grading=grading, suites=Suites(settings.suites), keys=keys)
    metrics = Metrics(suites=service.suites.names, tenants=keys.tenants if keys else ())
    traces = make_traces()
    service.observer = Observer(metrics, traces)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                stack.push_async_callback(asyncio.to_thread, traces.close)
                stack.push_async_callback(grading.close)
                await grading.start()
                await stack.enter_async_context(observing(service, metrics))
                for part in parts:
                    if part.lifespan is not None:
                        await stack.enter_async_context(part.lifespan(service))
            except Exception as error:
                service.startup_error = error
                raise
            yield

    app = FastAPI(
        title="grader",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        # A redirection would name the host that the client named, and is in no description of the routes.
        redirect_slashes=False,
        telemetry=cast(Any, traces.fastapi),
    )
    app.state.service = service
    routers = [open_router, metrics_router, router, *(part.router for part in parts)]
    routes = [route for each in routers for route in each.routes]
    # Not include_router: what it would add to a router, a prefix or dependencies, is looked for at each request.
    app.router.routes.extend(routes)
    document(app, routes)
    app.state.routes = routes
    app.add_middleware(FrontMiddleware, service=service)
    app.add_middleware(RequestMetrics, metrics=metrics)
    app.add_exception_handler(GraderError, _on_grader_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameters)
    return app


async def _on_grader_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GraderError)
    log_failure(error)
    return _response(problem_of(error, request.state.request_id))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {
        404: "there is nothing at this path; /docs lists what there is",
        405: "this path does not take that method; the Allow header names those it takes",
    }.get(error.status_code, str(error.detail))
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == 405:
        headers["allow"] = ", ".join(sorted(_allowed(request))) or headers.get("allow", "")
    return _response(problem(error.status_code, said, request_id=request.state.request_id, headers=headers))


def _allowed(request: Request) -> set[str]:
    """The methods that a path takes; Starlette names those of the first route alone."""
    path = request.scope["path"]
    return {
        method
        for route in request.app.state.routes
        if isinstance(route, APIRoute) and route.path_regex.match(path)
        for method in route.methods or ()
    }


async def _on_invalid_parameters(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [FieldError(place_of(tuple(one["loc"])), one["msg"]) for one in error.errors()[:20]]
    detail = "; ".join(f"{one.place}: {one.message}" for one in found[:3])
    return _response(problem(422, detail, request_id=request.state.request_id, errors=found))


def _response(found: Problem) -> Response:
    return Response(found.body, found.status, found.headers)
