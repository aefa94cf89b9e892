"""Traces, as a collector gets them: sent over HTTP to a small receiver."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from grader.errors import InputError
from grader.telemetry.traces import ENDPOINT_VARIABLES, Traces, make_traces

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        spans: list[Any] = []
        resources: list[Any] = []
        self.spans, self.resources = spans, resources

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    resources.append(resource.resource)
                    spans.extend(span for scope in resource.scope_spans for span in scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def named(self, name: str) -> Any:
        (span,) = [span for span in self.spans if span.name == name]
        return span


@pytest.fixture(autouse=True)
def no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *ENDPOINT_VARIABLES,
        "OTEL_SDK_DISABLED",
        "OTEL_SERVICE_NAME",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


async def verdicts(seen: list[Any], traces: Traces, fail: bool) -> AsyncIterator[list[dict[str, Any]]]:
    seen.append(traces.carrier())
    for together in (("passed",), ("wrong_answer", "passed")):
        yield [{"status": status, "wall_s": 0.0} for status in together]
    if fail:
        raise RuntimeError("with a program in its text")


def app_with(traces: Traces, carriers: list[Any]) -> FastAPI:
    app = FastAPI(telemetry=traces.fastapi)

    @app.post("/v1/grade/{how}")
    async def grade(how: str) -> int:
        source = verdicts(carriers, traces, fail=how == "fails")
        batch = traces.batch(source, request_id="r1", suite="toy", samples=3)
        found = []
        try:
            async for together in batch:
                found += together
                if how == "leaves":
                    break
        except RuntimeError:
            pass
        await batch.aclose()  # type: ignore[attr-defined]
        return len(found)

    @app.get("/healthz")
    async def healthz() -> str:
        return "alive"

    return app


def ask(app: FastAPI, *requests: tuple[str, str]) -> list[Any]:
    async def run() -> list[Any]:
        headers = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            return [(await client.request(method, path)).json() for method, path in requests]

    return asyncio.run(run())


def attributes(span: Any) -> dict[str, Any]:
    return {
        pair.key: pair.value.string_value or pair.value.int_value or pair.value.bool_value
        for pair in span.attributes
    }


def test_a_request_and_its_batch_are_traced_once(collector: Collector) -> None:
    traces = make_traces()
    carriers: list[Any] = []
    assert ask(app_with(traces, carriers), ("POST", "/v1/grade/well"), ("GET", "/healthz")) == [3, "alive"]
    with traces.continued(carriers[0], "grader.worker"):
        pass
    traces.close()
    assert sorted(span.name for span in collector.spans) == [
        "POST /v1/grade/{how}", "grader.grade", "grader.queue", "grader.worker",
    ]  # fmt: skip
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE_ID}
    request, queue, grade = map(collector.named, ("POST /v1/grade/{how}", "grader.queue", "grader.grade"))
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert queue.parent_span_id == grade.parent_span_id == request.span_id
    assert queue.end_time_unix_nano == grade.start_time_unix_nano
    assert collector.named("grader.worker").parent_span_id == queue.span_id
    found = attributes(grade)
    assert (found["grader.request_id"], found["grader.suite"], found["grader.samples"]) == ("r1", "toy", 3)
    assert (found["grader.verdicts.passed"], found["grader.verdicts.wrong_answer"]) == (2, 1)
    assert {"service.name": "grader"}.items() <= attributes(collector.resources[0]).items()


def test_a_batch_that_fails_or_is_left_says_so(collector: Collector) -> None:
    traces = make_traces()
    assert ask(app_with(traces, []), ("POST", "/v1/grade/fails"), ("POST", "/v1/grade/leaves")) == [3, 1]
    traces.close()
    failed, left = (span for span in collector.spans if span.name == "grader.grade")
    assert failed.status.code == 2
    assert attributes(failed)["error.type"] == "RuntimeError"
    assert left.status.code == 0
    assert attributes(left)["grader.cancelled"] is True
    assert not any(b"with a program" in span.SerializeToString() for span in collector.spans)


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "FASTAPI_OTEL_AUTO_CONFIGURE", "true"
    )  # FastAPI is not to make traces of its own either
    traces = make_traces()
    carriers: list[Any] = []
    assert ask(app_with(traces, carriers), ("POST", "/v1/grade/well")) == [3]
    assert carriers == [{}]
    with traces.continued({}, "x"):
        traces.close()


def test_without_an_endpoint_the_sdk_is_not_even_imported() -> None:
    said = (
        "import sys; from grader.telemetry import traces; traces.make_traces(); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ended = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_an_endpoint_without_the_sdk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/v1/traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InputError, match=r"pip install '\.\[traces\]'"):
        make_traces()


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(InputError, match="http/protobuf"):
        make_traces()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert make_traces().carrier() == {}
