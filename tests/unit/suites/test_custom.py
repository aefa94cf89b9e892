from __future__ import annotations

import base64
import contextlib
import json
import math
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.errors import SuiteError
from grader.suites import registry
from grader.suites.files import Place, SuiteFile
from grader.suites.task import AssertionTests, Comparison, StdioTest, StdioTests
from grader.suites.values import python_value

FUNCTION = {
    "task_id": "Own/f",
    "prompt": "def double(x):\n",
    "entry_point": "double",
    "groups": [{"name": "base", "kind": "function", "tests": [{"args": [2], "expected": 4}]}],
}
STDIO = {
    "task_id": "Own/s",
    "groups": [{"name": "io", "kind": "stdio", "tests": [{"stdin": "1\n", "stdout": "2\n"}]}],
}
ASSERTIONS = {
    "task_id": "Own/a",
    "entry_point": "double",
    "groups": [{"name": "law", "kind": "assertions", "setup": "x = 3", "tests": ["assert double(x) == 6"]}],
}


def changed(row, **group):
    return {**row, "groups": [{**row["groups"][0], **group}]}


def test_the_three_kinds_of_tests(write_rows):
    header = {"suite": "arithmetic", "version": "2.1", "description": "small sums"}
    suite = registry.load(str(write_rows(header, FUNCTION, STDIO, ASSERTIONS)))
    assert (suite.name, suite.version) == ("arithmetic", "2.1")
    tests = {task_id: task.groups[0].tests for task_id, task in suite.tasks.items()}
    assert tests["Own/f"].inputs() == [[2]]
    assert tests["Own/f"].expected() == [4]
    assert tests["Own/s"] == StdioTests((StdioTest("1\n", "2\n"),), "whitespace", 1e-6)
    assert tests["Own/a"] == AssertionTests(("assert double(x) == 6",), "x = 3")
    assert suite.tasks["Own/s"].entry_point == ""


def test_without_a_header_the_suite_is_named_after_its_file(write_rows):
    suite = registry.load(str(write_rows(STDIO, name="sums.jsonl")))
    assert (suite.name, suite.version) == ("sums", "custom")


def test_expected_values_may_come_from_the_reference(write_rows):
    row = changed(
        {**FUNCTION, "reference": "def double(x): return 2 * x"}, tests=[{"args": [1]}, {"args": [2]}]
    )
    assert registry.load(str(write_rows(row))).tasks["Own/f"].groups[0].tests.expected is None
    row = changed({**STDIO, "reference": "print(2)"}, tests=[{"stdin": ""}])
    assert registry.load(str(write_rows(row))).tasks["Own/s"].groups[0].tests.tests == (StdioTest("", None),)


def test_null_is_an_expected_value(write_rows):
    row = changed(FUNCTION, tests=[{"args": [], "expected": None}])
    assert registry.load(str(write_rows(row))).tasks["Own/f"].groups[0].tests.expected() == [None]


@pytest.mark.parametrize(
    ("written", "comparison"),
    [
        ("exact", Comparison("exact")),
        ("set", Comparison("set")),
        ({"kind": "close", "atol": 0.5}, Comparison("close", 0.5, 1e-7)),
        ({"kind": "close", "atol": 1, "rtol": 0}, Comparison("close", 1.0, 0.0)),
    ],
)
def test_comparisons_of_function_tests(write_rows, written, comparison):
    path = write_rows({**FUNCTION, "comparison": written})
    assert registry.load(str(path)).tasks["Own/f"].comparison == comparison


def test_a_task_can_be_sent_to_another_process(write_rows):
    suite = registry.load(str(write_rows(FUNCTION, STDIO, ASSERTIONS)))
    copy = pickle.loads(pickle.dumps(dict(suite.tasks)))
    assert copy["Own/f"].groups[0].tests.expected() == [4]


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ({**FUNCTION, "promt": ""}, "promt", "unknown; known are"),
        ({key: value for key, value in FUNCTION.items() if key != "task_id"}, "task_id", "missing"),
        (
            {key: value for key, value in FUNCTION.items() if key != "groups"},
            "groups",
            "missing",
        ),
        ({**FUNCTION, "entry_point": "2x"}, "entry_point", "not a Python function's name"),
        ({**FUNCTION, "entry_point": "class"}, "entry_point", "not a Python function's name"),
        ({**ASSERTIONS, "entry_point": ""}, "entry_point", "missing"),
        ({**FUNCTION, "groups": []}, "groups", "empty"),
        ({**FUNCTION, "groups": {}}, "groups", "an array is needed"),
        ({**FUNCTION, "groups": [1]}, "groups[0]", "an object is needed"),
        ({**FUNCTION, "groups": FUNCTION["groups"] * 2}, "groups[1].name", "names two groups"),
        ({**FUNCTION, "comparison": "close enough"}, "comparison.kind", "one of exact, set, close"),
        ({**FUNCTION, "comparison": {"kind": "exact", "atol": 1}}, "comparison.atol", "unknown"),
        ({**FUNCTION, "comparison": {"kind": "close", "atol": -1}}, "comparison.atol", "at least 0"),
        ({**FUNCTION, "comparison": {"kind": "close", "rtol": 10**400}}, "comparison.rtol", "at least 0"),
        ({**FUNCTION, "comparison": {"kind": "close", "atol": "0"}}, "comparison.atol", "at least 0"),
        ({**STDIO, "comparison": "exact"}, "comparison", "is for function tests"),
        ({**FUNCTION, "reference": "def double(x) return"}, "reference", "not Python"),
        ({**FUNCTION, "prompt": "\0"}, "prompt", "NUL"),
        (changed(FUNCTION, name=""), "groups[0].name", "empty"),
        (changed(FUNCTION, kind="fuzz"), "groups[0].kind", "one of function, stdio, assertions"),
        (changed(FUNCTION, tests=[]), "groups[0].tests", "empty"),
        (changed(FUNCTION, tests=[{"args": [2]}]), "groups[0].tests[0].expected", "no reference"),
        (changed(FUNCTION, tests=[{"args": 2, "expected": 4}]), "groups[0].tests[0].args", "an array"),
        (changed(FUNCTION, tests=[{"arg": [2], "expected": 4}]), "groups[0].tests[0].arg", "unknown"),
        (changed(FUNCTION, tests=[[2]]), "groups[0].tests[0]", "an object is needed"),
        (changed(FUNCTION, timeout=3), "groups[0].timeout", "unknown"),
        (
            changed(FUNCTION, tests=[{"args": [[{"$tuple": 1}]], "expected": 1}]),
            "groups[0].tests[0].args[0][0].$tuple",
            "an array is needed",
        ),
        (changed(STDIO, tests=[{"stdin": 1, "stdout": ""}]), "groups[0].tests[0].stdin", "a string"),
        (changed(STDIO, tests=[{"stdin": ""}]), "groups[0].tests[0].stdout", "no reference"),
        (changed(STDIO, comparison="fuzzy"), "groups[0].comparison", "one of exact, whitespace, float"),
        (changed(STDIO, comparison=["float"]), "groups[0].comparison", "one of exact, whitespace, float"),
        (changed(STDIO, atol=1), "groups[0].atol", "is for the comparison 'float'"),
        (changed(ASSERTIONS, tests=["assert"]), "groups[0].tests[0]", "not Python"),
        (changed(ASSERTIONS, tests=["# nothing"]), "groups[0].tests[0]", "no statement"),
        (changed(ASSERTIONS, setup="import"), "groups[0].setup", "not Python"),
    ],
)
def test_a_bad_task_is_refused_with_its_line_and_field(write_rows, row, field, problem):
    path = write_rows({"suite": "own"}, row)
    with pytest.raises(SuiteError) as error:
        registry.load(str(path))
    assert f"{path}, line 2: field {field!r}: " in str(error.value)
    assert problem in str(error.value)


def test_expected_values_are_given_for_all_tests_of_a_group_or_for_none(write_rows):
    given, made = {"args": [1], "expected": 2}, {"args": [1]}
    for tests in ([given, made], [made, given], [given, made, given]):
        row = changed({**FUNCTION, "reference": "def double(x): return 2 * x"}, tests=tests)
        with pytest.raises(SuiteError, match=r"groups\[0\]\.tests\[1\]\.expected': give it for all"):
            registry.load(str(write_rows(row)))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (['{"suite": "", "version": "1"}'], "line 1: field 'suite': empty"),
        (['{"suite": "own", "author": "me"}'], "line 1: field 'author': unknown"),
        (['{"suite": "own"}'], "has no tasks"),
        ([FUNCTION, '{"suite": "own"}'], "line 2: field 'suite': unknown"),
        ([FUNCTION, FUNCTION], "line 2: field 'task_id': 'Own/f' was already used on line 1"),
        (
            [FUNCTION, '{"task_id": "a", "task_id": "b"}'],
            "line 2: not usable JSON: the key 'task_id' comes twice",
        ),
        ([FUNCTION, '{"task_id": NaN}'], "line 2: not usable JSON: NaN is not JSON"),
        ([FUNCTION, "{'task_id': 1}"], "line 2: not JSON"),
        ([FUNCTION, '{"task_id": ' + "9" * 5000 + "}"], "line 2: not usable JSON"),
        ([FUNCTION, "[" * 100_000], "line 2: not usable JSON: nested too deeply"),
        ([FUNCTION, "[1]"], "line 2: a JSON object is needed"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(write_rows, lines, problem):
    path = write_rows(*lines)
    with pytest.raises(SuiteError) as error:
        registry.load(str(path))
    assert str(error.value).startswith(str(path))
    assert problem in str(error.value)


PLACE = Place(SuiteFile(Path("own.jsonl"), "", ""), 1, "args")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ({"$tuple": [1, {"$tuple": []}]}, (1, ())),
        ({"$set": [1, {"$frozenset": [2]}]}, {1, frozenset({2})}),
        ({"$complex": [1, -0.5]}, 1 - 0.5j),
        ({"$complex": [{"$float": "inf"}, 0]}, complex("inf")),
        ({"$bytes": "AP8="}, b"\x00\xff"),
        ({"$float": "-inf"}, -math.inf),
        ({"$dict": [[{"$tuple": [0, 1]}, "x"], ["$tuple", 2]]}, {(0, 1): "x", "$tuple": 2}),
        ({"a": {"$tuple": [1.0]}, "": []}, {"a": (1.0,), "": []}),
    ],
)
def test_escapes_for_what_json_cannot_say(written, value):
    found = python_value(written, PLACE)
    assert found == value
    assert type(found) is type(value)


def test_nan_can_be_written():
    assert math.isnan(python_value({"$float": "nan"}, PLACE))


@pytest.mark.parametrize(
    "written",
    [
        {"$list": []},
        {"$tuple": [], "more": 1},
        {"$set": [[1]]},
        {"$frozenset": [{}]},
        {"$complex": [1]},
        {"$complex": [1, False]},
        {"$complex": [10**400, 0]},
        {"$bytes": "?"},
        {"$bytes": [1]},
        {"$float": "1.5"},
        {"$float": 1.5},
        {"$dict": {"a": 1}},
        {"$dict": [["a"]]},
        {"$dict": [[[], 1]]},
        {"$dict": [["a", 1], ["a", 2]]},
    ],
)
def test_a_malformed_escape_is_refused_with_its_place(written):
    with pytest.raises(SuiteError, match=r"own\.jsonl, line 1: field 'args\[3\]"):
        python_value(written, PLACE / 3)


def escape(value):
    if isinstance(value, list):
        return [escape(item) for item in value]
    if isinstance(value, tuple | set | frozenset):
        return {f"${type(value).__name__}": [escape(item) for item in value]}
    if isinstance(value, dict):
        return {"$dict": [[escape(key), escape(item)] for key, item in value.items()]}
    if isinstance(value, complex):
        return {"$complex": [escape(value.real), escape(value.imag)]}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    return value


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=5)
VALUES = st.recursive(
    HASHABLE | st.sets(HASHABLE),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(HASHABLE, inner),
    max_leaves=10,
)


@given(VALUES)
def test_any_plain_value_can_be_written(value):
    assert python_value(json.loads(json.dumps(escape(value))), PLACE) == value


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_of_any_shape_is_a_value_or_a_suite_error(value):
    with contextlib.suppress(SuiteError):
        python_value(value, PLACE)


def test_the_examples_of_the_documentation_are_a_suite(tmp_path):
    document = Path(__file__).parents[3] / "docs" / "suites.md"
    examples = re.findall(r"```json\n(.*?)```", document.read_text("utf-8"), flags=re.DOTALL)
    path = tmp_path / "documented.jsonl"
    path.write_text("".join(example.replace("\n", "") + "\n" for example in examples))
    suite = registry.load(str(path))
    assert (suite.name, suite.version) == ("arithmetic", "1.2")
    assert list(suite.tasks) == ["arithmetic/0", "arithmetic/1", "arithmetic/2"]


@pytest.mark.parametrize(
    ("escape", "value"),
    [("$tuple", (1, 2)), ("$set", {1, 2}), ("$bytes", b"\x00\xff"), ("$dict", {1: "a", "$b": 2})],
)
def test_the_escapes_of_the_documentation_are_as_it_says(escape, value):
    document = Path(__file__).parents[3] / "docs" / "suites.md"
    row = next(
        line for line in document.read_text("utf-8").splitlines() if line.startswith(f'| `{{"{escape}"')
    )
    assert python_value(json.loads(row.split("`")[1]), PLACE) == value
