"""Tasks made from the tests that come with a request."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.errors import SuiteError
from grader.suites import inline
from grader.suites.inline import InlineTasks, inline_suite, inline_task
from grader.suites.task import AssertionTests, Comparison, StdioTest, StdioTests

FUNCTION = {"kind": "function", "entry_point": "add", "inputs": [[1, 2], [3, 4]], "expected": [3, 7]}
STDIO = {"kind": "stdio", "inputs": ["1\n"], "outputs": ["2\n"]}
ASSERTIONS = {"kind": "assertions", "tests": ["assert add(1, 2) == 3"]}
HUGE = "0x" + "f" * 5000  # more digits than Python converts, if written in decimal
DEEP = "x" + ".y" * 400
MODULE = """
import pytest
from solution import add, Stack as Pile

LIMIT = 3

def test_adds():
    assert add(1, 2) == LIMIT

def test_refuses():
    with pytest.raises(ValueError):
        add(None, 1)
"""


def read(given):
    return inline_task(given, "tests[0]").groups[0].tests


def test_function_tests():
    task = inline_task(
        {**FUNCTION, "comparison": {"kind": "close", "atol": 0.5}}, "tests[0]", "def add(a, b):\n"
    )
    assert (task.entry_point, task.prompt, task.groups[0].name) == ("add", "def add(a, b):\n", "base")
    assert task.comparison == Comparison("close", 0.5, 1e-7)
    assert task.groups[0].tests.inputs() == [[1, 2], [3, 4]]
    assert task.groups[0].tests.expected() == [3, 7]
    made = inline_task({**FUNCTION, "expected": None, "reference": "def add(a, b): return a + b"}, "t")
    assert made.groups[0].tests.expected is None
    escaped = read({**FUNCTION, "inputs": [[{"$tuple": [1]}, 2]], "expected": [{"$set": [1]}]})
    assert (escaped.inputs(), escaped.expected()) == ([[(1,), 2]], [{1}])


def test_stdio_tests():
    assert read(STDIO) == StdioTests((StdioTest("1\n", "2\n"),), "whitespace", 1e-6)
    assert read({**STDIO, "comparison": "float", "atol": 0.1}).atol == 0.1
    made = read({"kind": "stdio", "inputs": ["1"], "reference": "print(1)"})
    assert made.tests == (StdioTest("1", None),)


def test_assertion_tests():
    assert read(ASSERTIONS) == AssertionTests(("assert add(1, 2) == 3",), "")
    assert inline_task(ASSERTIONS, "t").entry_point == "add"
    assert inline_task(["assert add(1, 2) == 3"], "t") == inline_task(ASSERTIONS, "t")
    helped = {
        **ASSERTIONS,
        "setup": "import math\ndef near(a): return a",
        "tests": ["assert near(math.sqrt(f(4))) == 2"],
    }
    assert inline_task(helped, "t").entry_point == "f"


def test_a_test_module_in_pytests_style():
    task = inline_task({"kind": "assertions", "tests": MODULE}, "tests[0]")
    tests = task.groups[0].tests
    assert task.entry_point == "add"
    assert tests.tests == ("test_adds()", "test_refuses()")
    assert "class pytest" in tests.setup
    assert "solution" not in tests.setup
    assert "Stack = type(add)('Stack')\nPile = Stack" in tests.setup
    compile(tests.setup, "setup", "exec")


def test_a_test_module_of_bare_assertions():
    tests = read({"kind": "assertions", "tests": "x = 1\nassert f(x) == 2\nassert f(3) == 4\n"})
    assert tests.tests == ("assert f(x) == 2", "assert f(3) == 4")
    assert "x = 1" in tests.setup
    mixed = read({"kind": "assertions", "tests": "assert f(1) == 2\nx = 1\nassert f(x) == 2\n"})
    assert len(mixed.tests) == 1
    looped = read({"kind": "assertions", "tests": "for x in range(3):\n    assert f(x) == x\n"})
    assert len(looped.tests) == 1


def test_rows_of_apps_taco_and_livecodebench():
    lines = inline_task({"inputs": ["[1, 2]\n3"], "outputs": ["[0, 1]"], "fn_name": "two"}, "t")
    assert (lines.entry_point, lines.comparison.kind) == ("Solution.two", "benchmark")
    assert lines.groups[0].tests.inputs() == [[[1, 2], 3]]
    assert lines.groups[0].tests.expected() == [[0, 1]]
    values = read({"inputs": [[[1, 2], 3], [{"1": 2}]], "outputs": [[[0, 1]], [4]], "fn_name": "two"})
    assert values.inputs() == [[[1, 2], 3], [{1: 2}]]
    assert values.expected() == [[[0, 1]], [4]]
    long = read({"inputs": [[{"9" * 5000: 2}]], "outputs": [4], "fn_name": "two"})
    assert long.inputs() == [[{"9" * 5000: 2}]]
    printed = read({"inputs": ["1\n", ["2", "3"]], "outputs": ["1\n", ["2", "3"]], "fn_name": None})
    assert printed.comparison == "benchmark"
    assert printed.tests[1] == StdioTest("2\n3", "2\n3")
    assert read({"input": ["1"], "output": ["2"]}).comparison == "codecontests"
    text = json.dumps({"inputs": ["1\n"], "outputs": ["1\n"]})
    assert read(text).tests == (StdioTest("1\n", "1\n"),)


def test_whether_programs_get_the_imports_of_their_benchmark():
    for given_tests, wanted in (
        ({"inputs": ["1"], "outputs": ["1"]}, True),
        ({"inputs": ["1"], "outputs": ["1"], "fn_name": "f"}, True),
        (FUNCTION, False),
        (STDIO, False),
        (ASSERTIONS, False),
    ):
        assert inline.needs_ambient_imports(inline_task(given_tests, "t")) is wanted


def test_equal_tests_are_one_task():
    tasks = InlineTasks()
    ids = [
        tasks.add(one, f"tests[{n}]", p)
        for n, (one, p) in enumerate(
            [(FUNCTION, ""), (dict(reversed(FUNCTION.items())), ""), (FUNCTION, "p"), (STDIO, "")]
        )
    ]
    assert ids[0] == ids[1]
    assert len({*ids}) == len(tasks.suite.tasks) == 3
    assert all(task_id.startswith("inline/") and len(task_id) == 39 for task_id in ids)
    suite = tasks.suite
    assert (suite.name, suite.version) == ("inline", "1")
    assert inline_suite(list(suite.tasks.values())).sha256 == suite.sha256
    assert (
        pickle.loads(pickle.dumps(dict(suite.tasks)))[ids[3]].groups[0].tests
        == suite.tasks[ids[3]].groups[0].tests
    )


@pytest.mark.parametrize(
    ("given_tests", "said"),
    [
        (None, "tests[3]: an object with tests is needed, this is null"),
        (7, "tests[3]: an object with tests is needed"),
        ("assert f(1)", "tests[3]: not the JSON text of an object"),
        ({}, "tests[3]: give a kind (function, stdio, assertions), or inputs and outputs"),
        ({"kind": "fuzz"}, "tests[3]: field 'kind': one of function, stdio, assertions is needed"),
        ({"kind": ["stdio"]}, "field 'kind': one of"),
        ({**FUNCTION, "input": []}, "field 'input': unknown; known are"),
        ({**FUNCTION, "entry_point": "2x"}, "field 'entry_point': '2x' is not a Python function's name"),
        ({**FUNCTION, "entry_point": "a.b.c"}, "is not a Python function's name"),
        ({**FUNCTION, "inputs": []}, "field 'inputs': empty: without a test anything would pass"),
        ({**FUNCTION, "inputs": "1"}, "field 'inputs': an array is needed"),
        ({**FUNCTION, "inputs": [[1], 2]}, "field 'inputs[1]': an array of arguments is needed, this is a number (2)"),
        ({**FUNCTION, "expected": [3]}, "field 'expected': 1 for 2 inputs; give one each"),
        ({**FUNCTION, "expected": None}, "field 'expected': missing, and there is no reference"),
        ({**FUNCTION, "comparison": "roughly"}, "field 'comparison.kind': one of"),
        ({**FUNCTION, "reference": "def add(a, b) return"}, "field 'reference': not Python"),
        ({**FUNCTION, "inputs": [[{"$what": 1}]], "expected": [1]}, "field 'inputs[0][0]': unknown escape '$what'"),
        ({**FUNCTION, "inputs": [[1, 2]] * 2001, "expected": [3] * 2001}, "field 'inputs': 2001 tests; at most 2000"),
        ({**STDIO, "outputs": None}, "field 'outputs': missing"),
        ({**STDIO, "outputs": [None]}, "field 'outputs[0]': a string is needed, this is null"),
        ({**STDIO, "inputs": [5]}, "field 'inputs[0]': a string is needed"),
        ({**STDIO, "comparison": "loose"}, "field 'comparison': one of exact"),
        ({**STDIO, "comparison": "float", "atol": 10**400}, "field 'atol': a number of at least 0 is needed"),
        ({**STDIO, "atol": 1}, "field 'atol': is for the comparison 'float'"),
        ({**ASSERTIONS, "tests": ["assert ("]}, "field 'tests[0]': not Python"),
        ({**ASSERTIONS, "tests": ["# none"]}, "field 'tests[0]': has no statement"),
        ({**ASSERTIONS, "tests": ["assert f(g(1))"]}, "field 'entry_point': missing, and the tests do not make clear"),
        ({**ASSERTIONS, "tests": "x = 1"}, "field 'tests': has no test"),
        ({**ASSERTIONS, "tests": "from solution import *\nassert f(1)"}, "field 'tests': name what is imported"),
        ({**ASSERTIONS, "tests": "import solution\nassert f(1)"}, "field 'tests': import the names that are tested"),
        ({**ASSERTIONS, "tests": "def test_f(tmp_path): assert f(1)"}, "field 'tests': function test_f: a test"),
        ({**ASSERTIONS, "tests": "class TestF:\n    def test_f(self): assert f(1)"}, "field 'tests': class TestF"),
        ({**ASSERTIONS, "tests": f"def test_f(): assert f() == {HUGE}"}, "field 'tests': not usable Python: it has"),
        ({**ASSERTIONS, "tests": f"x = {HUGE}\nassert f(x)"}, "field 'tests': not usable Python: it has a number"),
        ({**ASSERTIONS, "tests": f"def test_f(x={HUGE}): assert f(x)"}, "field 'tests': function test_f: a test"),
        ({**ASSERTIONS, "tests": f"assert f({DEEP})"}, "field 'tests': not usable Python: nested too deeply"),
        ({**ASSERTIONS, "tests": f"for x in {DEEP}: assert f(x)"}, "field 'tests': not usable Python: nested too"),
        ({"inputs": ["1"], "outputs": ["1"], "fn": "f"}, "field 'fn': unknown"),
        ({"inputs": ["{"], "outputs": ["1"], "fn_name": "f"}, "field 'inputs[0]': a line is not JSON"),
        ({"inputs": ["1"], "outputs": ["one"], "fn_name": "f"}, "field 'outputs[0]': a line is not JSON"),
        ({"inputs": ["1"], "outputs": [1], "fn_name": "f"}, "field 'outputs[0]': a string is needed"),
        ({"inputs": [1], "outputs": [1], "fn_name": "f"}, "field 'inputs[0]': an array of arguments"),
        ({"inputs": ["\0"], "outputs": [""]}, "field 'inputs[0]': has a NUL character"),
        ({"kind": "stdio", "inputs": [object()]}, "tests[3]: cannot be written as JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_graded_is_refused_with_the_place(given_tests, said):
    with pytest.raises(SuiteError) as error:
        inline_task(given_tests, "tests[3]")
    assert str(error.value).startswith("tests[3]: ")
    assert said in str(error.value)


def test_the_size_of_tests_is_bounded():
    with pytest.raises(SuiteError, match="at most 33554432 are taken for one task"):
        inline_task({**STDIO, "inputs": ["x" * (33 << 20)]}, "t")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    "kind",
    "inputs",
    "outputs",
    "fn_name",
    "tests",
    "setup",
    "entry_point",
    "expected",
    "reference",
    "comparison",
]


@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["function", "stdio", "assertions"]))
    | JSON
)
def test_anything_else_is_refused_too(given_tests):
    try:
        task = inline_task(given_tests, "tests[0]")
    except SuiteError as error:
        said = str(error)
    else:
        said = f"tests[0]: {len(task.groups)} group"
    assert said.startswith("tests[0]: ")
