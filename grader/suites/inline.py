"""Inline tests: a task made from the tests that come with a request. ``docs/inline-tests.md`` describes the shapes.

The name of a task is a digest of its tests, so that equal tests are one task, whose expected answers are made and kept
once.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from grader.errors import SuiteError
from grader.suites.custom import check_source, read_comparison, refuse_unknown, same, tolerance
from grader.suites.files import (
    Place,
    SuiteFile,
    checked_text,
    describe,
    finite_json,
    is_function_name,
    list_field,
    text_field,
)
from grader.suites.pytest_source import read_test_module
from grader.suites.source import parse_source
from grader.suites.task import (
    AssertionTests,
    Comparison,
    FunctionTests,
    StdioComparison,
    StdioTest,
    StdioTests,
    Suite,
    Task,
    TestGroup,
    Tests,
)
from grader.suites.values import python_value

SUITE_NAME = "inline"
SUITE_VERSION = "1"
SUITE_SHA256 = hashlib.sha256(b"grader: inline tests, version 1").hexdigest()
"""The identity of the one suite of all inline tasks, of which a request shows a few: a name says what its task is."""
GROUP = "base"
MAX_TESTS = 2000
MAX_CHARACTERS = 32 << 20
"""Of one task's tests, written as JSON."""
MAX_SOURCE_CHARACTERS = 1 << 20
"""Of one task's assertions, setup and reference together: they are parsed."""

_FUNCTION = {"kind", "entry_point", "inputs", "expected", "reference", "comparison"}
_STDIO = {"kind", "inputs", "outputs", "reference", "comparison", "atol"}
_ASSERTIONS = {"kind", "tests", "setup", "entry_point", "reference"}
_BENCHMARK = {"inputs", "outputs", "fn_name"}
_CODECONTESTS = {"input", "output"}


class InlineTasks:
    """The tasks of one request; equal tests are read once."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    def add(self, tests: object, place: str, prompt: str = "") -> str:
        """Take tests in; returns the task's id. Errors are those of :func:`inline_task`."""
        given = _opened(tests, place)
        task_id = _task_id(given, prompt, place)
        if task_id not in self._tasks:
            self._tasks[task_id] = _task(task_id, given, place, prompt)
        return task_id

    @property
    def suite(self) -> Suite:
        """The suite that has these tasks."""
        return Suite(SUITE_NAME, SUITE_VERSION, SUITE_SHA256, dict(self._tasks))


def inline_task(tests: object, place: str, prompt: str = "") -> Task:
    """Make a task of a request's own tests.

    Parameters
    ----------
    tests: an object as documented, the JSON text of one, or an array of assertions. place: what the caller calls
    it, e.g. ``tests[3]``; errors begin with it. prompt: what the model was shown, which a bare completion continues.

    Raises
    ------
    SuiteError: something in it is not as documented, or too large; the text says where.

    """
    tasks = InlineTasks()
    task_id = tasks.add(tests, place, prompt)
    return tasks.suite.tasks[task_id]


def inline_suite(tasks: Sequence[Task]) -> Suite:
    """Make the suite of some inline tasks."""
    return Suite(SUITE_NAME, SUITE_VERSION, SUITE_SHA256, {task.task_id: task for task in tasks})


def needs_ambient_imports(task: Task) -> bool:
    """Whether the graders of the task's benchmark put imports before a program: see ``extraction.ambient``."""
    tests = task.groups[0].tests
    if isinstance(tests, StdioTests):
        return tests.comparison == "benchmark"
    return isinstance(tests, FunctionTests) and task.comparison.kind == "benchmark"


def _opened(tests: object, place: str) -> Mapping[str, Any]:
    """The object that describes the tests: JSON text is parsed, an array is one of assertions."""
    if isinstance(tests, str):
        try:
            tests = finite_json(tests)
        except (ValueError, RecursionError) as error:
            raise SuiteError(f"{place}: not the JSON text of an object: {error}") from None
    if isinstance(tests, list | tuple):
        tests = {"kind": "assertions", "tests": list(tests)}
    if not isinstance(tests, Mapping):
        raise SuiteError(f"{place}: an object with tests is needed, this is {describe(tests)}")
    return tests


def _task_id(tests: Mapping[str, Any], prompt: str, place: str) -> str:
    try:
        text = json.dumps([prompt, tests], sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise SuiteError(f"{place}: cannot be written as JSON ({error})") from None
    if len(text) > MAX_CHARACTERS:
        raise SuiteError(
            f"{place}: {len(text)} characters of tests; at most {MAX_CHARACTERS} are taken for one task"
        )
    # Half of a SHA-256: another's task cannot be met by trying.
    return f"{SUITE_NAME}/{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _task(task_id: str, tests: Mapping[str, Any], place: str, prompt: str) -> Task:
    here = Place(SuiteFile(Path(place), "", ""), None)
    checked_text(prompt, here / "prompt")
    try:
        if "kind" in tests:
            entry_point, reference, read, comparison = _of_kind(tests, here)
        elif tests.keys() == _CODECONTESTS:
            renamed = {"inputs": tests["input"], "outputs": tests["output"]}
            entry_point, reference, comparison = "", "", Comparison()
            read = _printed(renamed, "codecontests", 0.0, has_reference=False, place=here)
        else:
            entry_point, reference, read, comparison = _of_benchmark(tests, here)
    except RecursionError as error:
        raise here.error("a value is nested too deeply") from error
    return Task(task_id, prompt, entry_point, reference, (TestGroup(GROUP, read),), comparison)


_Read = tuple[str, str, Tests, Comparison]


def _of_kind(tests: Mapping[str, Any], place: Place) -> _Read:
    readers = {"function": _function, "stdio": _stdio, "assertions": _assertions}
    kind = tests["kind"]
    if not isinstance(kind, str) or kind not in readers:
        raise (place / "kind").error(f"one of {', '.join(readers)} is needed, this is {describe(kind)}")
    reference = text_field(tests, "reference", place, default="")
    check_source(reference, place / "reference")
    return readers[kind](tests, reference, place)


def _function(tests: Mapping[str, Any], reference: str, place: Place) -> _Read:
    refuse_unknown(tests, _FUNCTION, place)
    entry_point = _entry_point(tests, "entry_point", place)
    inputs = _bounded(tests, "inputs", place)
    arguments = []
    for index, item in enumerate(inputs):
        here = place / "inputs" / index
        if not isinstance(item, list):
            raise here.error(f"an array of arguments is needed, this is {describe(item)}")
        arguments.append(python_value(item, here))
    expected = None
    if tests.get("expected") is not None:
        expected = python_value(_paired(tests, "expected", len(inputs), place), place / "expected")
    elif not reference:
        raise (place / "expected").error("missing, and there is no reference to make it from")
    comparison = read_comparison(tests.get("comparison", "exact"), place / "comparison")
    return entry_point, reference, _calls(arguments, expected), comparison


def _stdio(tests: Mapping[str, Any], reference: str, place: Place) -> _Read:
    refuse_unknown(tests, _STDIO, place)
    comparison = tests.get("comparison", "whitespace")
    if comparison not in get_args(StdioComparison):
        wanted = ", ".join(get_args(StdioComparison))
        raise (place / "comparison").error(f"one of {wanted} is needed, this is {describe(comparison)}")
    if "atol" in tests and comparison != "float":
        raise (place / "atol").error("is for the comparison 'float'")
    atol = tolerance(tests, "atol", place, 1e-6)
    read = _printed(tests, comparison, atol, has_reference=bool(reference), place=place)
    return "", reference, read, Comparison()


def _assertions(tests: Mapping[str, Any], reference: str, place: Place) -> _Read:
    refuse_unknown(tests, _ASSERTIONS, place)
    setup = text_field(tests, "setup", place, default="")
    _refuse_long_sources([setup, reference, *_listed(tests.get("tests"))], place)
    check_source(setup, place / "setup")
    given = _entry_point(tests, "entry_point", place) if tests.get("entry_point") else ""
    if isinstance(tests.get("tests"), str):
        module = read_test_module(checked_text(tests["tests"], place / "tests"), given, place / "tests")
        setup, sources, imported = f"{setup}\n{module.setup}", module.tests, module.imported
        check_source(setup, place / "tests")  # together they may be too long
    else:
        sources, imported = list(_bounded(tests, "tests", place)), []
        for index, source in enumerate(sources):
            if not check_source(checked_text(source, place / "tests" / index), place / "tests" / index):
                raise (place / "tests" / index).error("has no statement, so anything would pass it")
    entry_point = given or next(iter(imported), "") or _only_unknown(sources, setup, reference, place)
    return entry_point, reference, AssertionTests(tuple(sources), setup), Comparison()


def _listed(tests: object) -> Sequence[object]:
    return tests if isinstance(tests, list) else [tests]


def _refuse_long_sources(sources: Sequence[object], place: Place) -> None:
    size = sum(len(source) for source in sources if isinstance(source, str))
    if size > MAX_SOURCE_CHARACTERS:
        raise place.error(
            f"{size} characters of Python; at most {MAX_SOURCE_CHARACTERS} are taken for one task's assertions"
        )


def _of_benchmark(tests: Mapping[str, Any], place: Place) -> _Read:
    """Rows of APPS, TACO and LiveCodeBench: inputs, outputs, and the name of a function or none."""
    if "inputs" not in tests:
        raise place.error("give a kind (function, stdio, assertions), or inputs and outputs")
    refuse_unknown(tests, _BENCHMARK, place)
    if tests.get("fn_name") is None:
        return "", "", _printed(tests, "benchmark", 0.0, has_reference=False, place=place), Comparison()
    name = _entry_point(tests, "fn_name", place)
    inputs = _bounded(tests, "inputs", place)
    outputs = _paired(tests, "outputs", len(inputs), place)
    arguments, expected = [], []
    for index, (given, wanted) in enumerate(zip(inputs, outputs, strict=True)):
        here = place / "inputs" / index
        if isinstance(given, str):  # LiveCodeBench: each argument is JSON, on a line of its own
            arguments.append([_json(line, here) for line in given.split("\n") if line.strip()])
            expected.append(_json(checked_text(wanted, place / "outputs" / index), place / "outputs" / index))
        elif isinstance(given, list):
            arguments.append(_with_int_keys(given))
            expected.append(wanted)
        else:
            raise here.error(
                f"an array of arguments, or a line of JSON for each, is needed, not {describe(given)}"
            )
    entry_point = name if "." in name else f"Solution.{name}"
    return entry_point, "", _calls(arguments, expected), Comparison("benchmark")


def _with_int_keys(arguments: list[Any]) -> list[Any]:
    """APPS's rule: a dict that is the only argument had int keys before it was JSON, if all its keys say ints."""
    if len(arguments) != 1 or not isinstance(arguments[0], dict):
        return arguments
    keys = arguments[0]
    if not keys or not all(key.removeprefix("-").isdecimal() and key.isascii() for key in keys):
        return arguments
    try:
        return [{int(key): value for key, value in keys.items()}]
    except ValueError:  # more digits than Python converts
        return arguments


def _json(text: str, place: Place) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise place.error(f"a line is not JSON ({error})") from None


def _calls(arguments: list[Any], expected: list[Any] | None) -> FunctionTests:
    return FunctionTests(partial(same, arguments), None if expected is None else partial(same, expected))


def _printed(
    tests: Mapping[str, Any], comparison: StdioComparison, atol: float, *, has_reference: bool, place: Place
) -> StdioTests:
    inputs = _bounded(tests, "inputs", place)
    outputs: Sequence[Any] = [None] * len(inputs)
    if tests.get("outputs") is not None:
        outputs = _paired(tests, "outputs", len(inputs), place)
    elif not has_reference:
        raise (place / "outputs").error("missing, and there is no reference to make it from")
    read = [
        StdioTest(
            _lines(given, place / "inputs" / index),
            None if wanted is None and has_reference else _lines(wanted, place / "outputs" / index),
        )
        for index, (given, wanted) in enumerate(zip(inputs, outputs, strict=True))
    ]
    return StdioTests(tuple(read), comparison, atol)


def _lines(value: Any, place: Place) -> str:
    """Text, or, as in some rows of APPS, an array of its lines."""
    if isinstance(value, list):
        return "\n".join(checked_text(line, place / index) for index, line in enumerate(value))
    return checked_text(value, place)


def _bounded(tests: Mapping[str, Any], name: str, place: Place) -> list[Any]:
    values = list_field(tests, name, place)
    if not values:
        raise (place / name).error("empty: without a test anything would pass")
    if len(values) > MAX_TESTS:
        raise (place / name).error(f"{len(values)} tests; at most {MAX_TESTS} are taken for one task")
    return values


def _paired(tests: Mapping[str, Any], name: str, count: int, place: Place) -> list[Any]:
    values = list_field(tests, name, place)
    if len(values) != count:
        raise (place / name).error(f"{len(values)} for {count} inputs; give one each")
    return values


def _entry_point(tests: Mapping[str, Any], name: str, place: Place) -> str:
    value = text_field(tests, name, place)
    owner, _, last = value.rpartition(".")
    if not is_function_name(last) or (owner and not is_function_name(owner)):
        raise (place / name).error(f"{value!r} is not a Python function's name")
    return value


def _only_unknown(sources: Sequence[str], setup: str, reference: str, place: Place) -> str:
    """The one function that the tests call and nothing defines."""
    known = set(dir(builtins)) | _bound(setup) | _bound(reference)
    called: dict[str, None] = {}
    for source in sources:
        known |= _bound(source)
        for node in ast.walk(parse_source(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called[node.func.id] = None
    if reference:
        called = {name: None for name in called if name in _bound(reference)}
        known -= set(called)
    unknown = [name for name in called if name not in known]
    if len(unknown) != 1:
        said = f"; the tests call {', '.join(unknown)}" if unknown else ""
        raise (place / "entry_point").error(
            f"missing, and the tests do not make clear which function it is{said}"
        )
    return unknown[0]


def _bound(source: str) -> set[str]:
    """The names that a source binds at its top."""
    found: set[str] = set()
    for node in ast.walk(parse_source(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found
