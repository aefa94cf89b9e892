"""Bad input is refused with one line that says where and what; what a model wrote is judged, whatever it is."""

from __future__ import annotations

import gzip
import json

import pytest

GOOD = {
    "task_id": "Starter/0",
    "sample_id": "good",
    "solution": "def ferry_trips(weights, capacity):\n    return 0\n",
}
TASK = "Starter/0"


def line(**fields) -> bytes:
    return json.dumps(fields).encode() + b"\n"


LINE_2 = {
    "an unknown task": (line(task_id="Starter/999", solution="x"), "Starter/999"),
    "a missing task": (line(solution="x"), "task_id is missing"),
    "a task of another suite": (line(task_id="HumanEval/0", solution="x"), "is the suite the right one"),
    "a double sample_id": (json.dumps(GOOD).encode() + b"\n", "used before"),
    "an empty sample_id": (line(task_id=TASK, sample_id="", solution="x"), "sample_id"),
    "a sample_id that is a number": (line(task_id=TASK, sample_id=3, solution="x"), "sample_id"),
    "neither solution nor completion": (line(task_id=TASK), "neither solution nor completion"),
    "both solution and completion": (line(task_id=TASK, solution="x", completion="x"), "both"),
    "a solution that is a list": (line(task_id=TASK, solution=["x"]), "solution is of type list"),
    "invalid JSON": (b'{"task_id": "Starter/0", "solution"\n', "invalid JSON"),
    "JSON cut short": (b'{"task_id": "Starter/0", "solution": "x', "invalid JSON"),
    "JSON that is no object": (b"[1, 2]\n", "a sample is an object"),
    "JSON nested deeply": (b"[" * 100_000 + b"\n", "nested too deeply"),
    "invalid UTF-8": (b'{"task_id": "Starter/0", "solution": "\xff"}\n', "invalid UTF-8"),
    "a NUL byte": (b'{"task_id": "Starter/0",\0 "solution": "x"}\n', "NUL"),
    "half a surrogate pair in a sample_id": (
        b'{"task_id": "Starter/0", "sample_id": "\\ud800", "solution": "x"}\n',
        "surrogate",
    ),
    "a line of 50 MB": (line(task_id=TASK, solution="x" * 50_000_000), "longer than 32 MiB"),
}


@pytest.fixture
def refused(command, tmp_path):
    """Score a file and check that it is refused as it ought to be; returns what stands on standard error."""

    def check(samples, *arguments, suite="starter"):
        output, summary = tmp_path / "verdicts.jsonl", tmp_path / "summary.json"
        ended = command(
            "score", samples, "--suite", suite, "--output", output, "--summary", summary, "--json", *arguments
        )
        assert ended.returncode == 2, ended.stderr
        assert ended.stdout == ""
        assert not output.exists()
        assert not summary.exists()
        assert not list(tmp_path.glob("*.run.json"))
        (said,) = ended.stderr.splitlines()
        assert said.startswith("grader: ")
        assert len(said) < 600
        return said

    return check


@pytest.mark.parametrize("what", LINE_2)
def test_a_line_is_refused_by_file_and_number(refused, tmp_path, what):
    bad, says = LINE_2[what]
    samples = tmp_path / "samples.jsonl"
    samples.write_bytes(json.dumps(GOOD).encode() + b"\n" + bad)
    said = refused(samples)
    assert f"{samples}, line 2" in said
    assert says in said


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf"], ids=["empty", "blank", "mark"])
def test_a_file_without_samples_is_refused(refused, tmp_path, content):
    samples = tmp_path / "samples.jsonl"
    samples.write_bytes(content)
    said = refused(samples)
    assert str(samples) in said
    assert "no sample" in said or "line 1" in said


def test_a_missing_file_is_refused(refused, tmp_path):
    assert "No such file" in refused(tmp_path / "missing.jsonl")


def test_an_empty_folder_is_refused(refused, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "no sample" in refused(tmp_path / "folder")


def test_a_folder_with_an_unknown_task_is_refused(refused, tmp_path):
    (tmp_path / "folder" / "Starter_999").mkdir(parents=True)
    (tmp_path / "folder" / "Starter_999" / "0.py").write_text("x = 1")
    assert "Starter_999/0.py" in refused(tmp_path / "folder")


@pytest.mark.parametrize("end", [-9, 40])
def test_a_gzip_file_cut_short_is_refused(refused, tmp_path, end):
    samples = tmp_path / "samples.jsonl.gz"
    samples.write_bytes(gzip.compress(json.dumps(GOOD).encode() * 3)[:end])
    said = refused(samples)
    assert "truncated or damaged" in said
    assert str(samples) in said


def test_a_file_that_is_called_gzip_and_is_not_is_refused(refused, tmp_path):
    samples = tmp_path / "samples.jsonl.gz"
    samples.write_text(json.dumps(GOOD))
    assert "not a gzip file" in refused(samples)


@pytest.fixture
def good(tmp_path, tools):
    return tools.write_lines(tmp_path / "good.jsonl", [GOOD])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--groups", "plus,minus"), "minus"),
        (("--k", "0"), "from 1"),
        (("--k", "one"), "--k"),
        (("--time-floor", "0"), "time_floor_s"),
        (("--time-floor", "nan"), "time_floor_s"),
        (("--time-factor", "inf"), "finite"),
    ],
)
def test_an_option_is_refused_by_name(refused, good, arguments, says):
    assert says in refused(good, *arguments)


def test_an_unknown_suite_is_refused(refused, good):
    assert "nosuch" in refused(good, suite="nosuch")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"task_id": "T/0", "entry_point": "f", "groups": []}], "line 1"),
        (
            [{"suite": "s"}, {"task_id": "T/0", "groups": [{"name": "a", "kind": "dance", "tests": [1]}]}],
            "line 2",
        ),
        ([{"task_id": "T/0", "entry_point": "f", "tests": []}], "line 1"),
    ],
)
def test_a_malformed_suite_is_refused_by_file_and_line(refused, good, tools, tmp_path, rows, says):
    suite = tools.write_lines(tmp_path / "suite.jsonl", rows)
    said = refused(good, suite=suite)
    assert str(suite) in said
    assert says in said


def test_a_reference_that_fails_is_refused_by_its_task(command, tools, tmp_path):
    """Only running it tells: nothing was graded by then, and nothing stands there as if it had been."""
    group = {"name": "base", "kind": "function", "tests": [{"args": [0]}]}
    task = {
        "task_id": "T/0",
        "entry_point": "f",
        "reference": "def f(n):\n    return 1 // n\n",
        "groups": [group],
    }
    suite = tools.write_lines(tmp_path / "suite.jsonl", [task])
    samples = tools.write_lines(
        tmp_path / "samples.jsonl", [{"task_id": "T/0", "solution": "def f(n): return n"}]
    )
    ended = command("score", samples, "--suite", suite, "--json")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "T/0" in ended.stderr
    assert "ZeroDivisionError" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_summary_is_not_half_written_where_the_disk_is_full(command, good):
    ended = command("score", good, "--suite", "starter", "--output", "/dev/full", "--json")
    assert ended.returncode == 3
    assert ended.stdout == ""
    assert "cannot write a verdict" in ended.stderr
    assert "Traceback" not in ended.stderr


WHAT_A_MODEL_WRITES = {
    "NUL bytes": ("solution", "def ferry_trips(weights, capacity):\0\n    return 0\n", {"compile_error"}),
    "half a surrogate pair": ("solution", "def ferry_trips(w, c):\n    return '\ud800'\n", {"compile_error"}),
    "half a surrogate pair in a chat": (
        "completion",
        "```python\ndef ferry_trips(w, c):\n    return '\udfff'\n```",
        {"compile_error"},
    ),
    "prose": ("solution", "I would rather not.\n", {"compile_error"}),
    "prose in a chat": ("completion", "I would rather not.", {"no_code", "compile_error"}),
    "nothing": ("solution", "", {"no_code"}),
    "blanks": ("completion", "  \n\t\n", {"no_code"}),
    "markup alone": ("completion", "```python\n```", {"no_code"}),
    "bytes of a picture": ("solution", "\x89PNG\r\n\x1a\n\x00\x00", {"compile_error"}),
    "brackets without end": ("solution", "(" * 100_000, {"compile_error"}),
    "a sum without end": ("solution", "x = " + "+".join("1" * 50_000), {"compile_error", "runtime_error"}),
    "a megabyte of comment": ("solution", "#" * (1 << 20), {"runtime_error"}),
    "another function": ("solution", "def other():\n    return 1\n", {"runtime_error"}),
    "a coding cookie": ("solution", "# coding: rot13\ndef ferry_trips(w, c): return 0", {"wrong_answer"}),
    "a name with another form of letters": ("solution", "def ﬀerry_trips(w, c): return 0", {"runtime_error"}),
}


def test_what_a_model_writes_is_judged(command, tools, tmp_path):
    rows = [
        {"task_id": TASK, "sample_id": name, field: text}
        for name, (field, text, _) in WHAT_A_MODEL_WRITES.items()
    ]
    samples = tools.write_lines(tmp_path / "samples.jsonl", rows)
    verdicts = {verdict["sample_id"]: verdict for verdict in command.score(samples, "starter")}
    surprising = {
        name: (verdicts[name]["status"], verdicts[name]["error"])
        for name, (_, _, statuses) in WHAT_A_MODEL_WRITES.items()
        if verdicts[name]["status"] not in statuses
    }
    assert surprising == {}
    assert {verdict["reward"] for verdict in verdicts.values()} == {0.0}
