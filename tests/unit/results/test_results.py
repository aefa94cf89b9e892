import json
from dataclasses import replace

import pytest

from grader.errors import InfrastructureError, InputError
from grader.limits import Limits
from grader.results import (
    RunIdentity,
    check_writable,
    evalplus_results,
    open_verdicts,
    write_atomically,
)
from grader.sandbox.options import CellOptions
from grader.suites.task import AssertionTests, FunctionTests, Suite, Task, TestGroup

IDENTITY = RunIdentity(
    suite={"name": "toy", "version": "1", "sha256": "0" * 64},
    samples_sha256="1" * 64,
    groups=("base",),
    limits=Limits(),
    fail_fast=True,
    cells=CellOptions(),
    cells_digest="sha256:1",
)
IDS = {"a", "b", "c"}


def verdict(sample_id, status="passed"):
    return {
        "task_id": "T/0",
        "sample_id": sample_id,
        "status": status,
        "groups": {"base": None},
        "cpu_s": 0.5,
        "cached": False,
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "verdicts.jsonl"


def write(path, verdicts, identity=IDENTITY, resume=False):
    with open_verdicts(path, identity, resume=resume, sample_ids=IDS) as file:
        kept = file.kept
        for found in verdicts:
            file.write(found)
    return [found["sample_id"] for found in kept]


def lines(path):
    return [json.loads(line)["sample_id"] for line in path.read_text().splitlines()]


def test_verdicts_are_on_disk_as_soon_as_they_are_written(path):
    with open_verdicts(path, IDENTITY, resume=False, sample_ids=IDS) as file:
        file.write(verdict("a"))
        assert lines(path) == ["a"]


def test_a_new_run_replaces_an_old_file(path):
    write(path, [verdict("a")])
    write(path, [verdict("b")], replace(IDENTITY, fail_fast=False))
    assert lines(path) == ["b"]


def test_resuming_goes_on(path):
    write(path, [verdict("a")])
    assert write(path, [verdict("b"), verdict("c")], resume=True) == ["a"]
    assert lines(path) == ["a", "b", "c"]
    assert write(path, [], resume=True) == ["a", "b", "c"]


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_line_is_dropped(path, cut):
    write(path, [verdict("a"), verdict("b")])
    path.write_bytes(path.read_bytes()[:-cut])
    assert write(path, [verdict("b")], resume=True) == ["a"]
    assert lines(path) == ["a", "b"]


def test_infrastructure_errors_are_graded_again(path):
    write(path, [verdict("a"), verdict("b", "infrastructure_error"), verdict("c")])
    assert write(path, [verdict("b")], resume=True) == ["a", "c"]
    assert lines(path) == ["a", "c", "b"]


def test_resuming_what_never_began_is_a_fresh_start(path):
    assert write(path, [verdict("a")], resume=True) == []
    path.write_bytes(b"")
    assert write(path, [verdict("a")], replace(IDENTITY, groups=("plus",)), resume=True) == []


@pytest.mark.parametrize(
    "change",
    [
        {"suite": {"name": "toy", "version": "1", "sha256": "f" * 64}},
        {"samples_sha256": "2" * 64},
        {"groups": ("base", "plus")},
        {"limits": Limits(time_floor_s=1)},
        {"fail_fast": False},
        {"cells": CellOptions(sandbox="docker")},
        {"cells": CellOptions(allow_missing=("landlock",))},
        {"cells_digest": "sha256:2"},
        {"flags": True},
    ],
)
def test_a_file_of_another_run_is_refused_and_left_alone(path, change):
    write(path, [verdict("a")])
    before = path.read_bytes()
    (name,) = change
    with pytest.raises(InputError, match=rf"from a run with other {name}( \(.*\))?; leave --resume out"):
        write(path, [], replace(IDENTITY, **change), resume=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"\xff"])
def test_a_missing_or_damaged_header_is_refused(path, content):
    write(path, [verdict("a")])
    header = path.with_name("verdicts.jsonl.run.json")
    header.unlink()
    if content is not None:
        header.write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json is (missing|damaged)|from a run with other"):
        write(path, [], resume=True)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{}", "no verdict"),
        (b"\xff", "no verdict"),
        (b"{", "no verdict"),
        (json.dumps(verdict("a", "fine")).encode(), "no verdict"),
        (json.dumps(verdict("a")).encode(), "a second verdict, 'a'"),
        (json.dumps(verdict("z")).encode(), "unknown sample, 'z'"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(path, line, says):
    write(path, [verdict("a")])
    path.write_bytes(path.read_bytes() + line + b"\n" + json.dumps(verdict("b")).encode() + b"\n")
    with pytest.raises(InputError, match=rf"verdicts\.jsonl, line 2: .*{says}"):
        write(path, [], resume=True)


def test_devices_are_written_to_without_a_header(tmp_path):
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    write(link, [verdict("a")])
    assert [file.name for file in tmp_path.iterdir()] == ["null"]
    with pytest.raises(InputError, match="cannot be resumed"):
        write(link, [], resume=True)


def test_a_full_disk_is_no_verdict(tmp_path):
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    with (
        pytest.raises(InfrastructureError, match=r"full: cannot write a verdict: No space left.*--resume"),
        open_verdicts(link, IDENTITY, resume=False, sample_ids=IDS) as file,
    ):
        file.write(verdict("a"))


def test_atomic_writing(tmp_path):
    target = tmp_path / "real.json"
    link = tmp_path / "link.json"
    link.symlink_to(target)
    for text in ("one", "two"):
        write_atomically(link, text)
        assert target.read_text() == text
    assert link.is_symlink()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.json", "real.json"]
    with pytest.raises(InfrastructureError, match="cannot write it: No such file"):
        write_atomically(tmp_path / "gone" / "x", "")


def test_places_are_checked_before_a_run(tmp_path):
    samples = tmp_path / "samples.jsonl"
    samples.write_text("")
    check_writable(tmp_path / "new.json", "--summary", samples)
    for bad, says in ((tmp_path, "is a folder"), (tmp_path / "no" / "x", "there is no folder")):
        with pytest.raises(InputError, match=f"--summary .*{says}"):
            check_writable(bad, "--summary", samples)
    with pytest.raises(InputError, match="the file with the samples"):
        check_writable(samples, "--output", samples)


def suite():
    base = TestGroup("base", FunctionTests(lambda: [[1], [(2, {3}, 4j)], [{5: "x"}]]))
    plus = TestGroup("plus", FunctionTests(lambda: [[None], [2.5]]))
    asserts = TestGroup("base", AssertionTests(["assert f()"]))
    return Suite(
        "toy",
        "1",
        "ab" * 32,
        {"T/0": Task("T/0", "", "f", "", (base, plus)), "T/1": Task("T/1", "", "f", "", (asserts,))},
    )


def group(status, first_failed=None):
    return {"status": status, "passed": 0, "total": 3, "first_failed": first_failed}


def test_evalplus_format():
    sources = [
        ("T/0", "a", "A"),
        ("T/0", "lost", "L"),
        ("T/1", "c", "C"),
        ("T/0", "b", "B"),
        ("T/0", "d", "D"),
    ]
    found = evalplus_results(
        suite(),
        sources,
        {
            "a": {"base": group("passed"), "plus": group("wrong_answer", 1)},
            "b": {"base": group("time_limit", 1), "plus": None},
            "c": {"base": group("runtime_error", 0)},
            "d": {"base": group("passed"), "plus": group("passed")},
        },
    )
    assert found["hash"] == "ab" * 32
    assert found["eval"]["T/0"] == [
        {
            "task_id": "T/0",
            "solution": "A",
            "base_status": "pass",
            "plus_status": "fail",
            "base_fail_tests": [],
            "plus_fail_tests": [[2.5]],
        },
        {
            "task_id": "T/0",
            "solution": "B",
            "base_status": "timeout",
            "plus_status": None,
            "base_fail_tests": [[[2, [3], "4j"]]],
            "plus_fail_tests": [],
        },
        {
            "task_id": "T/0",
            "solution": "D",
            "base_status": "pass",
            "plus_status": "pass",
            "base_fail_tests": [],
            "plus_fail_tests": [],
        },
    ]
    assert found["eval"]["T/1"][0]["base_fail_tests"] == []
    json.dumps(found)


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_write_one_file(path, resume):
    with open_verdicts(path, IDENTITY, resume=False, sample_ids=IDS) as file:
        file.write(verdict("a"))
        with pytest.raises(InputError, match="is being written by another run; wait for its end"):
            write(path, [verdict("b")], resume=resume)
        file.write(verdict("c"))
    assert lines(path) == ["a", "c"]


def test_a_resumed_run_keeps_others_out_too(path):
    write(path, [verdict("a"), verdict("b", "infrastructure_error")])
    for kept in ("a", "b"):
        with open_verdicts(path, IDENTITY, resume=True, sample_ids=IDS) as file:
            with pytest.raises(InputError, match="is being written by another run"):
                write(path, [], resume=True)
            if kept == "a":
                file.write(verdict("b"))
    assert lines(path) == ["a", "b"]


def test_a_file_that_cannot_be_replaced_is_refused_before_the_run(path, monkeypatch):
    path.write_text("old")
    closed = path.parent
    monkeypatch.setattr("os.access", lambda asked, _mode: asked != closed)
    with pytest.raises(InputError, match="no permission to write there"):
        check_writable(path, "--summary", path.with_name("samples"))
