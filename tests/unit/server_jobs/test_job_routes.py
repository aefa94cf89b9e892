"""The routes of jobs, in a running application."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import uvicorn
import zstandard
from job_service import DEADLINE_S, LoggingGrading, Options, body_of, expected_status, wait_until

from grader.dispatch.contract import Batch, VerdictFields
from grader.errors import InfrastructureError, SuiteError
from grader.rewards import PassRates, group_features
from grader.schema import Summary, Verdict
from grader.server.app import create_app
from grader.server.jobs.errors import too_much_kept
from grader.server.jobs.followers import LOOK_EVERY_S
from grader.server.jobs.models import JobAnswer, JobsAnswer
from grader.server.jobs.part import jobs_part
from grader.server.jobs.records import Bounds
from grader.server.jobs.runner import RunnerSettings
from grader.server.jobs.store import JobStore
from grader.server.rewards import rewards_router
from grader.server.service import Part
from grader.server.settings import ServerSettings
from grader.suites import registry
from grader.suites.task import Suite
from grader.telemetry.logs import configure

SETTINGS = RunnerSettings(
    retry_s=0.01, poll_s=0.05, sweep_s=0.05, missing_suite_s=0.05, bounds=Bounds(unfinished_jobs=20)
)
FAST = {"sample_s": 0.0}
OWN_SUITE_TASK = {
    "task_id": "add",
    "prompt": "",
    "entry_point": "add",
    "canonical_solution": "def add(a, b):\n    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}


@contextmanager
def client_of(url: str, settings: ServerSettings | None = None, **options: Any) -> Iterator[httpx.Client]:
    """Serve in a thread, and give a client of it."""
    grading = LoggingGrading(Options(url, **{**FAST, **options}))
    app = create_app(
        settings or ServerSettings(), grading, [Part(router=rewards_router()), jobs_part(url, SETTINGS)]
    )
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), "the server listens")
            base = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with httpx.Client(base_url=base, timeout=DEADLINE_S) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def client(sqlite_url: str) -> Iterator[httpx.Client]:
    with client_of(sqlite_url) as client:
        yield client


def posted(client: httpx.Client, body: dict[str, Any], **headers: str) -> str:
    answer = client.post("/v1/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    job = JobAnswer.model_validate_json(answer.text)
    assert answer.headers["location"] == f"/v1/jobs/{job.id}"
    return job.id


def done(client: httpx.Client, job: str) -> JobAnswer:
    def ended() -> JobAnswer | None:
        shown = JobAnswer.model_validate_json(client.get(f"/v1/jobs/{job}").text)
        return shown if shown.state in ("done", "failed") else None

    found: JobAnswer = wait_until(ended, "the job has ended")
    return found


def lines(client: httpx.Client, job: str, **parameters: Any) -> list[Verdict]:
    answer = client.get(f"/v1/jobs/{job}/verdicts", params=parameters)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [Verdict.model_validate_json(line) for line in answer.text.splitlines()]


def test_job_from_beginning_to_end(client: httpx.Client) -> None:
    job = posted(client, body_of(100, k=[1, 5]))
    followed = lines(client, job, wait=True)
    assert sorted(v.sample_id for v in followed) == sorted(f"s{n}" for n in range(100))
    assert all(v.status == expected_status(v.sample_id) for v in followed)
    shown = done(client, job)
    assert (shown.state, shown.samples, shown.recorded) == ("done", 100, 100)
    assert isinstance(shown.summary, Summary)
    assert shown.summary.statuses == shown.statuses == {"passed": 66, "wrong_answer": 34}
    assert list(shown.summary.pass_at_k["base"]) == ["1", "5"]
    assert lines(client, job) == followed
    for after in (0, 1, 99, 100, 101):
        assert lines(client, job, after=after) == followed[after:]


def test_metrics_count_the_verdicts_of_jobs(client: httpx.Client) -> None:
    done(client, posted(client, body_of(100)))
    counted = [line for line in client.get("/metrics").text.splitlines() if "grader_verdicts_total{" in line]
    assert sum(float(line.split()[-1]) for line in counted) == 100


def test_job_gives_the_verdicts_of_a_grade_request(client: httpx.Client) -> None:
    body = body_of(30, use_cache=True)
    graded = client.post("/v1/grade", json=body).json()
    job = posted(client, body)
    by_id = {v["sample_id"]: v for v in graded["verdicts"]}
    assert {v.sample_id: v for v in lines(client, job, wait=True)} == {
        name: Verdict.model_validate_json(json.dumps(v)) for name, v in by_id.items()
    }
    summary = done(client, job).summary
    assert summary is not None
    same = {
        "suite",
        "samples",
        "tasks",
        "pass_at_k",
        "pass_at_k_ci95",
        "statuses",
        "limits",
        "sandbox",
        "engine",
    }
    assert summary.model_dump(include=same, mode="json") == {key: graded["summary"][key] for key in same}


def test_samples_without_ids_and_completions(client: httpx.Client) -> None:
    completion = "Here it is:\n```python\ndef f():\n    return 'wrong'\n```\n"
    samples = [
        {"task_id": "Starter/1", "solution": "x = 1"},
        {"task_id": "Starter/1", "completion": completion},
    ]
    job = posted(client, {"suite": "starter", "samples": samples})
    found = {v.sample_id: v.status for v in lines(client, job, wait=True)}
    assert found == {"Starter/1:0": "passed", "Starter/1:1": "wrong_answer"}


@pytest.mark.parametrize("asked", [True, False])
def test_verdicts_have_flags_where_they_are_asked_for(client: httpx.Client, asked: bool) -> None:
    task = next(iter(registry.load("starter").tasks))
    sources = ("x = 1", "import os\ndef f():\n    os._exit(0)\n")
    samples = [{"task_id": task, "sample_id": str(n), "solution": text} for n, text in enumerate(sources)]
    job = posted(client, {"suite": "starter", "samples": samples, "include_flags": asked})
    assert done(client, job).state == "done"
    found = {verdict.sample_id: verdict.flags for verdict in lines(client, job)}
    assert found == ({"0": (), "1": ("exit_call",)} if asked else {"0": None, "1": None})


def test_samples_with_tests_of_their_own_keep_their_names(client: httpx.Client) -> None:
    tests = {"kind": "stdio", "inputs": ["1"], "outputs": ["1"]}
    samples = [{"task_id": f"mine/{n}", "solution": f"x = {n}", "tests": tests} for n in range(3)]
    graded = client.post("/v1/grade", json={"samples": samples})
    assert graded.status_code == 200, graded.text
    job = posted(client, {"samples": samples})
    assert sorted(v.task_id for v in lines(client, job, wait=True)) == ["mine/0", "mine/1", "mine/2"]
    summary = done(client, job).summary
    assert summary is not None
    assert summary.model_dump(mode="json")["suite"] == graded.json()["summary"]["suite"]


def test_time_of_a_job_is_in_its_summary(sqlite_url: str) -> None:
    with client_of(sqlite_url, sample_s=0.01, workers=1) as client:
        shown = done(client, posted(client, body_of(20)))
    assert shown.summary is not None
    assert shown.started_at is not None
    assert shown.finished_at is not None
    assert 20 * 0.01 <= shown.summary.wall_s <= (shown.finished_at - shown.started_at).total_seconds()
    assert shown.created_at <= shown.started_at


def test_queue_without_room_holds_up_a_job_and_nothing_more(sqlite_url: str) -> None:
    with client_of(sqlite_url, room=10) as client:
        job = posted(client, body_of(120))
        assert len(lines(client, job, wait=True)) == 120
        assert done(client, job).state == "done"


def test_jobs_are_listed_in_pages(client: httpx.Client) -> None:
    made = [posted(client, body_of(2)) for _ in range(5)]
    for job in made:
        done(client, job)
    seen: list[str] = []
    parameters: dict[str, Any] = {"limit": 2}
    while True:
        answer = client.get("/v1/jobs", params=parameters)
        page = JobsAnswer.model_validate_json(answer.text)
        assert len(page.jobs) <= 2
        assert all(job.summary is None for job in page.jobs)
        seen.extend(job.id for job in page.jobs)
        if page.next is None:
            break
        parameters["before"] = page.next
    assert seen == sorted(made, reverse=True)


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        ({"suite": "none", "samples": body_of(1)["samples"]}, 422, "suite"),
        (body_of(1, groups=["other"]), 422, "groups"),
        (
            {"suite": "starter", "samples": [{"task_id": "Starter/99", "solution": ""}]},
            422,
            "samples[0].task_id",
        ),
        ({"suite": "starter", "samples": [{"task_id": "Starter/1"}]}, 422, "samples[0]"),
        (
            {"suite": "starter", "samples": [{"task_id": "Starter/1", "solution": "", "completion": ""}]},
            422,
            "samples[0]",
        ),
        ({"suite": "starter", "samples": []}, 422, "samples"),
    ],
    ids=["suite", "group", "task", "neither", "both", "empty"],
)
def test_bad_request_is_refused_and_nothing_is_kept(
    client: httpx.Client, body: dict[str, Any], status: int, place: str
) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["place"] == place
    assert client.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize("name", ["nothing", "0" * 32, "0" * 31, "%00", "%F0%9F%98%80", "a" * 5000])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/verdicts"), ("DELETE", "")])
def test_unknown_job_is_not_found(client: httpx.Client, method: str, path: str, name: str) -> None:
    answer = client.request(method, f"/v1/jobs/{name}{path}")
    assert answer.status_code == 404
    assert answer.json()["title"] == "No such job"


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs?limit=0", "/v1/jobs?limit=501", "/v1/jobs?before=x", "/v1/jobs/a/verdicts?after=-1",
     "/v1/jobs/a/verdicts?after=99999999999999999999", "/v1/jobs/a/verdicts?wait=perhaps"],
)  # fmt: skip
def test_bad_parameters_are_refused(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_key_gives_the_same_job(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "a-key"}
    job = posted(client, body_of(3), **key)
    done(client, job)
    assert posted(client, body_of(3), **key) == job
    other = client.post("/v1/jobs", json=body_of(4), headers=key)
    assert (other.status_code, other.json()["title"]) == (422, "Idempotency key reused")
    assert posted(client, body_of(3)) != job
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    gone = client.post("/v1/jobs", json=body_of(3), headers=key)
    assert (gone.status_code, gone.json()["title"]) == (409, "Job deleted")


def test_key_gives_the_same_rewards_and_counts_them_once(client: httpx.Client) -> None:
    def asked(number: int, key: str | None) -> httpx.Response:
        body = {
            "suite": "starter",
            "task_ids": ["Starter/1"],
            "completions": [f"```python\nx = {number}{'  # wrong' * (number == 2)}\n```"],
            "include_group_features": True,
            "use_cache": False,
        }
        return client.post("/v1/rewards", json=body, headers={} if key is None else {"Idempotency-Key": key})

    asked(1, None)
    first = asked(2, "a-key")
    assert first.json()["rewards"] == [0.0]
    assert [asked(2, "a-key").content for _ in range(3)] == [first.content] * 3
    other = asked(1, "a-key")
    assert (other.status_code, other.json()["title"]) == (422, "Idempotency key reused")
    rates = PassRates()
    means = [rates.update("task", group_features(["task"], [row])["task"]) for row in (True, False, True)]
    assert asked(1, None).json()["group_features"][0]["mean_pass_rate"] == means[-1]
    counted = [line for line in client.get("/metrics").text.splitlines() if "grader_verdicts_total{" in line]
    assert sum(float(line.split()[-1]) for line in counted) == 3


@pytest.mark.parametrize("key", ["", "a b", "k" * 256])
def test_malformed_key_is_refused(client: httpx.Client, key: str) -> None:
    for path in ("/v1/jobs", "/v1/grade", "/v1/rewards"):
        answer = client.post(path, json=body_of(1), headers={"Idempotency-Key": key})
        assert answer.status_code == 422, path
        assert answer.json()["errors"][0]["place"] == "Idempotency-Key"
    longest = {"Idempotency-Key": "~" * 255}
    assert client.post("/v1/grade", json=body_of(1), headers=longest).status_code == 200


def test_tenants_see_their_own_jobs_alone(sqlite_url: str, tmp_path: Path) -> None:
    keys, file = keys_of("ab", tmp_path)
    with client_of(sqlite_url, ServerSettings(api_keys_file=file)) as client:
        assert client.get("/v1/jobs").status_code == 401
        client.headers["x-api-key"] = keys["a"]
        job = posted(client, body_of(3), **{"Idempotency-Key": "k"})
        done(client, job)
        client.headers["x-api-key"] = keys["b"]
        for method, path in (("GET", ""), ("GET", "/verdicts"), ("DELETE", "")):
            assert client.request(method, f"/v1/jobs/{job}{path}").status_code == 404
        assert client.get("/v1/jobs").json()["jobs"] == []
        assert posted(client, body_of(3), **{"Idempotency-Key": "k"}) != job
        client.headers["x-api-key"] = keys["a"]
        assert [one["id"] for one in client.get("/v1/jobs").json()["jobs"]] == [job]


def keys_of(tenants: str, folder: Path, **more: float) -> tuple[dict[str, str], Path]:
    """A key for each tenant, and the file that has them."""
    keys = {tenant: f"grd_{tenant}" for tenant in tenants}
    file = folder / "keys.jsonl"
    rows = [
        {"tenant": name, "sha256": hashlib.sha256(key.encode()).hexdigest()} | more
        for name, key in keys.items()
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file.chmod(0o600)
    return keys, file


def test_job_for_which_there_is_no_room_does_not_use_up_the_rate(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, file = keys_of("a", tmp_path, samples_per_s=0.001)

    def full(*_: object) -> None:
        raise too_much_kept("the tenant has 20 unfinished jobs")

    with client_of(sqlite_url, ServerSettings(api_keys_file=file)) as client:
        client.headers["x-api-key"] = keys["a"]
        with monkeypatch.context() as patched:
            patched.setattr(JobStore, "accept", full)
            answers = [client.post("/v1/jobs", json=body_of(3)) for _ in range(3)]
        answers += [client.post("/v1/jobs", json=body_of(3)) for _ in range(2)]
    titles = [answer.json().get("title", answer.status_code) for answer in answers]
    assert titles == ["Too many jobs"] * 3 + [202, "Rate exceeded"]


def test_one_tenants_jobs_do_not_keep_anothers_waiting(sqlite_url: str, tmp_path: Path) -> None:
    keys, file = keys_of("abc", tmp_path)
    settings = ServerSettings(api_keys_file=file)
    with client_of(sqlite_url, settings, sample_s=0.05, workers=1, room=100_000) as client:

        def states() -> list[str]:
            client.headers["x-api-key"] = keys["a"]
            return [client.get(f"/v1/jobs/{job}").json()["state"] for job in many]

        client.headers["x-api-key"] = keys["a"]
        many = [posted(client, body_of(2000)) for _ in range(SETTINGS.jobs_at_once + 1)]
        wait_until(lambda: states().count("running") == SETTINGS.jobs_at_once, "all places are taken")
        for other in "bc":
            client.headers["x-api-key"] = keys[other]
            assert done(client, posted(client, body_of(1))).state == "done"
        # Nor has the first one more places for it.
        assert sorted(states()) == ["queued"] + ["running"] * SETTINGS.jobs_at_once


def test_too_many_unfinished_jobs_are_refused(sqlite_url: str) -> None:
    with client_of(sqlite_url, sample_s=0.05) as client:
        answers = [client.post("/v1/jobs", json=body_of(200)) for _ in range(21)]
        assert [answer.status_code for answer in answers] == [202] * 20 + [429]
        assert int(answers[-1].headers["retry-after"]) >= 1


def test_stored_request_that_this_version_does_not_take_fails(sqlite_url: str) -> None:
    with client_of(sqlite_url, room=0) as client:
        job = posted(client, body_of(3))
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection, connection:
        body = zstandard.compress(json.dumps(body_of(3) | {"of_another_version": 1}).encode())
        connection.execute("UPDATE grader_job_requests SET body = ?", (body,))
    with client_of(sqlite_url) as client:
        shown = done(client, job)
        assert (shown.state, shown.recorded, shown.summary) == ("failed", 0, None)
        assert shown.failure is not None
        assert "this version" in shown.failure


@pytest.mark.parametrize("is_named", [True, False], ids=["its data is gone", "it is not served"])
def test_job_waits_for_a_suite_that_is_missing(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_named: bool
) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps(OWN_SUITE_TASK) + "\n")
    samples = [{"task_id": "add", "sample_id": f"s{n}", "solution": f"x = {n}"} for n in range(40)]
    body = body_of(40) if is_named else {"suite": "mine", "samples": samples}
    whole = ServerSettings(suites=(str(tmp_path / "mine.jsonl"),))
    with client_of(sqlite_url, whole, sample_s=0.05, workers=1) as client:
        job = posted(client, body)
        wait_until(lambda: client.get(f"/v1/jobs/{job}").json()["recorded"] >= 3, "verdicts are recorded")
    tries = []

    def missing(name: str) -> Suite:
        tries.append(name)
        raise SuiteError("no file found")

    with monkeypatch.context() as patched:
        if is_named:
            patched.setattr(registry, "load", missing)
        with client_of(sqlite_url) as client:
            if is_named:
                wait_until(lambda: len(tries) >= 3, "the suite is looked for again and again")
            # What does not need the suite is not held up, however many places the others would take.
            tests = {"kind": "stdio", "inputs": ["1"], "outputs": ["1"]}
            own = {"samples": [{"task_id": "mine", "solution": "x = 1", "tests": tests}]}
            assert done(client, posted(client, own)).state == "done"
            wait_until(
                lambda: client.get(f"/v1/jobs/{job}").json()["waits_for"], "it is said what it waits for"
            )
            shown = client.get(f"/v1/jobs/{job}").json()
            assert (shown["state"], shown["failure"]) == ("running", None)
            assert "suite" in shown["waits_for"]
    with client_of(sqlite_url, whole) as client:
        shown = done(client, job)
        assert (shown.state, shown.recorded, shown.waits_for) == ("done", 40, None)


def test_grading_that_breaks_again_and_again_fails_the_job(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(_grading: LoggingGrading, _batch: Batch) -> AsyncIterator[list[VerdictFields]]:
        raise ZeroDivisionError("in a file of the server")
        yield []

    monkeypatch.setattr(LoggingGrading, "grade", crash)
    with client_of(sqlite_url) as client:
        shown = done(client, posted(client, body_of(3)))
        assert shown.state == "failed"
        assert shown.failure is not None
        assert "error inside the grader" in shown.failure


def test_job_that_comes_further_each_time_is_not_failed(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = []
    grade = LoggingGrading.grade

    def recorded() -> int:
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
            return int(connection.execute("SELECT count(*) FROM grader_verdicts").fetchone()[0])

    async def break_off(grading: LoggingGrading, batch: Batch) -> AsyncIterator[list[VerdictFields]]:
        before = recorded()
        async for verdicts in grade(grading, batch):
            yield verdicts
            if len(breaks) < 6:
                while recorded() == before:
                    await asyncio.sleep(0.01)
                breaks.append(batch)
                raise ZeroDivisionError

    monkeypatch.setattr(LoggingGrading, "grade", break_off)
    with client_of(sqlite_url) as client:
        shown = done(client, posted(client, body_of(20)))
    assert (shown.state, shown.recorded, shown.failure) == ("done", 20, None)
    assert len(breaks) == 6


def test_job_goes_on_while_clients_hold_all_their_threads(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, asked = threading.Event(), threading.Semaphore(0)
    page = JobStore.page

    def slow(*args: Any, **kwargs: Any) -> Any:
        asked.release()
        go_on.wait()
        return page(*args, **kwargs)

    def state() -> str:
        with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
            return str(connection.execute("SELECT state FROM grader_jobs").fetchone()[0])

    with client_of(sqlite_url, sample_s=0.01, workers=1) as client, ThreadPoolExecutor(20) as threads:
        posted(client, body_of(300))
        monkeypatch.setattr(JobStore, "page", slow)
        try:
            waiting = [threads.submit(client.get, "/v1/jobs") for _ in range(20)]
            assert asked.acquire(timeout=DEADLINE_S)
            wait_until(lambda: state() == "done", "the job is done")
        finally:
            go_on.set()
        assert [one.result().status_code for one in waiting] == [200] * 20


def test_follower_does_not_look_at_every_verdict(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    look = JobStore.look

    def counted(store: JobStore, *args: Any, **kwargs: Any) -> Any:
        looks.append(args)
        return look(store, *args, **kwargs)

    monkeypatch.setattr(JobStore, "look", counted)
    with client_of(sqlite_url, sample_s=0.01, workers=1) as client:
        job = posted(client, body_of(200))
        begun = time.monotonic()
        followed = lines(client, job, wait=True)
        wakings = (time.monotonic() - begun) / LOOK_EVERY_S + 2  # at the first verdict, and at the end
    assert len(followed) == 200
    assert len(looks) <= 2 + wakings  # twice before it waits


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What is logged, as JSON."""
    root, written = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    configure(stream=written)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_grading_that_fails_for_a_while_holds_up_the_job(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    tries = []
    grade = LoggingGrading.grade

    async def fail_first(grading: LoggingGrading, batch: Batch) -> AsyncIterator[list[VerdictFields]]:
        tries.append(batch)
        count = 0
        async for verdicts in grade(grading, batch):
            if len(tries) <= 3 and count == 2:
                raise InfrastructureError("no worker can work")
            count += 1
            yield verdicts

    monkeypatch.setattr(LoggingGrading, "grade", fail_first)
    with client_of(sqlite_url) as client:
        job = posted(client, body_of(20))
        assert sorted(v.sample_id for v in lines(client, job, wait=True)) == sorted(
            f"s{n}" for n in range(20)
        )
        assert done(client, job).statuses == {"passed": 13, "wrong_answer": 7}
    assert len(tries) == 4
    waits = [line for line in map(json.loads, log.getvalue().splitlines()) if line["logger"] == "grader.jobs"]
    assert [line["job_id"] for line in waits] == [job] * 3
    assert all(batch.priority == "background" for batch in tries)
