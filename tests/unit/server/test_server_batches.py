"""Requests are parsed strictly, and become batches or refusals that name the place."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from grader.errors import SuiteError
from grader.limits import Limits
from grader.server.batches import Owner, given_task_ids, make_batch
from grader.server.models import GradeRequest
from grader.server.problems import Refused
from grader.server.suites import SuiteNotHereError, Suites
from grader.suites import registry

STARTER = registry.load("starter")
TASK = next(iter(STARTER.tasks))
TESTS = ["assert add(1, 2) == 3"]


def parsed(**fields: object) -> GradeRequest:
    body = {"suite": "starter", "samples": [{"task_id": TASK, "solution": "x = 1"}], **fields}
    return GradeRequest.model_validate_json(json.dumps(body).encode())


def refusal(request: GradeRequest) -> Refused:
    with pytest.raises(Refused) as caught:
        make_batch(request, Suites(), owner=Owner(), request_id="r")
    return caught.value


def test_a_batch_has_what_the_request_and_the_owner_say():
    owner = Owner(tenant="team", weight=2.0, ceilings=Limits(memory_bytes=64 << 20))
    request = parsed(limits={"time_floor_s": 2, "memory_bytes": 128 << 20}, timeout_s=30, fail_fast=False)
    batch = make_batch(request, Suites(), owner=owner, request_id="r")
    assert (batch.tenant, batch.weight, batch.timeout_s, batch.fail_fast) == ("team", 2.0, 30.0, False)
    assert (batch.limits.time_floor_s, batch.limits.memory_bytes) == (2.0, 64 << 20)
    assert batch.suite.sha256 == STARTER.sha256
    assert [(p.task_id, p.sample_id, p.source) for p in batch.programs] == [(TASK, f"{TASK}:0", "x = 1")]
    assert batch.groups == tuple(dict.fromkeys(g.name for t in STARTER.tasks.values() for g in t.groups))


def test_a_completion_becomes_a_program():
    request = parsed(
        samples=[{"task_id": TASK, "completion": "Sure:\n```python\ndef f():\n    return 1\n```"}]
    )
    program = make_batch(request, Suites(), owner=Owner(), request_id="r").programs[0]
    assert program.how is not None
    assert "```" not in program.source


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"suite": "no such suite"}, "suite"),
        ({"suite": "../../etc/passwd"}, "suite"),
        ({"suite": None}, "suite"),
        ({"groups": ["nope"]}, "groups"),
        ({"profile": "rewards"}, "profile"),
        (
            {"samples": [{"task_id": TASK, "solution": ""}, {"task_id": "x", "solution": ""}]},
            "samples[1].task_id",
        ),
        ({"samples": [{"task_id": TASK}]}, "samples[0]"),
        ({"samples": [{"task_id": TASK, "solution": "", "completion": ""}]}, "samples[0]"),
        (
            {"samples": [{"task_id": TASK, "sample_id": "a", "solution": ""}] * 2},
            "samples[1].sample_id",
        ),
        ({"samples": [{"task_id": TASK, "solution": "", "tests": []}]}, "samples[0].tests"),
        ({"suite": None, "samples": [{"task_id": "x", "solution": "", "tests": {}}]}, "samples[0].tests"),
        (
            {"suite": None, "samples": [{"task_id": "x", "solution": "", "tests": TESTS}, {"task_id": "y"}]},
            "samples[1].tests",
        ),
        (
            {
                "suite": None,
                "samples": [
                    {"task_id": "x", "solution": "", "tests": TESTS},
                    {"task_id": "x", "solution": "", "tests": ["assert 2 == 2"]},
                ],
            },
            "samples[1].tests",
        ),
    ],
)
def test_what_cannot_be_graded_is_refused_with_its_place(fields, place):
    error = refusal(parsed(**fields))
    assert [found.place for found in error.errors] == [place]
    assert error.status == 422


def test_samples_with_tests_of_their_own_make_a_suite():
    samples = [{"task_id": "mine", "solution": "def add(a, b): return a + b", "tests": TESTS}] * 2
    request = parsed(suite=None, samples=samples)
    batch = make_batch(request, Suites(), owner=Owner(), request_id="r")
    assert [program.sample_id for program in batch.programs] == ["mine:0", "mine:1"]
    assert {program.task_id for program in batch.programs} == set(batch.suite.tasks)
    assert given_task_ids(request, batch) == {"mine:0": "mine", "mine:1": "mine"}


def test_a_sample_id_that_is_made_up_does_not_meet_one_that_is_given():
    samples = [{"task_id": TASK, "sample_id": f"{TASK}:1", "solution": ""}, {"task_id": TASK, "solution": ""}]
    assert [found.place for found in refusal(parsed(samples=samples)).errors] == ["samples[1].sample_id"]


@pytest.mark.parametrize(
    "fields",
    [
        {"samples": []},
        {"samples": [{"task_id": TASK, "solution": 3}]},
        {"samples": [{"task_id": "", "solution": ""}]},
        {"samples": [{"task_id": TASK, "solution": "", "sample_id": "x" * 513}]},
        {"samples": [{"task_id": TASK, "solution": "", "model": "m"}]},
        {"k": []},
        {"k": [0]},
        {"k": ["1"]},
        {"k": [True]},
        {"timeout_s": 0},
        {"timeout_s": "3"},
        {"timeout_s": float("nan")},
        {"limits": {"memory_bytes": 1}},
        {"limits": {"time_floor_s": float("inf")}},
        {"limits": {"time": 3}},
        {"use_cache": 1},
        {"time_out": 3},
    ],
)
def test_fields_have_types_and_limits(fields):
    with pytest.raises(ValidationError):
        parsed(**fields)


def test_an_operators_suite_is_served_under_its_own_name(tmp_path: Path):
    task = {
        "task_id": "add",
        "prompt": "def add(a, b):\n",
        "entry_point": "add",
        "canonical_solution": "    return a + b\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    }
    (tmp_path / "mine.jsonl").write_text(json.dumps(task) + "\n")
    suites = Suites([str(tmp_path / "mine.jsonl")])
    assert "mine" in suites.names
    assert suites.load("mine").tasks.keys() == {"add"}
    (tmp_path / "starter.jsonl").write_text(json.dumps(task) + "\n")
    with pytest.raises(SuiteError, match="another suite named 'starter'"):
        Suites([str(tmp_path / "starter.jsonl")])


def test_a_suite_whose_data_is_missing_is_refused_without_saying_where_it_is_missing(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("GRADER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("GRADER_CACHE_DIR", str(tmp_path))
    name = next(info.name for info in registry.available() if info.sha256 and info.location is None)
    # Neither without the file, for which nothing is downloaded, nor with a wrong one.
    for _ in range(2):
        error = refusal(parsed(suite=name))
        assert isinstance(error, SuiteNotHereError)
        assert error.status == 422
        assert "is not on this server" in error.detail
        assert str(tmp_path) not in error.detail
        (tmp_path / next(i.file_name for i in registry.available() if i.name == name)).write_bytes(b"{}")


@pytest.mark.parametrize(
    ("number", "status"), [(errno.EMFILE, 503), (errno.EIO, 503), (errno.ENOENT, 422), (None, 422)]
)
def test_a_suite_that_cannot_be_read_now_is_not_the_clients_mistake(monkeypatch, number, status):
    suites = Suites()

    def fail(_path: Path) -> bytes:
        raise OSError("a damaged file") if number is None else OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(SuiteNotHereError) as caught:
        suites.load("starter")
    assert caught.value.status == status
    assert (caught.value.retry_after_s is not None) == (status == 503)
    monkeypatch.undo()
    assert suites.load("starter").name == "starter"
