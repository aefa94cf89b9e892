"""OpenTelemetry traces, when an endpoint for them is set, and nothing at all when none is.

The spans of requests are FastAPI's own (it has them since 0.142): no instrumentation is added to them, so none comes
twice. Ours are below them: ``grader.queue`` from a batch's arrival to the start of its first program, and
``grader.grade`` from there to its last verdict. The other OTEL_* variables are obeyed by the SDK.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, cast

from grader.errors import InputError
from grader.version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
UNTRACED_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_NS = 1_000_000_000

Verdicts = AsyncIterator[list[dict[str, Any]]]
Carrier = dict[str, str]


class Traces(Protocol):
    """What the service asks of traces."""

    @property
    def fastapi(self) -> dict[str, Any]:
        """The settings for ``FastAPI(telemetry=...)``."""

    def batch(self, verdicts: Verdicts, *, request_id: str, suite: str, samples: int) -> Verdicts:
        """Pass verdicts on, and trace how long their batch waited and was graded.

        The iterator's first step, in which the dispatcher takes the batch, runs inside the ``grader.queue`` span.
        """

    def carrier(self) -> Carrier:
        """Return the current trace context as W3C headers, to be sent to another process; empty without a trace."""

    def continued(self, carrier: Mapping[str, str], name: str) -> AbstractContextManager[Any]:
        """Open a span below the one that a carrier was made in."""

    def close(self) -> None:
        """Send what is left; waits for it, up to the exporter's time-out."""


def make_traces(service_name: str = "grader") -> Traces:
    """Return traces that go to the OTLP endpoint in the environment, or that go nowhere if none is set.

    Raises InputError where one is set and OpenTelemetry's SDK is not installed, or for another protocol than
    ``http/protobuf``.
    """
    if not any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        return _NoTraces()
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return _NoTraces()
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL"
    )
    if protocol and protocol != "http/protobuf":
        raise InputError(
            f"traces cannot be sent by {protocol!r}; set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InputError(
            "an endpoint for traces is set in the environment, but OpenTelemetry is not installed: "
            "pip install '.[traces]' in the grader's source folder, or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME") or service_name
    resource = Resource.create({"service.name": name, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return _OtlpTraces(provider)


def _is_untraced(scope: MutableMapping[str, Any]) -> bool:
    return scope.get("path") in UNTRACED_PATHS


# FastAPI's metrics and logs stay off: ours are in metrics.py and logs.py, and its logs quote exceptions as they are.
_FASTAPI_OFF: dict[str, Any] = {
    "tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False,
}  # fmt: skip


class _NoTraces:
    @property
    def fastapi(self) -> dict[str, Any]:
        return dict(_FASTAPI_OFF)

    def batch(self, verdicts: Verdicts, *, request_id: str, suite: str, samples: int) -> Verdicts:
        return verdicts

    def carrier(self) -> Carrier:
        return {}

    def continued(self, carrier: Mapping[str, str], name: str) -> AbstractContextManager[Any]:
        return nullcontext()

    def close(self) -> None:
        pass


class _OtlpTraces:
    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer: Tracer = provider.get_tracer("grader", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @property
    def fastapi(self) -> dict[str, Any]:
        return {**_FASTAPI_OFF, "tracing": True, "tracer_provider": self._provider, "exclude": _is_untraced}

    async def batch(self, verdicts: Verdicts, *, request_id: str, suite: str, samples: int) -> Verdicts:
        spans = _BatchSpans(
            self._tracer,
            {"grader.request_id": request_id, "grader.suite": suite, "grader.samples": samples},
        )
        error: BaseException | None = None
        try:
            async with aclosing(cast(Any, verdicts)) as source:
                while True:
                    with spans.current():
                        done = await anext(source, None)
                    if done is None:
                        return
                    for verdict in done:
                        spans.take(verdict)
                    yield done
        except BaseException as raised:
            error = raised
            raise
        finally:
            spans.end(error)

    def carrier(self) -> Carrier:
        found: Carrier = {}
        self._propagator.inject(found)
        return found

    def continued(self, carrier: Mapping[str, str], name: str) -> AbstractContextManager[Any]:
        return self._tracer.start_as_current_span(name, context=self._propagator.extract(dict(carrier)))

    def close(self) -> None:
        self._provider.shutdown()


class _BatchSpans:
    """The two spans of a batch, one after the other, both below the span that is current now."""

    def __init__(self, tracer: Tracer, attributes: Mapping[str, Any]) -> None:
        from opentelemetry import context

        self._tracer = tracer
        self._attributes = dict(attributes)
        self._parent: Context = context.get_current()
        self._began = time.time_ns()
        self._statuses: dict[str, int] = {}
        self._span: Span = self._open("grader.queue", self._began)
        self._is_graded = False

    def current(self) -> AbstractContextManager[Any]:
        """Make the open span the current one."""
        from opentelemetry.trace import use_span

        return use_span(self._span, record_exception=False, set_status_on_exception=False)

    def take(self, verdict: Mapping[str, Any]) -> None:
        """Count a verdict. The first one ends the waiting, at the time at which its program was started."""
        status = str(verdict["status"])
        self._statuses[status] = self._statuses.get(status, 0) + 1
        if not self._is_graded:
            started = max(self._began, time.time_ns() - int(verdict["wall_s"] * _NS))
            self._span.end(started)
            self._span = self._open("grader.grade", started)
            self._is_graded = True

    def end(self, error: BaseException | None) -> None:
        """End the open span; ``error`` is why the grading did not come to its end."""
        from opentelemetry.trace import Status, StatusCode

        for status, count in self._statuses.items():
            self._span.set_attribute(f"grader.verdicts.{status}", count)
        if isinstance(error, Exception):
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(Status(StatusCode.ERROR))
        elif error is not None:
            self._span.set_attribute("grader.cancelled", True)
        self._span.end()

    def _open(self, name: str, start: int) -> Span:
        return self._tracer.start_span(
            name, context=self._parent, attributes=self._attributes, start_time=start
        )
