"""Calls against a real server that misbehaves on demand."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from grade_server import Break, GradeServer, Refuse, grade_server

from grader.client import (
    AccessRefused,
    Bounds,
    GraderClient,
    NotFound,
    RequestRefused,
    RequestTooLarge,
    RetryPolicy,
    ServerFailed,
    ServerUnavailable,
)
from grader.client.bodies import encode_json
from grader.errors import InputError, SampleError
from grader.schema import Sample

STATUSES = ("passed", "wrong_answer", "infrastructure_error", "passed", "time_limit")


def samples(n: int) -> list[dict[str, Any]]:
    return [{"task_id": f"Toy/{i % 3}", "solution": STATUSES[i % len(STATUSES)]} for i in range(n)]


def expected_ids(n: int) -> list[str]:
    return [f"Toy/{i % 3}:{i // 3}" for i in range(n)]


def assert_whole(result: Any, n: int) -> None:
    assert [verdict.sample_id for verdict in result.verdicts] == expected_ids(n)
    assert [verdict.status for verdict in result.verdicts] == [STATUSES[i % 5] for i in range(n)]
    assert result.rewards == [
        {"passed": 1.0, "infrastructure_error": None}.get(STATUSES[i % 5], 0.0) for i in range(n)
    ]
    assert result.summary.samples == n
    assert sum(result.summary.statuses.values()) == n


def test_verdicts_come_in_the_order_of_the_samples(
    client_of: Callable[..., Any], server: GradeServer
) -> None:
    told: list[tuple[int, int]] = []
    client = client_of(server.url, api_key="secret-key")
    result = client.grade(samples(7), "toy", k=[1], progress=lambda done, total: told.append((done, total)))
    assert_whole(result, 7)
    assert told == [(done, 7) for done in range(8)]
    assert server.seen[0].authorization == "Bearer secret-key"
    assert server.seen[0].body == {"suite": "toy", "k": [1], "samples": server.seen[0].body["samples"]}


def test_a_stream_yields_in_the_order_of_completion(
    client_of: Callable[..., Any], server: GradeServer
) -> None:
    verdicts, summary = client_of(server.url).streamed("stream", samples(6), suite="toy")
    assert [verdict.sample_id for verdict in verdicts] == expected_ids(6)[::-1]
    assert summary.samples == 6


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_overloaded_server_is_asked_again_with_the_same_key(
    client_of: Callable[..., Any], server: GradeServer, status: int
) -> None:
    server.mischief = [Refuse(status, {"Retry-After": "1"}), Refuse(status)]
    assert_whole(client_of(server.url).grade(samples(5), "toy"), 5)
    assert len(server.seen) == 3
    assert len({seen.key for seen in server.seen}) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, 501, 302])
def test_what_is_refused_is_not_asked_again(
    client_of: Callable[..., Any], server: GradeServer, status: int
) -> None:
    server.mischief = [Refuse(status, detail="samples[3].task_id: there is no such task")]
    kinds: dict[int, type[Exception]] = {401: AccessRefused, 403: AccessRefused, 404: NotFound}
    kind = kinds.get(status, RequestRefused if 400 <= status < 500 else ServerFailed)
    with pytest.raises(kind) as refused:
        client_of(server.url).grade(samples(2), "toy")
    assert len(server.seen) == 1
    assert str(status) in str(refused.value)
    if isinstance(refused.value, RequestRefused):
        assert refused.value.status == status
        assert refused.value.problem["title"] == "Refused in a test"
        assert "samples[3].task_id: there is no such task" in str(refused.value)


@pytest.mark.parametrize("end", ["reset", "close", "half_line", "no_summary", "problem"])
@pytest.mark.parametrize("after", [0, 1, 4, 5])
def test_a_stream_that_breaks_off_is_asked_only_for_the_rest(
    client_of: Callable[..., Any], server: GradeServer, end: str, after: int
) -> None:
    server.mischief = [Break(after, end)]
    verdicts, summary = client_of(server.url).streamed("stream", samples(5), suite="toy", k=[1])
    assert sorted(verdict.sample_id for verdict in verdicts) == sorted(expected_ids(5))
    assert summary.samples == 5
    first, second = server.seen
    left = first.sample_ids[: 5 - after] if after < 5 else first.sample_ids
    assert second.sample_ids == left
    # The same request has the same key, so that the server may answer from what it kept; another has another.
    assert (first.key == second.key) == (first.sample_ids == second.sample_ids)


def test_the_summary_of_several_answers_is_over_all(
    client_of: Callable[..., Any], server: GradeServer
) -> None:
    whole = client_of(server.url).grade(samples(20), "toy", k=[1, 2]).summary
    server.mischief = [Break(3, "reset"), Break(4, "half_line")]
    pieced = client_of(server.url).grade(samples(20), "toy", k=[1, 2]).summary
    times = {"wall_s", "samples_per_s"}
    assert pieced.model_dump(exclude=times) == whole.model_dump(exclude=times)


@pytest.mark.parametrize("limit", [{"max_samples": 4}, {"max_bytes": 300}])
def test_a_batch_above_the_servers_cap_is_split(client_of: Callable[..., Any], limit: dict[str, int]) -> None:
    with grade_server(**limit) as server:
        assert_whole(client_of(server.url).grade(samples(15), "toy"), 15)
        graded = [seen for seen in server.seen if len(seen.sample_ids) <= server.max_samples]
        assert sum(len(seen.sample_ids) for seen in graded) == 15
        assert len({seen.key for seen in server.seen}) == len(server.seen)


def test_one_sample_above_the_servers_cap_is_refused(client_of: Callable[..., Any]) -> None:
    with grade_server(max_bytes=300) as server:
        large = {"task_id": "Toy/0", "solution": "x" * 500}
        with pytest.raises(RequestTooLarge, match="300 are allowed"):
            client_of(server.url).grade([*samples(3), large], "toy")


def test_a_batch_above_the_clients_bounds_is_split_beforehand(
    client_of: Callable[..., Any], server: GradeServer
) -> None:
    assert_whole(client_of(server.url, bounds=Bounds(samples=4)).grade(samples(10), "toy"), 10)
    assert [len(seen.sample_ids) for seen in server.seen] == [4, 4, 2]


@pytest.mark.parametrize(("compression", "coding"), [("auto", "zstd"), ("gzip", "gzip"), ("none", "")])
def test_large_requests_are_compressed(
    client_of: Callable[..., Any], server: GradeServer, compression: str, coding: str
) -> None:
    many = [{"task_id": "Toy/0", "completion": "x" * 100} for _ in range(400)]
    client = client_of(server.url, compression=compression)
    assert client.grade(many, "toy").summary.samples == 400
    assert client.grade(many[:1], "toy").summary.samples == 1
    assert [seen.encoding for seen in server.seen] == [coding, ""]


def test_a_server_that_is_down_is_put_aside(client_of: Callable[..., Any], server: GradeServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: connections are refused
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for urls in ([dead, server.url], f"{server.url},{dead}"):
            for _ in range(3):
                assert_whole(client_of(urls).grade(samples(3), "toy"), 3)
        with pytest.raises(ServerUnavailable, match=r"after 3 attempts.*ConnectError") as unavailable:
            client_of(dead, retries=RetryPolicy(attempts=3, base_s=0.01)).grade(samples(1), "toy")
        assert unavailable.value.status is None


def test_retries_are_bounded(client_of: Callable[..., Any], server: GradeServer) -> None:
    server.mischief = [Refuse(503, detail="no workers")] * 10
    with pytest.raises(ServerUnavailable, match="no workers") as unavailable:
        client_of(server.url, retries=RetryPolicy(attempts=4, base_s=0)).grade(samples(1), "toy")
    assert unavailable.value.status == 503
    assert len(server.seen) == 4
    server.seen.clear()
    with pytest.raises(ServerUnavailable):
        client_of(server.url, retries=RetryPolicy(total_s=0, base_s=100, cap_s=100)).grade(samples(1), "toy")
    assert len(server.seen) == 1


def test_rewards_pass_through(client_of: Callable[..., Any], server: GradeServer) -> None:
    server.mischief = [Refuse(429)]
    result = client_of(server.url).rewards(suite="toy", completions=["a", "lost", "abc"], prompts=None)
    assert result.rewards == [1.0, None, 3.0]
    assert result.components == [{}, {}, {}]
    assert result.model_extra == {"new": 1}


def test_rewards_above_the_servers_cap_are_asked_for_in_halves(
    client_of: Callable[..., Any], server: GradeServer
) -> None:
    server.max_bytes = 1500
    texts = ["lost" if number % 9 == 5 else "語" * number for number in range(40)]
    wanted = [None if text == "lost" else float(len(text)) for text in texts]
    tests = [["assert f()"] for _ in texts]
    fields = {"completions": texts, "tests": tests, "idempotency_key": "k"}
    for _ in range(2):
        result = client_of(server.url).rewards(**fields)
        assert result.rewards == wanted
        assert [entry["row"] for entry in result.unjudged] == [5, 14, 23, 32]
        assert len(result.components) == len(result.flags) == 40
        assert result.verdicts is None
    half = len(server.reward_keys) // 2
    assert half > 1
    assert server.reward_keys[:half] == server.reward_keys[half:], "the same rows have the same keys"
    assert len(set(server.reward_keys)) == half


@pytest.mark.parametrize("more", [{"include_group_features": True}, {"prompts": ["p"]}])
def test_what_cannot_be_halved_is_refused(
    client_of: Callable[..., Any], server: GradeServer, more: dict[str, Any]
) -> None:
    server.max_bytes = 100
    with pytest.raises(RequestTooLarge):
        client_of(server.url).rewards(completions=["x" * 100] * 2, tests=[["assert f()"]] * 2, **more)
    with pytest.raises(RequestTooLarge):
        client_of(server.url).rewards(completions=["x" * 100], tests=[["assert f()"]])


@pytest.mark.parametrize("text", ["漢", "\ud800", "\udc00\ud800", "a\\\ud800", '\x00"\u2028', "\x7f"])
def test_any_text_is_sent_as_it_is(text: str) -> None:
    assert json.loads(encode_json({text: text}, "it")) == json.loads(json.dumps({text: text}))
    assert encode_json(["漢" * 100], "it") == ('["' + "漢" * 100 + '"]').encode()


def test_jobs(client_of: Callable[..., Any], server: GradeServer) -> None:
    client = client_of(server.url)
    job = client.submit_job(samples(6), "toy", idempotency_key="my-key")
    assert job.id == "my-key"
    told: list[tuple[int, int]] = []
    ended = client.wait_job(job.id, progress=lambda done, total: told.append((done, total)))
    assert (ended.state, ended.summary.samples, told) == ("done", 6, [(6, 6)])
    server.mischief = [Break(2, "reset"), Break(3, "reset")]
    verdicts, cursor = client.streamed("job_verdicts", job.id)
    assert [verdict.sample_id for verdict in verdicts] == expected_ids(6)
    assert (cursor, server.cursors) == (6, [0, 2, 5])
    assert client.streamed("job_verdicts", job.id, cursor=6, follow=True) == ([], 6)
    assert client.job(job.id).recorded == 6
    with pytest.raises(NotFound, match="no such job"):
        client.job("another")
    server.mischief = [
        Break(0, "reset")
    ]  # deleted, but the answer is lost: the repetition finds nothing, which is well
    client.delete_job(job.id)
    assert server.deleted == [job.id]
    with pytest.raises(NotFound):
        client.delete_job(job.id)


def test_suites_and_tasks(client_of: Callable[..., Any], server: GradeServer) -> None:
    assert [suite.name for suite in client_of(server.url).suites()] == ["toy"]
    assert [task.task_id for task in client_of(server.url).tasks("toy+")] == ["Toy/0"]
    with pytest.raises(NotFound):
        client_of(server.url).tasks("toy")


def test_a_closed_stream_has_nothing_more(server: GradeServer) -> None:
    with GraderClient(server.url) as client:
        with client.stream(samples(5), "toy") as stream:
            next(stream)
        assert list(stream) == []


def test_url_and_key_from_the_environment(
    client_of: Callable[..., Any], server: GradeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADER_URL", f" {server.url}/ ,")
    monkeypatch.setenv("GRADER_API_KEY", "from-the-environment")
    client_of().grade([Sample(task_id="Toy/0", sample_id="mine", solution="passed")], "toy")
    assert server.seen[0].authorization == "Bearer from-the-environment"
    assert server.seen[0].sample_ids == ["mine"]


@pytest.mark.parametrize(
    "url", [None, "", [], "ftp://host", "host:8000", "http://", "http://me:secret@host", "http://h/?q=1"]
)
def test_a_url_that_is_none_is_refused(client_of: Callable[..., Any], url: Any) -> None:
    with pytest.raises(InputError) as refused:
        client_of(url).suites()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no sample"),
        ([{"solution": "x"}], "sample 1: .*task_id"),
        ([{"task_id": "T", "solution": "x", "completion": "y"}], "exactly one"),
        ([{"task_id": "T"}], "exactly one"),
        ([{"task_id": "T", "solution": "x", "sample_id": "a"}] * 2, "sample 2: sample_id 'a' was used"),
        ([{"task_id": "T", "solution": "x", "sample_id": 3}], "int"),
        ([{"task_id": "T", "solution": "x", "tests": [float("nan")]}], "JSON"),
        ([{"task_id": "T", "solution": "x", "tests": {1, 2}}], "JSON"),
        (["text"], "object"),
    ],
)
def test_samples_that_no_server_takes_are_refused_beforehand(
    client_of: Callable[..., Any], given: Any, said: str
) -> None:
    with pytest.raises(SampleError if said != "JSON" else InputError, match=said):
        client_of("http://127.0.0.1:9").grade(given, "toy")


def test_an_unknown_option_is_refused(client_of: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="no option 'failfast'"):
        client_of("http://127.0.0.1:9").grade(samples(1), "toy", failfast=True)
    with pytest.raises(InputError, match="API key"):
        client_of("http://127.0.0.1:9", api_key="a\nb").suites()


def test_the_key_is_not_shown() -> None:
    with GraderClient("http://127.0.0.1:9", api_key="very-secret") as client:
        assert "very-secret" not in repr(vars(client))
