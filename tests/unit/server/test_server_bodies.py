"""Bodies that are too large, damaged, bombs or no JSON are refused, each with its own answer."""

from __future__ import annotations

import gzip
import json
import threading
import types
import zlib
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from grader.server import bodies
from grader.server.bodies import decompressed, parsed, place_of
from grader.server.models import GradeRequest
from grader.server.parts import standard_parts
from grader.server.problems import Refused
from grader.server.settings import ServerSettings

CAP = 64 * 1024
PACK = {"gzip": gzip.compress, "zstd": zstandard.compress}


@pytest.fixture
def small(make_front):
    return make_front(ServerSettings(max_body_bytes=CAP))


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "zstd", "identity", " GZIP "])
def test_bodies_may_be_compressed(front, body, encoding):
    pack = PACK.get(encoding.strip().lower().removeprefix("x-"), bytes)
    assert front.send(pack(body), content_encoding=encoding).status_code == 200


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_several_members_are_one_body(body, pack):
    name = next(name for name, one in PACK.items() if one is pack)
    assert decompressed(pack(body[:10]) + pack(body[10:]), name, CAP) == body


def test_a_large_body_is_413_and_says_how_large_it_may_be(small, body, problem_in):
    padded = body + b" " * CAP
    found = problem_in(small.send(padded), 413)
    assert str(CAP) in found["detail"]
    assert small.send(padded).headers["connection"] == "close"
    assert small.send(body + b" " * (CAP - len(body))).status_code == 200


def test_a_large_body_in_chunks_is_413(small, problem_in):
    async def chunks():
        for _ in range(40):
            yield b" " * 4096

    answer = small.ask("POST", "/v1/grade", content=chunks(), headers={"content-type": "application/json"})
    problem_in(answer, 413)


@pytest.mark.parametrize("encoding", PACK)
def test_a_bomb_is_413(small, encoding, problem_in):
    bomb = PACK[encoding](bytes(64 << 20))
    assert len(bomb) < CAP
    problem_in(small.send(bomb, content_encoding=encoding), 413)


@pytest.mark.parametrize("encoding", PACK)
def test_a_truncated_body_is_400(front, body, encoding, problem_in):
    packed = PACK[encoding](body)
    problem_in(front.send(packed[:-3], content_encoding=encoding), 400)
    problem_in(front.send(b"", content_encoding=encoding), 400)


@pytest.mark.parametrize("encoding", PACK)
def test_garbage_is_400(front, body, encoding, problem_in):
    problem_in(front.send(body, content_encoding=encoding), 400)
    problem_in(front.send(PACK[encoding](body) + b"garbage", content_encoding=encoding), 400)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd,gzip"])
def test_other_encodings_are_415_and_say_which_are_supported(front, body, encoding, problem_in):
    answer = front.send(body, content_encoding=encoding)
    problem_in(answer, 415)
    assert answer.headers["accept-encoding"] == "gzip, zstd"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/jsonp",
    ],
)
def test_other_content_types_are_415(front, body, content_type, problem_in):
    problem_in(front.send(body, content_type=content_type), 415)


def test_utf_8_may_be_named(front, body):
    assert front.send(body, content_type='application/json; charset="UTF-8"').status_code == 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"suite": "\xe4"}',
        b'{"suite": "\\ud800"}',
        b"[" * 100_000,
        b'{"samples": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"a": 1}{',
        b"\xef\xbb\xbf{}",
        b"{'suite': 1}",
        b'{"k": [01]}',
        b'{"k": [' + b"1" * 5000 + b"]}",
    ],
    ids=range(12),
)
def test_what_is_no_json_is_400(front, data, problem_in):
    problem_in(front.send(data), 400, "")


@pytest.mark.parametrize(
    ("data", "places"),
    [
        (b"[]", [""]),
        (b"null", [""]),
        (b"{}", ["samples"]),
        (b'{"samples": [{"task_id": 1, "solution": ""}]}', ["samples[0].task_id"]),
        (b'{"timeout_s": NaN, "samples": [{"task_id": "a"}]}', ["timeout_s"]),
        (b'{"timeout_s": Infinity, "samples": [{"task_id": "a"}]}', ["timeout_s"]),
        (b'{"timeout_s": 1e999, "samples": [{"task_id": "a"}]}', ["timeout_s"]),
        (b'{"samples": [{"task_id": "a", "tests": {"x": [1, NaN]}}]}', ["samples[0].tests"]),
        (b'{"limits": {"threads": 1.5}, "samples": [{"task_id": "a"}]}', ["limits.threads"]),
    ],
)
def test_what_is_not_asked_for_is_422_with_its_place(front, data, places, problem_in):
    problem_in(front.send(data), 422, *places)


def test_no_more_mistakes_are_listed_than_one_can_read(front):
    samples = [{"task_id": "nope", "solution": ""}] * 1000
    answer = front.ask("POST", "/v1/grade", json={"suite": "starter", "samples": samples})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 20
    unknown = dict.fromkeys(map(str, range(1000)), 1)
    answer = front.ask("POST", "/v1/grade", json=unknown)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 20


def test_of_very_many_mistakes_none_is_listed(front, problem_in, monkeypatch):
    """All of them would have to be made, which takes longer than the event loop may be held up."""
    monkeypatch.setattr(bodies, "_MAX_BUILT_ERRORS", 30)
    few, many = ({"suite": "starter", "samples": [{}] * count} for count in (30, 31))
    assert len(front.ask("POST", "/v1/grade", json=few).json()["errors"]) == 20
    found = problem_in(front.ask("POST", "/v1/grade", json=many), 422, "")
    assert "31 mistakes" in found["detail"]


def test_more_values_than_there_may_be_are_413_and_not_parsed(front, problem_in):
    body = b'{"samples": [{"task_id": "a", "solution": "x", "tests": [' + b"[]," * 2_000_000 + b"[]]}]}"
    found = problem_in(front.send(zstandard.compress(body), content_encoding="zstd"), 413)
    assert "4000000 values" in found["detail"]


def test_commas_and_brackets_in_texts_are_no_values(front):
    solution = "[1,2,3,4]\n" * 400_000  # 4,800,000 of the marks that stand before values
    samples = [{"task_id": "Starter/0", "sample_id": name, "solution": solution} for name in "abc"]
    data = json.dumps({"suite": "starter", "samples": samples, "use_cache": False}).encode()
    assert len(data) > 4_000_000
    assert front.send(data).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/grade", {"suite": "starter", "samples": [{"task_id": "Starter/0", "solution": "?"}]}),
        ("/v1/rewards", {"suite": "starter", "task_ids": ["Starter/0"], "completions": ["?"]}),
        ("/slime/reward", {"response": "?", "label": "Starter/0"}),
        ("/openrlhf/reward", {"query": ["?"], "prompts": [""], "labels": ["Starter/0"]}),
        ("/verify", {"responses_create_params": {}, "response": {"output": ["?"]}}),
    ],
)
def test_large_bodies_are_parsed_beside_the_event_loop(make_front, monkeypatch, path, body):
    threads = []

    def noted(*arguments):
        threads.append(threading.current_thread())
        return parsed(*arguments)

    monkeypatch.setattr(bodies, "parsed", noted)
    names = [name for name in ("slime", "openrlhf") if name in path] or ["nemo-gym"]
    front = make_front(parts=standard_parts(None, names))
    for size in (1, 64 * 1024):
        content = json.dumps(body).replace('"?"', f'"{"x" * size}"')
        front.ask("POST", path, content=content, headers={"content-type": "application/json"})
    small, large = threads
    assert small is threading.main_thread()
    assert large is not threading.main_thread()


def test_places_are_paths():
    assert place_of(("samples", 3, "task_id")) == "samples[3].task_id"
    assert place_of(()) == ""
    assert len(place_of(("x" * 1000,))) == 200


@given(st.binary(max_size=3000), st.sampled_from(sorted(PACK)), st.data())
def test_what_is_packed_comes_out_and_damage_never_passes_for_it(data, encoding, draw):
    packed = bytearray(PACK[encoding](data))
    assert decompressed(bytes(packed), encoding, CAP) == data
    packed[draw.draw(st.integers(0, len(packed) - 1))] ^= draw.draw(st.integers(1, 255))
    with suppress(Refused):
        assert len(decompressed(bytes(packed), encoding, CAP)) <= CAP


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_body_raises_anything_but_a_refusal(data):
    with suppress(Refused):
        parsed(data, GradeRequest)


def test_a_gzip_of_many_small_members_is_read_in_bounds():
    members = gzip.compress(b"") * 1000
    assert decompressed(members, "gzip", CAP) == b""
    with pytest.raises(Refused):
        decompressed(members + zlib.compress(b"x"), "gzip", CAP)


@pytest.mark.parametrize("encoding", PACK)
def test_more_members_than_there_may_be_are_400(front, encoding, problem_in):
    member = PACK[encoding](b" ")
    assert decompressed(member * 1000, encoding, CAP) == b" " * 1000
    with pytest.raises(Refused):
        decompressed(member * 1001, encoding, CAP)
    problem_in(front.send(member * 1001, content_encoding=encoding), 400)


def test_members_do_not_make_what_is_behind_them_be_copied(monkeypatch):
    given = []

    class Member:
        def __init__(self, *arguments):
            self._member = zlib.decompressobj(*arguments)

        def decompress(self, data, *arguments):
            given.append(len(data))
            return self._member.decompress(data, *arguments)

        def __getattr__(self, name):
            return getattr(self._member, name)

    monkeypatch.setattr(bodies, "zlib", types.SimpleNamespace(decompressobj=Member, error=zlib.error))
    incompressible = gzip.compress(bytes(range(256)) * 16_000, compresslevel=0)
    packed = gzip.compress(b"x") * 900 + incompressible
    assert len(decompressed(packed, "gzip", 64 << 20)) == 900 + 256 * 16_000
    assert sum(given) < len(packed) + 1000 * 64 * 1024
