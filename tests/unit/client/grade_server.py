"""A grader service as the contract has it, on a real socket, that misbehaves when it is told to."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import zstandard
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from grader.limits import Limits
from grader.schema import SuiteIdentity
from grader.scoring.summary import Tally, summarize

STAMP = {"backend": "test", "layers": ["none"]}
SUITE = SuiteIdentity(name="toy", version="1", sha256="0" * 64)
_BODIES: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.decompress,
    "gzip": gzip.decompress,
    "": bytes,
}


@dataclass(frozen=True)
class Refuse:
    """Answer with a problem instead of grading."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    detail: str = "on demand"


@dataclass(frozen=True)
class Break:
    """Send so many verdicts, then break off: ``end`` is reset, close, half_line, no_summary or problem."""

    after: int
    end: str


Mischief = Refuse | Break


@dataclass
class Seen:
    """A request to /v1/grade as it came in."""

    key: str
    sample_ids: list[str]
    encoding: str
    authorization: str
    body: dict[str, Any]


@dataclass
class GradeServer:
    """What the service is told to do, and what it was asked. ``mischief`` is done once each, in order."""

    url: str = ""
    mischief: list[Mischief] = field(default_factory=list)
    max_samples: int = 10**9
    max_bytes: int = 10**9
    seen: list[Seen] = field(default_factory=list)
    jobs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    cursors: list[int] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    reward_keys: list[str] = field(default_factory=list)

    def app(self) -> Any:
        api = FastAPI()
        api.post("/v1/grade")(self.grade)
        api.post("/v1/rewards")(self.rewards)
        api.post("/v1/jobs")(self.submit)
        api.get("/v1/jobs/{job_id}")(self.job)
        api.get("/v1/jobs/{job_id}/verdicts")(self.job_verdicts)
        api.delete("/v1/jobs/{job_id}")(self.delete)
        api.get("/v1/suites")(lambda: {"suites": [{"name": "toy", "version": "1", "news": True}]})
        api.get("/v1/suites/{name}/tasks")(self.tasks)

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope["transport"] = send.__self__.transport
            await api(scope, receive, send)

        return with_transport

    async def grade(self, request: Request) -> Response:
        body = await self._body(request)
        if isinstance(body, Response):
            return body
        samples = body["samples"]
        headers = request.headers
        self.seen.append(
            Seen(
                headers["idempotency-key"],
                [sample["sample_id"] for sample in samples],
                headers.get("content-encoding", ""),
                headers.get("authorization", ""),
                body,
            )
        )
        if len(samples) > self.max_samples:
            return problem(413, f"{len(samples)} samples; {self.max_samples} are allowed")
        mischief = self.mischief.pop(0) if self.mischief else None
        if isinstance(mischief, Refuse):
            return problem(mischief.status, mischief.detail, mischief.headers)
        assert headers["accept"] == "application/x-ndjson"
        lines = self._lines(body, mischief, request)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def _body(self, request: Request) -> Any:
        raw = await request.body()
        decoded = _BODIES[request.headers.get("content-encoding", "")](raw)
        if len(decoded) > self.max_bytes:
            return problem(413, f"{len(decoded)} bytes; {self.max_bytes} are allowed")
        return json.loads(decoded)

    async def _lines(self, body: Any, mischief: Break | None, request: Request) -> AsyncIterator[str]:
        # Completion order is not request order.
        verdicts = [verdict_on(sample) for sample in reversed(body["samples"])]
        for count, verdict in enumerate(verdicts):
            if mischief and count == mischief.after:
                break
            yield json.dumps(verdict) + "\n"
        if mischief is None:
            yield json.dumps(summary_of(verdicts, body.get("k") or [1, 10, 100])) + "\n"
            return
        transport = request.scope["transport"]
        if mischief.end == "half_line":
            yield json.dumps(verdicts[-1])[:25]
        elif mischief.end == "problem":
            yield (
                json.dumps({"type": "/problems/x", "title": "Gone", "status": 503, "detail": "draining"})
                + "\n"
            )
        elif mischief.end in ("reset", "close"):
            await asyncio.sleep(0.05)  # what was written before is on its way
            if mischief.end == "reset":
                own = transport.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

    async def rewards(self, request: Request) -> Response:
        body = await self._body(request)
        if isinstance(body, Response):
            return body
        self.reward_keys.append(request.headers["idempotency-key"])
        if self.mischief:
            refuse = self.mischief.pop(0)
            assert isinstance(refuse, Refuse)
            return problem(refuse.status, refuse.detail, refuse.headers)
        rewards = [None if text == "lost" else float(len(text)) for text in body["completions"]]
        lost = [row for row, reward in enumerate(rewards) if reward is None]
        unjudged = [{"row": row, "type": "CellLostError", "message": "lost"} for row in lost]
        flags: list[list[str]] = [[] for _ in rewards]
        parts = {
            "rewards": rewards,
            "components": [{} for _ in rewards],
            "flags": flags,
            "unjudged": unjudged,
        }
        return JSONResponse({**parts, "new": 1})

    async def submit(self, request: Request) -> Response:
        body = await self._body(request)
        job_id = request.headers["idempotency-key"]
        self.jobs[job_id] = [verdict_on(sample) for sample in body["samples"]]
        return JSONResponse(self._job(job_id), status_code=202)

    async def job(self, job_id: str) -> Response:
        if job_id not in self.jobs:
            return problem(404, "there is no such job")
        return JSONResponse(self._job(job_id))

    async def job_verdicts(
        self, request: Request, job_id: str, after: int = 0, wait: bool = False
    ) -> Response:
        self.cursors.append(after)
        mischief = self.mischief.pop(0) if self.mischief else None

        async def lines() -> AsyncIterator[str]:
            for count, verdict in enumerate(self.jobs[job_id][after:]):
                if isinstance(mischief, Break) and count == mischief.after:
                    await asyncio.sleep(0.05)
                    request.scope["transport"].abort()
                    return
                yield json.dumps(verdict) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def delete(self, request: Request, job_id: str) -> Response:
        if self.jobs.pop(job_id, None) is None:
            return problem(404, "there is no such job")
        self.deleted.append(job_id)
        if self.mischief:
            self.mischief.pop()
            request.scope["transport"].abort()
        return Response(status_code=204)

    async def tasks(self, name: str) -> Response:
        if name != "toy+":
            return problem(404, f"there is no suite {name}")
        row = {"task_id": "Toy/0", "prompt": "p", "entry_point": "f", "groups": ["base"]}
        return JSONResponse({"suite": SUITE.model_dump(), "tasks": [row]})

    def _job(self, job_id: str) -> dict[str, Any]:
        verdicts = self.jobs[job_id]
        return {
            "id": job_id, "state": "done", "samples": len(verdicts), "recorded": len(verdicts),
            "summary": summary_of(verdicts, [1]),
        }  # fmt: skip


def verdict_on(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The solution says what becomes of it: a status, passed if it says nothing."""
    status = sample.get("solution") or "passed"
    passed = status == "passed"
    lost = status == "infrastructure_error"
    group = None if lost else {"status": status, "passed": int(passed), "total": 1, "first_failed": None}
    return {
        "task_id": sample["task_id"], "sample_id": sample["sample_id"], "status": status, "passed": passed,
        "groups": {"base": group}, "reward": None if lost else float(passed), "cpu_s": 0.25, "wall_s": 0.5,
        "peak_memory_bytes": 1, "error": None, "stdout_tail": "", "sandbox": STAMP, "cached": False,
        "attempts": 1, "extraction": None, "from_a_newer_server": True,
    }  # fmt: skip


def summary_of(verdicts: Sequence[Mapping[str, Any]], ks: Sequence[int]) -> dict[str, Any]:
    tally = Tally(("base",))
    for verdict in verdicts:
        tally.add(verdict)
    made = summarize(
        tally, suite=SUITE, ks=ks, wall_s=1.0, limits=Limits(), sandbox=STAMP, engine="local", workers=3
    )
    return made.model_dump(mode="json")


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    fields = {"type": "/problems/test", "title": "Refused in a test", "status": status, "detail": detail}
    return JSONResponse(fields, status, dict(headers or {}), "application/problem+json")


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an ASGI app on a free port of the loopback interface, in a thread."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        options = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(options)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def grade_server(**settings: Any) -> Iterator[GradeServer]:
    server = GradeServer(**settings)
    with serving(server.app()) as url:
        server.url = url
        yield server
