"""What metrics and traces see of the grading: every verdict, as it passes."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response

from grader.dispatch.contract import Batch, PoolState, VerdictFields, Verdicts
from grader.errors import GraderError, OverloadedError
from grader.server.service import Service, service_of
from grader.status import Status
from grader.telemetry.logs import bound
from grader.telemetry.metrics import Metrics
from grader.telemetry.requests import polled
from grader.telemetry.traces import Traces
from grader.worker.execution import Executed
from grader.worker.grading import BROKEN_TESTS

_log = structlog.get_logger("grader.server")

_STATE_EVERY_S = 1.0

metrics_router = APIRouter(tags=["health"])


@dataclass(frozen=True, slots=True)
class Observer:
    """Counts and traces verdicts."""

    metrics: Metrics
    traces: Traces

    def traced(self, batch: Batch, graded: AsyncIterator[Verdicts]) -> AsyncIterator[Verdicts]:
        """Pass the verdicts of what is run on."""
        named = {"request_id": batch.request_id, "suite": batch.suite.name}
        return self.traces.batch(graded, **named, samples=len(batch.programs))

    async def counted(self, batch: Batch, graded: AsyncIterator[Verdicts]) -> AsyncGenerator[Verdicts, None]:
        """Pass a batch's verdicts on, and count those that arrive; the batch counts as arrived now."""
        began = time.monotonic()
        async with aclosing(cast(Any, graded)):
            async for verdicts in graded:
                passed_s = time.monotonic() - began
                self.metrics.verdicts(verdicts, suite=batch.suite.name, end_to_end_s=passed_s)
                for verdict in verdicts:
                    if verdict["status"] == Status.INFRASTRUCTURE_ERROR and not verdict["cached"]:
                        _log_our_failure(verdict)
                yield verdicts

    def unjudged(self, batch: Batch, verdicts: Verdicts, *, end_to_end_s: float) -> None:
        """Count verdicts that were made because the grading gave none. ``end_to_end_s``: since the request, seconds."""
        self.metrics.verdicts(verdicts, suite=batch.suite.name, end_to_end_s=end_to_end_s)

    async def run(self, running: Awaitable[Executed]) -> Executed:
        """Wait for the run of a program that is not judged, and count it; it counts as arrived now."""
        began = time.monotonic()
        try:
            executed = await running
        except OverloadedError:
            self.metrics.run("not_started", time.monotonic() - began)
            raise
        except GraderError:
            self.metrics.run("failed", time.monotonic() - began)
            raise
        passed_s = time.monotonic() - began
        self.metrics.run(executed.ended, passed_s, wall_s=executed.wall_s, cpu_s=executed.cpu_s)
        return executed


def _log_our_failure(verdict: VerdictFields) -> None:
    """Log a sample that could not be graded, if neither its tests nor its client's patience are the reason."""
    error = verdict["error"] or {"type": "", "message": ""}
    kind = error["type"]
    if kind not in (BROKEN_TESTS, "DeadlineExceeded"):
        why = str(error["message"]).partition("\n")[0]
        with bound(sample_id=verdict["sample_id"]):
            _log.error("cannot_grade", error_type=kind, error=why)


@asynccontextmanager
async def observing(service: Service, metrics: Metrics) -> AsyncIterator[None]:
    """Look at the pool's state, and at who the tenants are, once a second for as long as the context lasts."""

    def state() -> PoolState:
        if service.keys is not None:
            metrics.tenants = service.keys.tenants
        return service.grading.state()

    async with polled(metrics, state, every_s=_STATE_EVERY_S):
        yield


@metrics_router.get("/metrics", response_class=Response, include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Show the metrics, in Prometheus' format or in OpenMetrics'."""
    observer = service_of(request).observer
    assert observer is not None
    body, media_type = observer.metrics.exposition(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": media_type})
