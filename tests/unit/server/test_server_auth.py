"""Keys, rates and ceilings; and that nothing is served to other machines without a key unless that is meant."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.errors import InputError
from grader.limits import MIB, Limits
from grader.server import auth, keys
from grader.server.auth import KeyRing, TokenBucket
from grader.server.parts import standard_parts
from grader.server.settings import ServerSettings, ceilings_of, is_loopback


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def front_with(make_front, key_file):
    return make_front(ServerSettings(api_keys_file=key_file))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def basic(credentials: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def test_a_key_in_the_url_opens_the_service(make_front, key_file, problem_in):
    key = keys.add_key(key_file, "team")
    front = front_with(make_front, key_file)
    for user in ("grader", "", "é"):
        assert front.grade("x", headers=basic(f"{user}:{key}")).status_code == 200
    for credentials in (f"{key}:", key, f"{key}:grader", f"grader:{key} ", f"a:b:{key}", ":", ""):
        answer = front.grade("x", headers=basic(credentials))
        problem_in(answer, 401)
        assert "basic" not in answer.headers["www-authenticate"].lower()
    for broken in (
        "Basic",
        "Basic %%%",
        "Basic abc",
        f"Basic {base64.b64encode(bytes([255, 58, 255])).decode()}",
    ):
        problem_in(front.grade("x", headers={"authorization": broken}), 401)
    disabled = keys.add_key(key_file, "late", disabled=True)
    problem_in(front_with(make_front, key_file).grade("x", headers=basic(f"u:{disabled}")), 403)


@pytest.mark.parametrize("name", ["httpx", "requests", "aiohttp"])
def test_clients_send_the_key_of_a_url(name):
    """With their first request, since they are never asked for it."""
    library = pytest.importorskip(name)
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(self.headers["authorization"])
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Keep quiet."""

    async def with_aiohttp(url):
        async with library.ClientSession() as session, session.post(url):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://user:grd_-_1@127.0.0.1:{server.server_port}/run_code"
            if name == "aiohttp":
                asyncio.run(with_aiohttp(url))
            else:
                library.post(url, timeout=60)
        finally:
            server.shutdown()
            thread.join()
    assert seen == [basic("user:grd_-_1")["authorization"]]


def test_a_key_opens_the_service_in_either_header(make_front, key_file, problem_in):
    key = keys.add_key(key_file, "team")
    front = front_with(make_front, key_file)
    assert front.grade("x", headers=bearer(key)).status_code == 200
    assert front.grade("x", headers={"x-api-key": key}).status_code == 200
    for headers in (
        {},
        bearer("nope"),
        bearer(""),
        {"authorization": f"Basic {key}"},
        {"x-api-key": key[:-1]},
    ):
        answer = front.grade("x", headers=headers)
        problem_in(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    problem_in(front.ask("GET", "/v1/suites"), 401)
    for path in ("/healthz", "/readyz", "/openapi.json", "/"):
        assert front.ask("GET", path).status_code == 200


def test_a_request_without_a_key_is_refused_before_its_body_is_read(make_front, key_file, problem_in):
    keys.add_key(key_file, "team")
    problem_in(front_with(make_front, key_file).send(b"\xff" * 100), 401)


def test_the_file_has_no_key_in_it_and_is_the_owners_alone(key_file):
    key = keys.add_key(key_file, "team", weight=2.0)
    text = key_file.read_text()
    assert key not in text
    assert json.loads(text) == {"tenant": "team", "sha256": keys.key_hash(key), "weight": 2.0}
    assert key_file.stat().st_mode & 0o077 == 0


def test_a_key_is_added_after_a_last_line_without_an_end(key_file):
    first = keys.add_key(key_file, "a")
    key_file.write_text(key_file.read_text().rstrip("\n"))
    second = keys.add_key(key_file, "b")
    assert [line.sha256 for line in keys.read_keys(key_file)] == [keys.key_hash(first), keys.key_hash(second)]


def test_the_tenant_weight_and_ceilings_are_the_keys(make_front, key_file):
    key = keys.add_key(key_file, "team", weight=3.0, ceilings={"memory_bytes": 64 * MIB, "threads": 2})
    front = front_with(make_front, key_file)
    batches = []
    grade = front.grading.grade
    front.grading.grade = lambda batch: batches.append(batch) or grade(batch)
    front.grade("x", headers=bearer(key), limits={"threads": 8, "time_floor_s": 7})
    assert (batches[0].tenant, batches[0].weight) == ("team", 3.0)
    assert batches[0].limits == Limits(memory_bytes=64 * MIB, threads=2, time_floor_s=7.0)


def test_the_services_ceilings_hold_for_all_and_a_keys_own_on_top(make_front, key_file):
    key = keys.add_key(key_file, "team", ceilings={"memory_bytes": 64 * MIB, "time_floor_s": 9})
    ceilings = ceilings_of('{"memory_bytes": 134217728, "time_floor_s": 2}')
    for headers, memory_bytes in ((bearer(key), 64 * MIB), ({}, 128 * MIB)):
        file = key_file if headers else None
        front = make_front(ServerSettings(api_keys_file=file, ceilings=ceilings))
        batches = []
        grade = front.grading.grade
        front.grading.grade = lambda batch, grade=grade, batches=batches: (
            batches.append(batch) or grade(batch)
        )
        front.grade("x", headers=headers, limits={"time_floor_s": 7})
        assert batches[0].limits == Limits(memory_bytes=memory_bytes, time_floor_s=2.0)


@pytest.mark.parametrize("text", ["{", '{"memory": 1}', '{"memory_bytes": 1}', "[]"])
def test_ceilings_that_are_none_are_refused_at_the_start(text):
    with pytest.raises(InputError, match="GRADER_CEILINGS"):
        ceilings_of(text)


def test_a_disabled_key_is_403(make_front, key_file, problem_in):
    key = keys.add_key(key_file, "team", disabled=True)
    problem_in(front_with(make_front, key_file).grade("x", headers=bearer(key)), 403)


def test_more_requests_or_samples_than_the_rate_are_429(make_front, key_file, problem_in):
    slow = keys.add_key(key_file, "slow", requests_per_s=0.001)
    few = keys.add_key(key_file, "few", samples_per_s=0.5)
    front = front_with(make_front, key_file)
    assert front.grade("x", headers=bearer(slow)).status_code == 200
    answer = front.grade("x", headers=bearer(slow))
    assert problem_in(answer, 429)["title"] == "Rate exceeded"
    assert 900 < int(answer.headers["retry-after"]) <= 1000
    assert front.grade("x", "y", "z", headers=bearer(few)).status_code == 200
    problem_in(front.grade("x", headers=bearer(few)), 429)


@pytest.mark.parametrize(
    ("solution", "change", "status"),
    [
        ("x", {"suite": "nope"}, 422),
        ("x", {"groups": ["nope"]}, 422),
        ("# stub: overload", {}, 429),
        ("# stub: break", {}, 503),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"accept": "application/x-ndjson"}])
def test_samples_that_are_refused_do_not_use_up_the_rate(
    make_front, key_file, solution, change, status, headers
):
    key = keys.add_key(key_file, "few", samples_per_s=1)
    front = front_with(make_front, key_file)
    samples = [{"task_id": "Starter/0", "sample_id": f"s{n}", "solution": solution} for n in range(500)]
    body = {"suite": "starter", "samples": samples, "use_cache": False, **change}
    answer = front.ask("POST", "/v1/grade", json=body, headers=bearer(key) | headers)
    assert answer.status_code == status, answer.text
    assert answer.json()["title"] != "Rate exceeded"
    assert front.grade("x", headers=bearer(key)).status_code == 200


def test_rewards_that_are_refused_do_not_use_up_the_rate(make_front, key_file):
    key = keys.add_key(key_file, "few", samples_per_s=1)
    front = make_front(ServerSettings(api_keys_file=key_file), parts=standard_parts(None, ["openrlhf"]))
    rows = {
        "suite": "starter",
        "task_ids": ["Starter/0"] * 100,
        "completions": ["```python\n# stub: overload\n```"] * 100,
    }
    answer = front.ask("POST", "/v1/rewards", json=rows, headers=bearer(key))
    assert answer.json()["title"] == "Queue full"
    labels = {"query": ["x"] * 100, "prompts": [""] * 100, "labels": ["nope"] * 100}
    answer = front.ask("POST", "/openrlhf/reward?suite=starter", json=labels, headers=bearer(key))
    assert answer.status_code == 422, answer.text
    one = {"suite": "starter", "task_ids": ["Starter/0"], "completions": ["x"]}
    assert front.ask("POST", "/v1/rewards", json=one, headers=bearer(key)).status_code == 200


def test_requests_that_are_refused_use_up_the_rate_of_requests(make_front, key_file, problem_in):
    key = keys.add_key(key_file, "slow", requests_per_s=0.001)
    front = front_with(make_front, key_file)
    problem_in(front.grade("x", suite="nope", headers=bearer(key)), 422, "suite")
    problem_in(front.grade("x", suite="nope", headers=bearer(key)), 429)


def test_what_is_given_back_is_no_more_than_what_can_go_through_at_once():
    bucket = TokenBucket(5.0)
    assert bucket.take(12, 0.0) == 0.0
    assert bucket.level == -7.0
    bucket.give_back(12)
    assert bucket.level == 5.0
    bucket.give_back(12)
    assert bucket.level == 5.0


def test_a_changed_file_is_read_again_and_a_wrong_one_is_not_believed(key_file, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(auth.time, "monotonic", lambda: clock[0])
    first = keys.add_key(key_file, "first", requests_per_s=1000)
    ring = KeyRing(key_file)
    second = keys.add_key(key_file, "second")

    def known(key):
        try:
            return ring.caller(key).owner.tenant
        except auth.Refused:
            return None

    assert (known(first), known(second)) == ("first", None)
    gate = ring.caller(first).gate
    clock[0] += 1.5
    assert (known(first), known(second)) == ("first", "second")
    assert ring.caller(first).gate is gate  # what it has used up stays used up
    good = key_file.read_bytes()
    for wrong in (b"{}", b"\xff", b'{"tenant": "x"'):
        key_file.write_bytes(good + wrong)
        clock[0] += 1.5
        assert (known(first), known(second)) == ("first", "second")
    key_file.unlink()
    clock[0] += 1.5
    assert known(first) == "first"
    replacement = key_file.with_suffix(".new")
    replacement.write_bytes(good.splitlines(keepends=True)[1])
    replacement.replace(key_file)
    clock[0] += 1.5
    assert (known(first), known(second)) == (None, "second")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{}", "tenant"),
        ('{"tenant": "a", "sha256": "00"}', "sha256"),
        ('{"tenant": "a b", "sha256": "' + "0" * 64 + '"}', "tenant"),
        ('{"tenant": "a", "sha256": "' + "0" * 64 + '", "wieght": 2}', "wieght"),
        ('{"tenant": "a", "sha256": "' + "0" * 64 + '", "weight": 0}', "weight"),
        ('{"tenant": "a", "sha256": "' + "0" * 64 + '", "weight": 1e-7}', "weight"),
        ('{"tenant": "a", "sha256": "' + "0" * 64 + '", "requests_per_s": 1e-320}', "requests_per_s"),
        (
            '{"tenant": "a", "sha256": "' + "0" * 64 + '", "ceilings": {"memory_bytes": "1G"}}',
            "ceilings.memory_bytes",
        ),
    ],
)
def test_a_wrong_file_keeps_the_service_from_starting(key_file, line, said):
    key_file.write_text(f"# the team's keys\n\n{line}\n")
    with pytest.raises(InputError, match=f"line 3: {said}"):
        KeyRing(key_file)
    with pytest.raises(InputError, match="cannot be read"):
        KeyRing(key_file.with_suffix(".none"))


def test_one_key_has_one_line(key_file):
    keys.add_key(key_file, "a")
    key_file.write_text(key_file.read_text() * 2)
    with pytest.raises(InputError, match="line 2: this key has a line already"):
        KeyRing(key_file)


@pytest.mark.parametrize("tenant", ["", "a b", "-x", "x" * 65, "a\n"])
def test_tenants_have_plain_names(key_file, tenant):
    with pytest.raises(InputError, match="tenant"):
        keys.add_key(key_file, tenant)
    assert not key_file.exists()


@given(
    st.floats(0.01, 1e4),
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 10)), max_size=50),
)
def test_no_more_goes_through_than_the_rate_one_burst_and_one_batch(rate, attempts):
    bucket, now, through, largest = TokenBucket(rate), 0.0, 0, 0
    for amount, pause in attempts:
        now += pause
        wait_s = bucket.take(amount, now)
        assert wait_s >= 0
        if wait_s == 0:
            through += amount
            largest = max(largest, amount)
        else:
            # Who waits as long as is said gets through.
            assert TokenBucket.take(_copy(bucket), amount, now + wait_s * 1.0001 + 1e-6) == 0
    assert through <= (now * rate + bucket.burst + largest) * 1.0001


def _copy(bucket: TokenBucket) -> TokenBucket:
    other = TokenBucket(bucket.rate)
    other.level, other.at = bucket.level, bucket.at
    return other


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_other_machines_are_not_served_without_keys_unless_told_so(host, key_file):
    with pytest.raises(InputError, match="--api-keys-file"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, allow_anonymous=True)
    assert ServerSettings(host=host, api_keys_file=key_file)
    with pytest.raises(InputError, match="contradict"):
        ServerSettings(host=host, api_keys_file=key_file, allow_anonymous=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine_is_served_without_keys(host):
    assert is_loopback(host)
    assert ServerSettings(host=host)
