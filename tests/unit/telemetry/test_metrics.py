"""What /metrics shows, and that nobody from outside can make it grow."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, HTTPException, Response
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from grader.dispatch.contract import PoolState
from grader.status import Status
from grader.telemetry.metrics import Metrics
from grader.telemetry.requests import RequestMetrics, note_no_room, polled

VERDICT = {"status": "passed", "wall_s": 0.25, "cpu_s": 0.1, "cached": False}


def shown(metrics: Metrics) -> dict[str, dict[str, float]]:
    """Each sample's value, by name and by the values of its labels."""
    text, _ = metrics.exposition()
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = " ".join(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[key] = sample.value
    return found


def busy() -> Metrics:
    """Metrics that have seen something of everything."""
    metrics = Metrics(suites=["humaneval+"], tenants=["trainers"])
    metrics.verdicts([VERDICT, {**VERDICT, "cached": True}], suite="humaneval+", end_to_end_s=0.75)
    unjudged = {**VERDICT, "status": Status.INFRASTRUCTURE_ERROR, "wall_s": 0.0, "cpu_s": 0.0}
    metrics.verdicts([unjudged], suite="inline", end_to_end_s=60)
    metrics.request("/v1/grade", "POST", 200, 0.8)
    metrics.request("/v1/grade", "POST", 0, 0.1)
    metrics.refused("/v1/grade")
    metrics.pool(
        PoolState(
            workers={"ready": 2, "busy": 1},
            cells={"ready": 3},
            queued={
                ("trainers", "interactive"): 7,
                ("somebody", "background"): 1,
                ("anybody", "background"): 2,
            },
            running=4,
            retries={"cell_lost": 5, "a new one": 1},
        )
    )
    return metrics


def test_verdicts_and_their_times() -> None:
    found = shown(busy())
    assert found["grader_verdicts_total"]["passed humaneval+"] == 2
    assert found["grader_verdicts_total"]["infrastructure_error inline"] == 1
    assert found["grader_cache_hits_total"]["humaneval+"] == 1
    assert found["grader_end_to_end_seconds_count"] == {"humaneval+": 2, "inline": 1}
    assert found["grader_end_to_end_seconds_sum"] == {"humaneval+": 1.5, "inline": 60}
    for name, total in (("queue_wait", 0.5), ("grading_wall", 0.25), ("grading_cpu", 0.1)):
        assert found[f"grader_{name}_seconds_sum"]["humaneval+"] == total
        # A cached verdict was not run.
        assert found[f"grader_{name}_seconds_count"]["humaneval+"] == 1
    # One that waited until its deadline is what an alert on the wait is for; it has no times of grading.
    assert found["grader_queue_wait_seconds_sum"]["inline"] == 60
    for name in ("grading_wall", "grading_cpu"):
        assert found[f"grader_{name}_seconds_count"].get("inline", 0) == 0


def test_buckets_go_from_a_millisecond_to_ten_minutes() -> None:
    text = busy().exposition()[0].decode()
    bounds = re.findall(r'grader_grading_wall_seconds_bucket{le="([^"]+)",suite="humaneval\+"}', text)
    assert (bounds[0], bounds[-2:]) == ("0.001", ["600.0", "+Inf"])


def test_the_pool() -> None:
    metrics = busy()
    found = shown(metrics)
    assert found["grader_workers"] == {"starting": 0, "ready": 2, "busy": 1, "lost": 0, "refused": 0}
    assert found["grader_cells"]["ready"] == 3
    assert found["grader_running_samples"][""] == 4
    assert found["grader_queue_depth_samples"] == {
        "interactive trainers": 7, "background trainers": 0, "interactive anonymous": 0, "background anonymous": 0,
        "background other": 3,
    }  # fmt: skip
    assert found["grader_retries_total"] == {
        "worker_lost": 0, "cell_lost": 5, "blamed": 0, "put_back": 0, "hedged": 0, "other": 1,
    }  # fmt: skip
    assert found["grader_pool_failed"][""] == 0
    metrics.pool(PoolState(failure="no cell can be made"))
    assert shown(metrics)["grader_pool_failed"][""] == 1
    metrics.tenants = ["somebody"]  # type: ignore[assignment]
    assert "interactive somebody" in shown(metrics)["grader_queue_depth_samples"]


def test_runs_without_a_verdict_are_counted() -> None:
    metrics = Metrics()
    metrics.run("exited", 0.75, wall_s=0.5, cpu_s=0.25)
    metrics.run("time_limit", 2.0, wall_s=1.5, cpu_s=1.0)
    metrics.run("not_started", 60.0)
    metrics.run("a new one", 1.0)
    found = shown(metrics)
    assert found["grader_runs_total"] == {"exited": 1, "time_limit": 1, "not_started": 1, "other": 1}
    for name, total in (
        ("queue_wait", 0.75),
        ("grading_wall", 2.0),
        ("grading_cpu", 1.25),
        ("end_to_end", 2.75),
    ):
        assert found[f"grader_{name}_seconds_sum"] == {"run": total}
        assert found[f"grader_{name}_seconds_count"] == {"run": 2}
    assert "grader_verdicts_total" not in found


def test_two_services_do_not_meet() -> None:
    assert "grader_verdicts_total" not in shown(Metrics())
    assert shown(busy())["grader_build_info"] == shown(Metrics())["grader_build_info"]


@pytest.mark.parametrize(
    ("accept", "media_type", "end"),
    [
        ("", "text/plain", b"\n"),
        ("text/html, */*", "text/plain", b"\n"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", b"# EOF\n"),
    ],
)
def test_the_format_is_what_is_asked_for(accept: str, media_type: str, end: bytes) -> None:
    text, found = busy().exposition(accept)
    assert found.startswith(media_type)
    assert text.endswith(end)
    assert b"_created" not in text


@settings(max_examples=25)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "suite": st.text(),
                "tenant": st.text(),
                "status": st.text(),
                "method": st.text(),
                "code": st.integers(),
            }
        ),
        min_size=30,
        max_size=60,
    )
)
def test_no_label_grows_by_what_outsiders_send(requests: list[dict[str, Any]]) -> None:
    metrics = Metrics(suites=["toy"], tenants=["known"])
    metrics.verdicts([{**VERDICT, "status": "odd"}], suite="toy", end_to_end_s=1)
    metrics.verdicts([{**VERDICT, "status": "odd"}], suite="odd", end_to_end_s=1)
    for request in requests:
        metrics.verdicts([{**VERDICT, "status": request["status"]}], suite=request["suite"], end_to_end_s=1)
        metrics.request("/v1/grade", request["method"], request["code"], 0.1)
        metrics.pool(
            PoolState(queued={(request["tenant"], request["status"]): 1}, retries={request["suite"]: 1})
        )
    found = shown(metrics)
    assert len(found["grader_verdicts_total"]) <= 2 * (len(Status) + 1) + len(Status) + 1
    assert len(found["grader_http_requests_total"]) <= 8 * 6
    assert len(found["grader_queue_depth_samples"]) <= 2 * 2 + 3
    assert len(found["grader_retries_total"]) <= 6


def test_requests_are_counted_by_template() -> None:
    metrics, app, jobs = Metrics(), FastAPI(), APIRouter(prefix="/v1/jobs")

    @jobs.get("/{job_id}")
    async def job(job_id: str) -> str:
        if job_id == "full":
            raise HTTPException(429)
        if job_id == "broken":
            raise RuntimeError("on purpose")
        if job_id == "shed":
            note_no_room()
            raise HTTPException(504)
        return job_id

    @app.get("/metrics")
    async def exposition() -> Response:
        text, media_type = metrics.exposition()
        return Response(text, media_type=media_type)

    app.include_router(jobs)
    app.add_middleware(RequestMetrics, metrics=metrics)  # type: ignore[arg-type]

    async def run() -> str:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path in ("1", "2", "full", "broken", "shed"):
                await client.get(f"/v1/jobs/{path}")
            await client.get("/v1/elsewhere")
            await client.request("BREW", "/v1/jobs/1")
            return (await client.get("/metrics")).text

    assert "grader_http_request_seconds_bucket" in asyncio.run(run())
    found = shown(metrics)
    assert found["grader_http_requests_total"] == {
        "GET /v1/jobs/{job_id} 2xx": 2, "GET /v1/jobs/{job_id} 4xx": 1, "GET /v1/jobs/{job_id} 5xx": 2,
        "GET unmatched 4xx": 1, "other /v1/jobs/{job_id} 4xx": 1, "GET /metrics 2xx": 1,
    }  # fmt: skip
    assert found["grader_backpressure_refusals_total"] == {"/v1/jobs/{job_id}": 2}


@dataclass
class Grading:
    asked: int = 0
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    def state(self) -> PoolState:
        self.asked += 1
        if self.asked == 2:
            raise RuntimeError("for once")
        if self.asked == 4:
            self.enough.set()
        return PoolState(running=self.asked)


def test_the_pool_is_polled_and_a_scrape_asks_nobody() -> None:
    metrics = Metrics()

    async def run() -> Grading:
        grading = Grading()
        async with polled(metrics, grading.state, every_s=0.001):
            await grading.enough.wait()
        return grading

    grading = asyncio.run(run())
    asked = grading.asked
    assert shown(metrics)["grader_running_samples"][""] == asked
    assert grading.asked == asked


def test_promtool_accepts_it() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        reason = "needs promtool, which comes with Debian's package prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    text, _ = busy().exposition()
    ended = subprocess.run([promtool, "check", "metrics"], check=False, input=text, capture_output=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
