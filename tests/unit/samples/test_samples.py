import contextlib
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.errors import SampleError
from grader.samples import (
    MAX_LINE_BYTES,
    GivenSample,
    SampleChecker,
    check_readable,
    fingerprint,
    read_samples,
)
from grader.suites.task import FunctionTests, Suite, Task, TestGroup


def task(task_id):
    return Task(task_id, "def f():\n", "f", "", (TestGroup("base", FunctionTests(lambda: [[]])),))


SUITE = Suite("toy", "1", "0" * 64, {name: task(name) for name in ("Toy/0", "Toy/1", "Toy/2", "Toy/10")})
ROW = {"task_id": "Toy/0", "solution": "x = 1"}


@pytest.fixture
def read(tmp_path):
    def reader(content, name="samples.jsonl"):
        path = tmp_path / name
        if not isinstance(content, bytes):
            content = "".join(json.dumps(row) + "\n" for row in content).encode()
        path.write_bytes(content)
        return read_samples(path, SUITE)

    return reader


def test_solutions_and_completions(read):
    rows = [ROW, {"task_id": "Toy/1", "completion": "  return 1", "sample_id": "mine", "model": {"any": [1]}}]
    assert read(rows) == [
        GivenSample("Toy/0", "Toy/0:0", "x = 1", True),
        GivenSample("Toy/1", "mine", "  return 1", False),
    ]


def test_missing_sample_ids_count_the_samples_of_the_task(read):
    rows = [ROW, {**ROW, "task_id": "Toy/1"}, {**ROW, "sample_id": "own"}, ROW]
    assert [sample.sample_id for sample in read(rows)] == ["Toy/0:0", "Toy/1:0", "own", "Toy/0:2"]


def test_null_is_the_same_as_absent(read):
    assert read([{**ROW, "completion": None, "sample_id": None}])[0].is_solution


def test_blank_lines_byte_order_mark_and_missing_last_newline(read):
    line = json.dumps(ROW).encode()
    assert len(read(b"\xef\xbb\xbf" + line + b"\r\n\n  \n" + line)) == 2


@pytest.mark.parametrize("name", ["samples.jsonl.gz", "named-otherwise"])
def test_gzip_is_told_by_content(read, name):
    assert len(read(gzip.compress(json.dumps(ROW).encode()), name)) == 1


def test_what_a_model_wrote_is_never_refused(read):
    texts = ["", "\ud800", "a\0b", "\u2028", "def ", "\x1b[31m", "\U0001f600"]
    found = read([{"task_id": "Toy/0", "solution": text} for text in texts])
    assert [sample.text for sample in found] == texts


GOOD = json.dumps(ROW).encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"task_id": "Toy/7", "solution": ""}', "no task 'Toy/7'.*'Toy/0'"),
        (b'{"task_id": "\\ud800\\n", "solution": ""}', r"no task '\\ud800\\n'"),
        (b'{"solution": ""}', "task_id is missing"),
        (b'{"task_id": 3, "solution": ""}', "task_id is of type int"),
        (b'{"task_id": "Toy/0"}', "neither solution nor completion"),
        (b'{"task_id": "Toy/0", "solution": "", "completion": ""}', "both solution and completion"),
        (b'{"task_id": "Toy/0", "solution": ["a"]}', "solution is of type list"),
        (b'{"task_id": "Toy/0", "completion": 1}', "completion is of type int"),
        (b'{"task_id": "Toy/0", "solution": "", "sample_id": 1}', "sample_id is of type int"),
        (b'{"task_id": "Toy/0", "solution": "", "sample_id": ""}', "0 characters"),
        (b'{"task_id": "Toy/0", "solution": "", "sample_id": "' + b"x" * 513 + b'"}', "513 characters"),
        (b'{"task_id": "Toy/0", "solution": "", "sample_id": "\\udfff"}', "surrogate"),
        (b'{"task_id": "Toy/0", "solution": "", "sample_id": "Toy/0:0"}', "used before, at .*line 1;"),
        (b'{"task_id": "Toy/0", "solution": ', "invalid JSON at column"),
        (b'["Toy/0", "x"]', "a sample is an object"),
        (b"null", "a sample is an object"),
        (b'{"task_id": "Toy/0", "solution": "\xff"}', "invalid UTF-8 at byte 35"),
        (b'{"task_id": "Toy/0", "solution": "\0"}', "NUL byte"),
        (b"\0\0\0\0", "NUL byte"),
        (b'{"x": ' + b"[" * 200_000, "nested too deeply"),
        (b'{"x": ' + b"1" * 5000 + b"}", "invalid JSON"),
    ],
)
def test_bad_lines_are_refused_with_file_and_line(read, tmp_path, line, says):
    with pytest.raises(SampleError, match=says) as raised:
        read(GOOD + b"\n" + line + b"\n" + GOOD)
    assert str(raised.value).startswith(f"{tmp_path / 'samples.jsonl'}, line 3: ")
    assert "\n" not in str(raised.value)
    assert str(raised.value).isascii()


def test_a_line_of_50_megabytes(read):
    with pytest.raises(SampleError, match="line 2: the line is longer than 32 MiB"):
        read(GOOD + b'{"task_id": "Toy/0", "solution": "' + b" " * 50_000_000 + b'"}')


def test_a_gzipped_endless_line_is_not_read_to_its_end(read):
    bomb = gzip.compress(b"x" * (MAX_LINE_BYTES + 1), compresslevel=1)
    with pytest.raises(SampleError, match="line 1: the line is longer"):
        read(bomb + b"not gzip any more: reading on would say so")


@pytest.mark.parametrize("cut", [3, 15, -9, -1])
def test_truncated_gzip(read, cut):
    with pytest.raises(SampleError, match=r"line \d+: the gzip file is truncated or damaged"):
        read(gzip.compress(GOOD * 100)[:cut])


def test_damaged_gzip(read):
    data = bytearray(gzip.compress(GOOD * 100))
    data[20] ^= 0xFF
    with pytest.raises(SampleError, match="truncated or damaged"):
        read(bytes(data))


def test_plain_file_named_gz(read):
    with pytest.raises(SampleError, match="not a gzip file"):
        read(GOOD, "samples.jsonl.gz")


@pytest.mark.parametrize("content", [b"", b"\n \n", gzip.compress(b"", mtime=0)])
def test_nothing_in_it(read, content):
    with pytest.raises(SampleError, match="there is no sample in it"):
        read(content)


def test_missing_file(tmp_path):
    for function in (check_readable, lambda path: read_samples(path, SUITE)):
        with pytest.raises(SampleError, match=r"gone\.jsonl: No such file"):
            function(tmp_path / "gone.jsonl")


def test_evalplus_folders(tmp_path):
    for name, text in {
        "Toy_0/10.py": "ten",
        "Toy_0/2.py": "two",
        "Toy_10/0.py": "a",
        "Toy_2/0.py": "b",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "Toy_0" / "notes.txt").write_text("ignored")
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme.py").write_text("ignored")
    assert read_samples(tmp_path, SUITE) == [
        GivenSample("Toy/0", "Toy/0:2", "two", True),
        GivenSample("Toy/0", "Toy/0:10", "ten", True),
        GivenSample("Toy/2", "Toy/2:0", "b", True),
        GivenSample("Toy/10", "Toy/10:0", "a", True),
    ]


def test_folder_of_an_unknown_task(tmp_path):
    (tmp_path / "Other_0").mkdir()
    (tmp_path / "Other_0" / "0.py").write_text("")
    with pytest.raises(SampleError, match=r"0\.py: toy has no task 'Other_0'"):
        read_samples(tmp_path, SUITE)


def test_folder_with_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "Toy_0").mkdir()
    (tmp_path / "Toy_0" / "0.py").write_bytes(b"x = '\xe9'")
    with pytest.raises(SampleError, match=r"0\.py: invalid UTF-8 at byte 6"):
        read_samples(tmp_path, SUITE)


def test_folder_without_samples(tmp_path):
    (tmp_path / "Toy_0").mkdir()
    with pytest.raises(SampleError, match="no sample in it; expected folders"):
        read_samples(tmp_path, SUITE)


samples = st.lists(
    st.builds(
        GivenSample,
        st.sampled_from(["Toy/0", "Toy/1"]),
        st.text(max_size=3),
        st.text(st.characters(), max_size=5),
        st.booleans(),
    ),
    max_size=3,
)


@given(samples, samples)
def test_fingerprints_tell_samples_apart(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_anything_is_a_sample_or_refused(row):
    with pytest.raises(SampleError, match=r"^here: "):
        SampleChecker(SUITE).check(row, "here")


fields = st.none() | st.integers() | st.text(st.characters(), max_size=4)


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["task_id", "sample_id", "solution", "completion"], fields)
    )
)
def test_any_object_is_a_sample_or_refused(row):
    sample = None
    with contextlib.suppress(SampleError):
        sample = SampleChecker(SUITE).check({"task_id": "Toy/0", **row}, "here")
    if sample is not None:
        assert sample.text == (row["solution"] if sample.is_solution else row["completion"])
