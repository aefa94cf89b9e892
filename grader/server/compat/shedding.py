"""Refusals for load, drains and rates in a foreign contract's words, wherever they are noticed.

A drain, and a key that sends too much, are noticed before an endpoint runs. Its route gives the answer all the same, so
that a client that knows one way to be told "later" is told in that way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from grader.server.auth import caller_of
from grader.server.compat.running import TOO_MANY_REQUESTS, shed_with
from grader.server.openapi import problems
from grader.server.problems import Refused, draining
from grader.server.refusals import NotedRoute
from grader.server.service import NEW_WORK, Part, Service, service_of

ShedAnswer = Callable[[Request, Refused], Awaitable[Response]]


class SheddingRoute(NotedRoute):
    """A route that says "later" with one ``status``, and in the words of ``answer`` where that is given."""

    status: ClassVar[int] = 503
    answer: ClassVar[ShedAnswer | None] = None

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with the refusals around it."""
        handler, status, answer = super().get_route_handler(), self.status, type(self).answer

        async def shedding(request: Request) -> Response:
            is_work = request.method in NEW_WORK
            try:
                with shed_with(status):
                    if is_work and service_of(request).draining:
                        await caller_of(request)  # strangers are told so, now as ever
                        raise draining()
                    return await handler(request)
            except Refused as error:
                if answer is None or error.status != status or not is_work:
                    raise
                return await answer(request, error)

        return shedding


def shedding_router(tag: str, status: int = 503, answer: ShedAnswer | None = None) -> APIRouter:
    """Make a router whose routes are refused with ``status`` when it is load, a drain or a rate that refuses them, or a
    failure of ours: endpoints need no ``shed_with`` of their own.

    ``answer`` makes the body for routes that take work; by default it is a problem. It is called before the request's
    body is read.
    """
    said = None if answer is None else staticmethod(answer)
    return APIRouter(
        tags=[tag], route_class=type("Route", (SheddingRoute,), {"status": status, "answer": said})
    )


def shed_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return FastAPI's ``responses`` for such a router's routes, which never answer 429."""
    return problems(*(status for status in statuses if status != TOO_MANY_REQUESTS))


def shedding_part(router: APIRouter) -> Part:
    """Make the part of such a router: its routes are asked in a drain, too."""
    paths = [route.path for route in router.routes if isinstance(route, APIRoute)]

    @asynccontextmanager
    async def lifespan(service: Service) -> AsyncIterator[None]:
        service.own_drains.update(paths)
        yield

    return Part(router=router, lifespan=lifespan)
