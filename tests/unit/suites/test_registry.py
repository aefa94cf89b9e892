from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import urllib.request
from dataclasses import replace

import pytest

from grader.errors import SuiteError
from grader.suites import registry
from grader.suites.catalogue import PIN_OF_NAME, PINS

ROW = (
    '{"task_id": "Own/1", "prompt": "def same(a):\\n", "entry_point": "same", "canonical_solution": '
    '"    return a\\n", "base_input": [[1]], "plus_input": [[2]], "atol": 0, "contract": ""}\n'
)


@pytest.fixture
def own_pin(monkeypatch):
    """A suite that the registry knows by the name "own", with a file small enough to make here."""
    stored = gzip.compress(ROW.encode(), mtime=0)
    pin = replace(
        PIN_OF_NAME["humaneval+"],
        name="own",
        file_name="Own.jsonl.gz",
        sha256=hashlib.sha256(stored).hexdigest(),
        url="https://example.invalid/Own.jsonl.gz",
    )
    monkeypatch.setitem(PIN_OF_NAME, "own", pin)
    monkeypatch.setattr(registry, "PINS", (*PINS, pin))
    return pin, stored


def serve(monkeypatch, content, asked=None):
    def answer(url, timeout):
        if asked is not None:
            asked.append(url)
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", answer)


def test_every_name_and_alias_is_known_once():
    names = [name for pin in PINS for name in (pin.name, *pin.aliases)]
    assert len(names) == len(set(names)) == len(PIN_OF_NAME)
    assert [info.name for info in registry.available()] == [
        "humaneval+",
        "humaneval+mini",
        "humaneval+noextreme",
        "mbpp+",
        "mbpp+noextreme",
        "humaneval",
        "mbpp",
        "mbpp-sanitized",
        "starter",
    ]


def test_an_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(SuiteError, match=r"unknown suite 'humanevel\+': did you mean 'humaneval\+'"):
        registry.load("humanevel+")


@pytest.mark.parametrize("path", ["nowhere/suite.jsonl", "suite.jsonl.gz"])
def test_a_path_without_a_file_is_not_taken_for_a_name(path):
    with pytest.raises(SuiteError, match="there is no such suite file"):
        registry.load(path)


def test_a_folder_is_searched_in_the_documented_order(own_pin, tmp_path, monkeypatch, cache_home):
    pin, stored = own_pin
    folders = {name: tmp_path / name for name in ("given", "variable")} | {
        "cache": cache_home / "grader" / "datasets"
    }
    assert registry.available()[-1].location is None
    for name in ("cache", "variable", "given"):
        folders[name].mkdir(parents=True)
        (folders[name] / pin.file_name).write_bytes(stored)
    assert registry.available()[-1].location == folders["cache"] / pin.file_name
    monkeypatch.setenv("GRADER_DATA_DIR", str(folders["variable"]))
    assert registry.available()[-1].location == folders["variable"] / pin.file_name
    assert registry.available(data_dir=folders["given"])[-1].location == folders["given"] / pin.file_name
    suite = registry.load("OWN", data_dir=folders["given"])
    assert (suite.name, suite.version, suite.sha256) == ("own", pin.version, pin.sha256)


def test_without_file_and_network_the_error_says_which_file_to_put_where(own_pin, cache_home):
    pin, _ = own_pin
    with pytest.raises(SuiteError) as error:
        registry.load("own")
    for part in (
        pin.url,
        pin.file_name,
        pin.sha256,
        "GRADER_DATA_DIR",
        str(cache_home),
        "no network in tests",
    ):
        assert part in str(error.value)


def test_a_suite_that_is_not_published_packed_is_not_downloaded():
    content = PIN_OF_NAME["mbpp"].content_sha256
    for ask in (registry.load, registry.pull):
        with pytest.raises(
            SuiteError, match=rf"put mbpp\.jsonl \(.*{content}\), as it is or packed as mbpp\.jsonl\.gz"
        ):
            ask("mbpp")


def test_pull_finds_a_suite_that_is_not_published_for_download(own_pin, monkeypatch, tmp_path):
    pin, _ = own_pin
    unpublished = replace(pin, url=None, content_sha256=hashlib.sha256(ROW.encode()).hexdigest())
    monkeypatch.setitem(PIN_OF_NAME, "own", unpublished)
    monkeypatch.setenv("GRADER_DATA_DIR", str(tmp_path))
    (tmp_path / "Own.jsonl").write_text(ROW)
    assert registry.pull("own") == tmp_path / "Own.jsonl"
    (tmp_path / "Own.jsonl").write_text(ROW + ROW)
    with pytest.raises(SuiteError, match="not the file of own"):
        registry.pull("own")


def test_a_download_is_verified_and_kept(own_pin, monkeypatch, cache_home):
    pin, stored = own_pin
    asked: list[str] = []
    serve(monkeypatch, stored, asked)
    assert list(registry.load("own").tasks) == ["Own/1"]
    assert registry.pull("own") == cache_home / "grader" / "datasets" / pin.file_name
    assert list(registry.load("own").tasks) == ["Own/1"]
    assert asked == [pin.url]


def test_pull_replaces_a_damaged_file(own_pin, monkeypatch, cache_home):
    pin, stored = own_pin
    serve(monkeypatch, stored)
    damaged = cache_home / "grader" / "datasets" / pin.file_name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(stored[:20])
    assert registry.pull("own").read_bytes() == stored


def test_a_download_of_something_else_leaves_nothing(own_pin, monkeypatch, cache_home):
    serve(monkeypatch, b"<html>a login page</html>")
    with pytest.raises(SuiteError, match="what came has the sha256"):
        registry.pull("own")
    assert [path for path in cache_home.rglob("*") if path.is_file()] == []


def test_a_named_suite_with_other_bytes_is_refused_but_its_path_is_a_suite_of_its_own(own_pin, tmp_path):
    pin, _ = own_pin
    path = tmp_path / pin.file_name
    path.write_bytes(gzip.compress(ROW.replace("[[2]]", "[[3]]").encode()))
    with pytest.raises(SuiteError, match=r"not the file of own .* pass the file's path") as error:
        registry.load("own", data_dir=tmp_path)
    assert pin.sha256 in str(error.value)
    suite = registry.load(str(path))
    assert (suite.name, suite.version) == ("Own", "custom")
    assert suite.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_pinned_bytes_are_the_named_suite_under_any_path(own_pin, tmp_path):
    pin, stored = own_pin
    path = tmp_path / "renamed"
    path.write_bytes(stored)
    suite = registry.load(str(path))
    assert (suite.name, suite.version) == ("own", pin.version)


def test_a_pin_of_the_content_takes_any_packing(own_pin, tmp_path, monkeypatch):
    pin, _ = own_pin
    content = replace(pin, sha256="0" * 64, content_sha256=hashlib.sha256(ROW.encode()).hexdigest())
    monkeypatch.setitem(PIN_OF_NAME, "own", content)
    (tmp_path / "Own.jsonl").write_text(ROW)
    assert registry.load("own", data_dir=tmp_path).name == "own"


def test_a_truncated_file_is_refused_with_the_line_where_it_ends(tmp_path):
    path = tmp_path / "cut.jsonl.gz"
    rows = "".join(f'{{"noise": "{hashlib.sha256(str(i).encode()).hexdigest()}"}}\n' for i in range(2000))
    packed = gzip.compress(rows.encode())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(SuiteError, match=r"line (\d+): the gzip file is truncated or damaged") as error:
        registry.load(str(path))
    line = int(str(error.value).split("line ")[1].split(":")[0])
    assert 500 < line < 1500


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"[]", "not a suite format"),
        (b"nonsense\n", "line 1: not JSON"),
        (b'{"a": 1}\n', "line 1: not a suite format"),
        (b"\n" + ROW.encode() + b"\xff\n", "line 3: not UTF-8"),
        (ROW.encode() + b"\n\n{\n", "line 4: not JSON"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_a_suite_is_refused_with_its_place(tmp_path, content, problem):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(SuiteError) as error:
        registry.load(str(path))
    assert str(error.value).startswith(str(path))
    assert problem in str(error.value)


def test_a_cache_folder_that_is_relative_counts_as_not_set(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert registry.cache_dir() == tmp_path / ".cache" / "grader" / "datasets"


@pytest.mark.dataset
def test_the_files_of_the_data_folder_are_the_pinned_ones(data_dir):
    for pin in PINS:
        if pin.sha256 is not None:
            assert hashlib.sha256((data_dir / pin.file_name).read_bytes()).hexdigest() == pin.sha256, pin.name


def test_importing_the_registry_does_not_import_what_a_worker_must_not_wait_for():
    heavy = ("pydantic", "typer", "rich", "urllib.request", "ssl", "grader.schema", "grader.judge")
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, grader.suites.registry; print([m for m in {heavy} if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "[]"
