"""Bodies that are too large, damaged, bombs or no JSON are refused, each with its own answer."""

from __future__ import annotations

import gzip
import json
import zlib
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from grader.server.bodies import decompressed, parsed, place_of
from grader.server.models import GradeRequest
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
