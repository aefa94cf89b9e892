"""What the parts of the running service share, and the seam for parts that are written elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter, Request

from grader.dedupe import Families
from grader.dispatch.contract import Batch, Grading, Verdicts
from grader.server.deduped import grade_once
from grader.server.settings import ServerSettings
from grader.server.suites import Suites

if TYPE_CHECKING:
    from grader.server.auth import KeyRing
    from grader.server.observed import Observer

# A program that waits for an identical one takes no room in the dispatcher's queue, whose bounds are beside this one.
_MOST_WAITING = 65_536

NEW_WORK = ("POST", "PUT", "PATCH")
"""The methods that bring work; in a drain they are refused."""

UNKNOWN_STAMP: Mapping[str, Any] = {"backend": "unknown", "layers": ()}


@dataclass(slots=True)
class Service:
    """The running service. ``draining``: it takes no new work. ``active`` counts the requests under way.

    ``startup_error`` is what kept it from starting. ``observer`` counts and traces what is graded. ``own_drains``: the
    paths whose routes refuse new work in a drain themselves. ``families``: the programs that are graded now, so that
    identical ones of several requests are run once.
    """

    settings: ServerSettings
    grading: Grading
    suites: Suites
    keys: KeyRing | None = None
    draining: bool = False
    active: int = 0
    startup_error: Exception | None = None
    observer: Observer | None = None
    shared: dict[str, Any] = field(default_factory=dict)
    own_drains: set[str] = field(default_factory=set)
    families: Families = field(default_factory=lambda: Families(_MOST_WAITING))

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count a request, for as long as the context lasts."""
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    def grade(self, batch: Batch, *, once: bool = False) -> AsyncGenerator[Verdicts, None]:
        """Grade a batch as ``grading.grade`` does, seen by metrics and traces.

        ``once``: identical programs of a task are run once, also those of a tenant's batches that are graded at the
        same time; see ``grader.server.deduped``.
        """
        graded = grade_once(self._run, batch, self.families) if once else self._run(batch)
        counted = graded if self.observer is None else self.observer.counted(batch, graded)
        return cast("AsyncGenerator[Verdicts, None]", counted)

    def _run(self, batch: Batch) -> AsyncIterator[Verdicts]:
        graded = self.grading.grade(batch)
        return graded if self.observer is None else self.observer.traced(batch, graded)

    @property
    def stamp(self) -> Mapping[str, Any]:
        """What isolates the programs; backend "unknown" as long as no worker is ready."""
        return self.grading.stamp or UNKNOWN_STAMP

    @property
    def workers(self) -> int:
        """How many workers can grade, or soon can."""
        return sum(count for state, count in self.grading.state().workers.items() if state != "lost")


Lifespan = Callable[[Service], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the service: its routes, and what runs as long as the service does.

    ``lifespan`` is entered after the grading has been started, and left before it is closed.
    """

    router: APIRouter = field(default_factory=APIRouter)
    lifespan: Lifespan | None = None


def service_of(request: Request) -> Service:
    """Return the service that a request came to."""
    return cast(Service, request.app.state.service)
