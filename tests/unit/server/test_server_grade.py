"""Every sample gets exactly one verdict, in either form of the answer, whatever becomes of the grading."""

from __future__ import annotations

import asyncio
import json
import re
import time
import types

import pytest
from fastapi import APIRouter

from grader.dispatch.contract import PoolState
from grader.errors import SandboxError
from grader.schema import Summary, Verdict
from grader.server import answers
from grader.server.answers import to_json, without_our_affairs
from grader.server.models import GradeAnswer
from grader.server.service import Part
from grader.server.settings import ServerSettings
from grader.suites import registry
from grader.suites.inline import inline_suite

NDJSON = {"accept": "application/x-ndjson"}


def lines_of(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


def test_verdicts_come_in_the_order_of_the_samples_and_with_a_summary(front):
    answer = front.grade("# stub: wait 0.05", "x", "# stub: fail")
    assert answer.status_code == 200
    found = GradeAnswer.model_validate_json(answer.content)
    assert [verdict.sample_id for verdict in found.verdicts] == ["s0", "s1", "s2"]
    assert [verdict.status for verdict in found.verdicts] == ["passed", "passed", "wrong_answer"]
    assert found.summary.samples == 3
    assert found.summary.pass_at_k["base"]["1"] == pytest.approx(2 / 3)
    assert found.summary.engine == "local"
    assert found.summary.workers == 2


CHEATS = "import os\ndef f():\n    os._exit(0)\n"


@pytest.mark.parametrize("headers", [{}, NDJSON])
def test_verdicts_have_flags_where_they_are_asked_for(front, headers):
    sources = ("x = 1", CHEATS, "# stub: lose")
    answer = front.grade(*sources, headers=headers, include_flags=True)
    verdicts = lines_of(answer)[:-1] if headers else answer.json()["verdicts"]
    assert {one["sample_id"]: one["flags"] for one in verdicts} == {"s0": [], "s1": ["exit_call"], "s2": []}
    for verdict in verdicts:
        assert Verdict.model_validate_json(json.dumps(verdict)).flags is not None
    assert all("flags" not in one for one in front.grade(*sources).json()["verdicts"])


def test_a_deadline_loses_no_verdict_whose_flags_are_looked_for(front, monkeypatch):
    def slow(*arguments, **more):
        time.sleep(1.0)
        return arguments[0]

    monkeypatch.setattr(answers, "with_flags", slow)
    found = front.grade("x", "y", include_flags=True, timeout_s=0.4).json()["verdicts"]
    assert [one["status"] for one in found] == ["infrastructure_error"] * 2
    assert {one["error"]["type"] for one in found} == {"DeadlineExceeded"}


def test_ndjson_has_a_verdict_a_line_and_the_summary_last(front):
    answer = front.grade("x", "y", headers=NDJSON)
    assert answer.headers["content-type"] == "application/x-ndjson"
    *verdicts, last = lines_of(answer)
    assert sorted(Verdict.model_validate_json(json.dumps(one)).sample_id for one in verdicts) == ["s0", "s1"]
    assert Summary.model_validate_json(json.dumps(last["summary"])).samples == 2


@pytest.mark.parametrize(
    ("accept", "is_ndjson"),
    [
        ("application/x-ndjson, application/json;q=0.5", True),
        ("application/json", False),
        ("*/*", False),
        ("application/x-ndjson;q=0", False),
    ],
)
def test_ndjson_is_sent_to_who_asks_for_it(front, accept, is_ndjson):
    answer = front.grade("x", headers={"accept": accept})
    assert answer.headers["content-type"].endswith("ndjson") == is_ndjson


@pytest.mark.parametrize("headers", [{}, NDJSON])
def test_a_sample_without_a_verdict_is_an_infrastructure_error(front, headers):
    answer = front.grade("x", "# stub: lose", headers=headers)
    rows = lines_of(answer)[:-1] if headers else answer.json()["verdicts"]
    lost = Verdict.model_validate_json(json.dumps(rows[1]))
    assert (lost.sample_id, lost.status, lost.reward, lost.passed) == (
        "s1",
        "infrastructure_error",
        None,
        False,
    )
    assert lost.error is not None
    assert lost.error.type == "Lost"


@pytest.mark.parametrize("headers", [{}, NDJSON])
def test_what_breaks_off_in_the_middle_leaves_infrastructure_errors(front, headers):
    answer = front.grade("x", "# stub: break", "y", headers=headers)
    assert answer.status_code == 200
    rows = lines_of(answer)[:-1] if headers else answer.json()["verdicts"]
    assert [row["status"] for row in rows] == ["passed", "infrastructure_error", "infrastructure_error"]
    assert "/var/lib" not in answer.text


@pytest.mark.parametrize("given", ["solution", "completion"])
def test_after_its_deadline_nothing_is_begun(front, given, monkeypatch):
    begun, grade = [], front.grading.grade
    monkeypatch.setattr(front.grading, "grade", lambda batch: begun.append(batch) or grade(batch))
    samples = [{"task_id": "Starter/1", "sample_id": f"s{n}", given: "x = 1"} for n in range(100)]
    body = {"suite": "starter", "samples": samples, "timeout_s": 1e-9, "use_cache": False}
    found = front.ask("POST", "/v1/grade", json=body).json()["verdicts"]
    assert [verdict["error"]["type"] for verdict in found] == ["DeadlineExceeded"] * 100
    assert not begun


@pytest.mark.parametrize("headers", [{}, NDJSON])
def test_the_deadline_ends_the_answer_with_what_is_there(front, headers):
    for number, timeout_s in enumerate((0.2, 1, 5, 25), 1):
        answer = front.grade("x", "# stub: wait 3600", timeout_s=timeout_s, headers=headers)
        assert answer.status_code == 200
        rows = lines_of(answer)[:-1] if headers else answer.json()["verdicts"]
        assert rows[1]["error"]["type"] == "DeadlineExceeded"
        assert front.grading.cancelled <= number
        if rows[0]["status"] == "passed":  # else the machine was too slow for the first one, too
            break
    assert [row["status"] for row in rows] == ["passed", "infrastructure_error"]
    assert front.grading.cancelled >= 1


@pytest.mark.parametrize("headers", [{}, NDJSON])
def test_a_full_queue_is_429_and_says_when_to_come_back(front, problem_in, headers):
    answer = front.grade("# stub: overload", headers=headers)
    found = problem_in(answer, 429)
    assert answer.headers["retry-after"] == "3"
    assert found["retry_after_s"] == 2.5
    assert "this machine" not in answer.text


@pytest.mark.parametrize("headers", [{}, NDJSON])
def test_a_whole_request_that_cannot_be_graded_is_503(front, problem_in, headers):
    assert "retry-after" in front.grade("# stub: break", headers=headers).headers
    problem_in(front.grade("# stub: break", headers=headers), 503)


@pytest.mark.parametrize("headers", [{}, NDJSON])
def test_what_nobody_expects_is_500_without_a_trace(front, problem_in, headers):
    answer = front.grade("# stub: crash", headers=headers)
    problem_in(answer, 500)
    assert "ZeroDivisionError" not in answer.text


def test_what_an_infrastructure_error_says_of_the_machine_stays_here(front):
    answer = front.grade("# stub: path")
    error = answer.json()["verdicts"][0]["error"]
    assert error["type"] == "CellLostError"
    assert "/var/lib" not in answer.text


@pytest.mark.parametrize("own", [True, False])
def test_why_tests_are_broken_is_told_to_who_sent_them_alone(own):
    suite = inline_suite([]) if own else registry.load("starter")
    error = {"type": "BrokenTests", "message": "the setup fails: FileNotFoundError", "line": None}
    verdict = {"task_id": "t", "sample_id": "s", "status": "infrastructure_error", "error": error}
    said = without_our_affairs(verdict, suite)["error"]
    assert said["type"] == "BrokenTests"
    assert ("FileNotFoundError" in said["message"]) is own


def test_identical_programs_run_once_unless_the_cache_is_not_wanted(front):
    def body(**more):
        task_id = next(iter(front.service.suites.load("starter").tasks))
        samples = [{"task_id": task_id, "solution": f"x = 1  # {n}"} for n in range(6)]
        return {"suite": "starter", "samples": samples, **more}

    answer = front.ask("POST", "/v1/grade", json=body())
    assert front.grading.programs == 1
    assert [row["cached"] for row in answer.json()["verdicts"]] == [False] + [True] * 5
    front.ask("POST", "/v1/grade", json=body(use_cache=False))
    assert front.grading.programs == 7


def test_identical_programs_of_requests_at_the_same_time_run_once(front):
    task_id = next(iter(front.service.suites.load("starter").tasks))
    body = {"suite": "starter", "samples": [{"task_id": task_id, "solution": "x = 1"}] * 2}

    async def both(client):
        return await asyncio.gather(*(client.post("/v1/grade", json=body) for _ in range(2)))

    answers = front.talk(both)
    assert front.grading.programs == 1
    assert [len(answer.json()["verdicts"]) for answer in answers] == [2, 2]


def test_verdicts_have_the_requests_own_task_names(front):
    sample = {"task_id": "mine", "solution": "x", "tests": ["assert f(1) == 1"]}
    answer = front.ask("POST", "/v1/grade", json={"samples": [sample]})
    assert answer.json()["verdicts"][0]["task_id"] == "mine"
    assert answer.json()["summary"]["suite"]["name"] == "inline"


def test_a_client_that_goes_away_ends_its_batch(front):
    async def conversation(client):
        body = {"suite": "starter", "samples": [{"task_id": "Starter/0", "solution": "# stub: wait 3600"}]}
        sent = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])

        async def receive():
            message = next(sent, None)
            if message is not None:
                return message
            while not front.grading.batches:
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(message):
            raise AssertionError(f"nobody is there to be sent {message}")

        scope = {
            "type": "http", "method": "POST", "path": "/v1/grade", "raw_path": b"/v1/grade", "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "client": ("127.0.0.1", 1), "scheme": "http",
            "server": ("127.0.0.1", 80), "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
        }  # fmt: skip
        await front.app(scope, receive, send)

    front.talk(conversation)
    assert (front.grading.batches, front.grading.cancelled) == (1, 1)
    assert front.service.active == 0


def test_request_ids_come_back_and_strange_ones_are_replaced(front):
    assert front.ask("GET", "/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for strange in ("x" * 129, "a b", "a\tb", ""):
        given = front.ask("GET", "/healthz", headers={"x-request-id": strange}).headers["x-request-id"]
        assert len(given) == 32
        assert given != strange


def test_suites_and_tasks_are_listed_without_references_and_tests(front, problem_in):
    listed = {row["name"]: row for row in front.ask("GET", "/v1/suites").json()["suites"]}
    assert listed["starter"]["available"]
    assert "location" not in listed["starter"]
    rows = front.ask("GET", "/v1/suites/starter/tasks").json()["tasks"]
    assert rows[0].keys() == {"task_id", "prompt", "entry_point", "groups"}
    problem_in(front.ask("GET", "/v1/suites/nope/tasks"), 404, "name")


def test_unknown_paths_and_methods_are_problems(front, problem_in):
    problem_in(front.ask("GET", "/v2/grade"), 404)
    problem_in(front.ask("POST", "/v1/grade/", json={}), 404)  # and no redirection
    answer = front.ask("DELETE", "/v1/grade")
    problem_in(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_a_path_with_several_routes_names_all_their_methods(make_front):
    router = APIRouter()
    router.add_api_route("/things", lambda: None, methods=["POST"])
    router.add_api_route("/things", lambda: None, methods=["GET"])
    assert make_front(parts=[Part(router=router)]).ask("PUT", "/things").headers["allow"] == "GET, POST"


def test_readiness_follows_the_workers_and_the_drain(make_front, problem_in):
    front = make_front()
    assert front.ask("GET", "/readyz").status_code == 200
    front.grading.state = lambda: PoolState(workers={"starting": 2})
    problem_in(front.ask("GET", "/readyz"), 503)
    front.grading.state = lambda: PoolState(workers={"ready": 1}, failure="no cgroup at /var/lib")
    problem_in(front.ask("GET", "/readyz"), 503)
    front = make_front()
    front.service.draining = True
    problem_in(front.ask("GET", "/readyz"), 503)
    assert front.ask("GET", "/healthz").status_code == 200
    answer = front.grade("x")
    problem_in(answer, 503)
    assert "retry-after" in answer.headers


def test_the_grading_is_started_and_closed_with_the_application(front):
    assert front.ask("GET", "/").status_code == 200
    assert front.grading.started
    assert front.grading.closed


def test_why_the_grading_could_not_start_is_kept(front):
    async def start():
        raise SandboxError("no user namespaces")

    front.grading.start = start
    with pytest.raises(SandboxError):
        front.ask("GET", "/")
    assert isinstance(front.service.startup_error, SandboxError)
    assert front.grading.closed


def test_half_a_surrogate_pair_does_not_break_an_answer():
    assert json.loads(to_json({"stdout_tail": "a\ud800b", "cpu_s": float("nan")})) == {
        "stdout_tail": "a?b",
        "cpu_s": None,
    }


def test_limits_are_lowered_to_nothing_without_a_key(make_front):
    front = make_front(ServerSettings())
    answer = front.grade("x", limits={"memory_bytes": 1 << 28})
    assert answer.json()["summary"]["limits"]["memory_bytes"] == 1 << 28


def counted(front, *requests):
    """What metrics say after some requests: verdicts by status."""

    async def conversation(client):
        for sources, more in requests:
            samples = [
                {"task_id": "Starter/0", "sample_id": f"s{n}", "solution": one}
                for n, one in enumerate(sources)
            ]
            answer = await client.post("/v1/grade", json={"suite": "starter", "samples": samples, **more})
            assert answer.status_code == 200
        return (await client.get("/metrics")).text

    lines = re.findall(
        r'grader_verdicts_total{status="(\w+)",suite="starter"} (\d+)', front.talk(conversation)
    )
    return {status: int(count) for status, count in lines if int(count)}


@pytest.mark.parametrize("use_cache", [True, False])
def test_metrics_count_what_the_grading_gave_no_verdict_on(make_front, use_cache):
    cache = {"use_cache": use_cache}
    assert counted(make_front(), (["x", "# stub: lose", "y"], cache)) == {
        "passed": 2,
        "infrastructure_error": 1,
    }
    assert counted(make_front(), (["x", "# stub: break", "y"], cache)) == {
        "passed": 1,
        "infrastructure_error": 2,
    }
    late = (["x", "# stub: wait 600", "y"], cache | {"timeout_s": 0.5})
    found = counted(make_front(), late)
    assert sum(found.values()) == 3
    assert found["infrastructure_error"] >= 2


@pytest.mark.parametrize("sources", [("x", "y"), ("x", "x")])
def test_metrics_count_a_sample_once_whose_verdict_is_lost_on_its_way(front, monkeypatch, sources):
    async def never(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(answers, "flagged", never)
    found = counted(front, (sources, {"include_flags": True, "timeout_s": 0.5}))
    assert sum(found.values()) == 2


def test_lost_verdicts_are_logged(front, monkeypatch):
    said = []
    log = types.SimpleNamespace(warning=lambda event, **more: said.append((event, more)), error=print)
    monkeypatch.setattr(answers, "_log", log)
    front.grade("x", "# stub: lose", "# stub: lose\n2")
    assert said == [("verdicts_lost", {"missing": 2, "sample_id": "s1"})]


def test_metrics_count_verdicts_requests_and_the_pool(front):
    async def conversation(client):
        samples = [{"task_id": "Starter/0", "solution": f"x = 1  # {n}"} for n in range(3)]
        await client.post("/v1/grade", json={"suite": "starter", "samples": samples})
        await client.get("/v1/suites/nope/tasks")
        return (await client.get("/metrics")).text

    lines = front.talk(conversation).splitlines()
    assert 'grader_verdicts_total{status="passed",suite="starter"} 3.0' in lines
    assert 'grader_cache_hits_total{suite="starter"} 2.0' in lines
    assert 'grader_end_to_end_seconds_count{suite="starter"} 3.0' in lines
    assert 'grader_queue_wait_seconds_count{suite="starter"} 1.0' in lines
    assert 'grader_workers{state="ready"} 2.0' in lines
    assert 'grader_http_requests_total{method="POST",route="/v1/grade",status="2xx"} 1.0' in lines
    assert (
        'grader_http_requests_total{method="GET",route="/v1/suites/{name}/tasks",status="4xx"} 1.0' in lines
    )
