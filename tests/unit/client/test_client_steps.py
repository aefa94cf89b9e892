"""What the client decides, without a network: any sequence of failures leads to every verdict once, or to an error."""

from __future__ import annotations

import json
import random
from email.utils import formatdate
from typing import Any

import pytest
from grade_server import summary_of, verdict_on
from hypothesis import given
from hypothesis import strategies as st

from grader.client.bodies import encode_samples
from grader.client.errors import ServerFailed, ServerUnavailable
from grader.client.grading import Bounds, Grading
from grader.client.retries import Attempts, Failure, RetryPolicy, Servers, retry_after_s
from grader.client.steps import Emit, Head, Lost, Read, Send, Wait
from grader.errors import InputError

NDJSON = {"content-type": "application/x-ndjson; charset=utf-8"}
STATUSES = ("passed", "wrong_answer", "infrastructure_error")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Answers:
    """A server in memory. ``script`` has a status for each request, or the share that is sent."""

    def __init__(self, script: list[int | float], cap: int) -> None:
        self.script = script
        self.cap = cap
        self.pieces: list[bytes | Lost] = []
        self.keys: dict[str, bytes] = {}

    def send(self, step: Send) -> Head | Lost:
        body = step.request.body or b""
        assert self.keys.setdefault(step.request.headers["Idempotency-Key"], body) == body
        samples = json.loads(body)["samples"]
        if len(samples) > self.cap:
            self.pieces = [b'{"detail": "too many"}', b""]
            return Head(413, {})
        event = self.script.pop(0) if self.script else 1.0
        if isinstance(event, int):
            self.pieces = [b"not JSON", b""]
            return Lost("reset") if event == 0 else Head(event, {"retry-after": "2"})
        verdicts = [verdict_on(sample) for sample in samples]
        whole = "".join(json.dumps(row) + "\n" for row in [*verdicts, summary_of(verdicts, [1, 2])]).encode()
        cut = whole[: int(len(whole) * event)]
        self.pieces = [cut[at : at + 700] for at in range(0, len(cut), 700)]
        self.pieces.append(b"" if event == 1.0 else random.Random(event).choice([b"", Lost("cut")]))
        return Head(200, NDJSON)


def drive(steps: Any, answers: Answers, clock: Clock) -> tuple[list[str], Any]:
    """Carry the steps out in memory; returns the ids of the verdicts, and the result."""
    emitted, reply = [], None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as end:
            return emitted, end.value
        reply = None
        if isinstance(step, Send):
            reply = answers.send(step)
        elif isinstance(step, Read):
            reply = answers.pieces.pop(0)
        elif isinstance(step, Wait):
            clock.now += step.seconds
        elif isinstance(step, Emit):
            emitted.append(step.verdict.sample_id)


@given(
    n=st.integers(1, 12),
    script=st.lists(st.sampled_from([0, 429, 503, 504]) | st.floats(0, 0.999), max_size=9),
    cap=st.integers(1, 12),
    per_request=st.integers(1, 12),
)
def test_every_verdict_comes_once(n: int, script: list[int | float], cap: int, per_request: int) -> None:
    given_samples = [{"task_id": f"T/{i % 2}", "solution": STATUSES[i % 3]} for i in range(n)]
    clock = Clock()
    servers = Servers(["http://a", "http://b"], clock)
    policy = RetryPolicy(attempts=30, total_s=1e9)
    grading = Grading(
        encode_samples(given_samples), {"suite": "toy"},
        lambda key: Attempts(policy, servers, key, random.Random(0)), Bounds(samples=per_request), None,
    )  # fmt: skip
    emitted, summary = drive(grading.steps(), Answers(script, cap), clock)
    ids = [sample.sample_id for sample in grading.samples]
    assert sorted(emitted) == sorted(ids)
    whole = summary_of(
        [verdict_on({**row, "sample_id": i}) for row, i in zip(given_samples, ids, strict=True)], [1, 2]
    )
    times = ("wall_s", "samples_per_s")
    mine = summary.model_dump(mode="json")
    assert {k: v for k, v in mine.items() if k not in times} == {
        k: v for k, v in whole.items() if k not in times
    }


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (200, {"content-type": "text/html"}, b"<html>", "text/html"),
        (200, NDJSON, b'{"task_id": "T", "sample_id": "T:0"}\n', "Verdict.*not in the contract"),
        (200, NDJSON, b'{"hello": 1}\n', "no verdict, summary or problem"),
        (200, NDJSON, b'{"status": 500, "title": "Internal Server Error"}\n', "broke off with 500"),
    ],
)
def test_an_answer_outside_of_the_contract_is_a_failure_of_the_server(
    status: int, headers: dict[str, str], body: bytes, said: str
) -> None:
    answers = Answers([], 9)

    def send(step: Send) -> Head:
        answers.pieces = [body, b""]
        return Head(status, headers)

    answers.send = send  # type: ignore[method-assign]
    servers = Servers(["http://a"])
    grading = Grading(
        encode_samples([{"task_id": "T", "solution": ""}]), {},
        lambda key: Attempts(RetryPolicy(), servers, key, random.Random(0)), Bounds(), None,
    )  # fmt: skip
    with pytest.raises(ServerFailed, match=said):
        drive(grading.steps(), answers, Clock())


@given(
    failures=st.lists(st.tuples(st.none() | st.floats(0, 1e6), st.floats(0, 50)), min_size=1, max_size=40),
    servers=st.integers(1, 4),
)
def test_waiting_is_bounded(failures: list[tuple[float | None, float]], servers: int) -> None:
    clock = Clock()
    policy = RetryPolicy(attempts=10, total_s=200, cap_s=20, retry_after_cap_s=60)
    rotation = Servers([f"http://{n}" for n in range(servers)], clock)
    attempts = Attempts(policy, rotation, "key", random.Random(1))
    begin = clock.now
    for count, (asked, spent) in enumerate(failures, 1):
        url = attempts.server()
        wait = attempts.failed(url, Failure("x", 503, asked))
        if wait is None:
            return
        assert count < policy.attempts
        assert wait <= policy.cap_s + policy.retry_after_cap_s
        assert clock.now + wait - begin <= policy.total_s
        if servers == 1 and asked is not None:
            assert wait >= min(asked, policy.retry_after_cap_s)
        clock.now += wait + spent
    assert len(failures) < policy.attempts


def test_a_key_has_its_server_until_that_one_fails() -> None:
    clock = Clock()
    urls = [f"http://{n}" for n in range(5)]
    servers = Servers(urls, clock)
    first = {key: servers.choose(key) for key in map(str, range(200))}
    assert set(first.values()) == set(urls)
    servers.failed(urls[0], aside_s=30, retry_after_s=0)
    moved = {key: servers.choose(key) for key in first}
    assert urls[0] not in moved.values()
    assert all(moved[key] == url for key, url in first.items() if url != urls[0])
    clock.now += 31
    assert {key: servers.choose(key) for key in first} == first


def test_other_servers_are_asked_at_once_and_then_with_growing_waits() -> None:
    clock = Clock()
    attempts = Attempts(RetryPolicy(), Servers(["http://a", "http://b"], clock), "key", random.Random(0))
    tried = []
    for _ in range(4):
        tried.append(attempts.server())
        wait = attempts.failed(tried[-1], Failure("x"))
        assert wait is not None
        assert (wait == 0) == (len(tried) == 1)
        clock.now += wait
    assert set(tried[:2]) == {"http://a", "http://b"}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), (" 0 ", 0.0), ("-3", None), ("soon", None), ("", None), (None, None), ("1e9", None),
        ("99999999999999999999", None), (formatdate(1_000_030, usegmt=True), 30.0), (formatdate(5, usegmt=True), 0.0),
    ],
)  # fmt: skip
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, 1_000_000.0) == seconds


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"total_s": -1}, {"base_s": float("nan")}])
def test_a_policy_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        RetryPolicy(**wrong)


def test_giving_up_says_what_happened_last() -> None:
    servers = Servers(["http://a"])
    grading = Grading(
        encode_samples([{"task_id": "T", "solution": ""}]), {},
        lambda key: Attempts(RetryPolicy(attempts=2), servers, key, random.Random(0)), Bounds(), None,
    )  # fmt: skip
    with pytest.raises(ServerUnavailable, match=r"after 2 attempts; the last one, http://a: .*503"):
        drive(grading.steps(), Answers([0, 503], 9), Clock())
