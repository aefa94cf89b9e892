"""The client and the real service, with real cells: what comes over HTTP is what is graded without it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from grader.client import (
    AsyncGraderClient,
    Bounds,
    GraderClient,
    NotFound,
    RequestRefused,
    RequestTooLarge,
    RetryPolicy,
)
from grader.limits import Limits

PATIENT = RetryPolicy(attempts=1000, total_s=300, base_s=0.05, cap_s=0.5)


@dataclass
class Service:
    """``grader serve``, with what it is asked to do in its own order."""

    start: Callable[[int], subprocess.Popen[str]]
    process: subprocess.Popen[str]
    url: str = ""

    def await_url(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            found = json.loads(line)
            if found["event"] == "serving":
                self.url = found["url"]
                return
        raise AssertionError("the service ended before it served")

    def restart(self, how: int) -> None:
        self.process.send_signal(how)
        self.process.communicate(timeout=120)
        self.process = self.start(int(self.url.rpartition(":")[2]))
        self.await_url()


@pytest.fixture
def service(command: Any, tmp_path: Path) -> Iterator[Service]:
    def start(port: int) -> subprocess.Popen[str]:
        where = f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
        process: subprocess.Popen[str] = command.start(
            "serve", "--port", port, "--database-url", where, "--max-body-bytes", 30_000
        )
        return process

    made = Service(start, start(0))
    made.await_url()
    yield made
    made.process.send_signal(signal.SIGTERM)
    made.process.communicate(timeout=120)
    assert made.process.returncode == 0


@pytest.fixture
def samples(starter_samples: Path, starter_expected: dict[str, str]) -> list[dict[str, Any]]:
    """Samples of the starter suite, but for those that take seconds because they never end."""
    rows = map(json.loads, starter_samples.read_text("utf-8").splitlines())
    return [row for row in rows if starter_expected[row["sample_id"]] != "time_limit"]


@pytest.fixture
def expected(command: Any, tools: Any, tmp_path: Path, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What ``grader score`` says."""
    graded = command.score(tools.write_lines(tmp_path / "samples.jsonl", samples), "starter")
    found: dict[str, Any] = tools.judged(graded)
    return found


def judged(tools: Any, verdicts: Any) -> dict[str, Any]:
    rows = [verdict.model_dump(mode="json") for verdict in verdicts]
    assert {row.pop("flags") for row in rows} == {None}  # which files have only where they are asked for
    found: dict[str, Any] = tools.judged(rows)
    return found


def test_both_clients_get_the_verdicts_of_the_command_line(
    service: Service, samples: list[dict[str, Any]], expected: dict[str, Any], tools: Any
) -> None:
    told: list[int] = []
    with GraderClient(service.url, retries=PATIENT) as client:
        result = client.grade(
            samples, "starter", k=[1], progress=lambda done, total: told.append(total - done)
        )
    assert judged(tools, result.verdicts) == expected
    assert [verdict.task_id for verdict in result.verdicts] == [sample["task_id"] for sample in samples]
    assert told == list(range(len(samples), -1, -1))
    assert (result.summary.samples, result.summary.infrastructure_errors) == (len(samples), 0)

    async def both() -> Any:
        async with AsyncGraderClient(service.url, retries=PATIENT, bounds=Bounds(samples=7)) as client:
            stream = client.stream(samples, "starter", k=[1])
            pieces, whole = await asyncio.gather(collect(stream), client.grade(samples, "starter", k=[1]))
            return pieces, stream.result, whole

    async def collect(stream: Any) -> list[Any]:
        return [verdict async for verdict in stream]

    pieces, merged, whole = asyncio.run(both())
    assert judged(tools, pieces) == judged(tools, whole.verdicts) == expected
    for summary in (merged, whole.summary):
        assert summary.pass_at_k == result.summary.pass_at_k
        assert summary.statuses == result.summary.statuses
        assert summary.suite == result.summary.suite


def test_a_batch_above_the_servers_cap_is_split_and_one_sample_refused(
    service: Service, samples: list[dict[str, Any]], expected: dict[str, Any], tools: Any
) -> None:
    padded = [{**sample, "sample_id": str(number)} for number, sample in enumerate(samples)]
    for sample in padded:
        key = "solution" if "solution" in sample else "completion"
        sample[key] += "\n#" + "x" * 4_000
    with GraderClient(service.url, retries=PATIENT) as client:
        result = client.grade(padded, "starter")
        assert len(result.verdicts) == len(padded)
        large = {"task_id": samples[0]["task_id"], "solution": "#" * 40_000}
        with pytest.raises(RequestTooLarge, match=r"30000"):
            client.grade([large], "starter")
        with pytest.raises(RequestRefused, match="no task"):
            client.grade([{"task_id": "Nothing/1", "solution": ""}], "starter")
        with pytest.raises(NotFound):
            client.tasks("nothing")
        few = [sample for sample in samples if "solution" in sample][:3]
        rewarded = client.rewards(
            suite="starter",
            task_ids=[sample["task_id"] for sample in few],
            completions=[sample["solution"] for sample in few],
            limits=Limits(time_floor_s=2.0),
        )
        assert rewarded.rewards == [expected[sample["sample_id"]]["reward"] for sample in few]
        assert "starter" in {suite.name for suite in client.suites()}
        assert {task.task_id for task in client.tasks("starter")} >= {sample["task_id"] for sample in samples}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_stream_and_a_job_outlive_the_service(
    service: Service, samples: list[dict[str, Any]], expected: dict[str, Any], tools: Any, how: int
) -> None:
    with GraderClient(service.url, retries=PATIENT) as client:
        job = client.submit_job(samples, "starter", k=[1], idempotency_key="the-only-one")
        stream = client.stream(samples, "starter", k=[1])
        seen = [next(stream)]
        followed = client.job_verdicts(job.id, follow=True)
        of_job = [next(followed)]
        service.restart(how)
        seen += list(stream)
        of_job += list(followed)
        assert client.submit_job(samples, "starter", k=[1], idempotency_key="the-only-one").id == job.id
        ended = client.wait_job(job.id)
        assert judged(tools, seen) == judged(tools, of_job) == expected
        assert followed.result == ended.recorded == len(samples)
        assert ended.summary is not None
        assert stream.result is not None
        assert ended.summary.pass_at_k == stream.result.pass_at_k
        client.delete_job(job.id)
        with pytest.raises(NotFound):
            client.job(job.id)
