"""Custom suites: the grader's own JSONL schema, described with examples in ``docs/suites.md``.

The reading is strict, because a field that was misspelt and ignored is a test that was never run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from grader.suites.files import (
    Place,
    SuiteFile,
    TaskIds,
    checked_text,
    describe,
    is_function_name,
    list_field,
    need,
    parse_row,
    text_field,
)
from grader.suites.source import parse_source
from grader.suites.task import (
    AssertionTests,
    Comparison,
    FunctionTests,
    StdioComparison,
    StdioTest,
    StdioTests,
    Task,
    TestGroup,
    Tests,
)
from grader.suites.values import python_value

_HEADER = frozenset({"suite", "version", "description"})
_TASK = frozenset({"task_id", "prompt", "entry_point", "reference", "comparison", "groups"})
_COMPARISON = {
    "exact": frozenset({"kind"}),
    "set": frozenset({"kind"}),
    "close": frozenset({"kind", "atol", "rtol"}),
    "benchmark": frozenset({"kind"}),
}


@dataclass(frozen=True, slots=True)
class Header:
    """The optional first line of a custom suite; "" stands for what it does not say."""

    name: str = ""
    version: str = ""


def load(file: SuiteFile) -> tuple[Header, dict[str, Task]]:
    """Read a custom suite: its header and its tasks.

    Raises:
        SuiteError: anything in the file is not as documented; the text names file, line and field.

    """
    seen = TaskIds(file)
    header = Header()
    tasks: dict[str, Task] = {}
    for index, (line, text) in enumerate(file.rows()):
        row, place = parse_row(file, line, text, strict=True), Place(file, line)
        if index == 0 and "suite" in row:
            header = _header(row, place)
            continue
        try:
            task = _task(row, place)
        except RecursionError as error:
            raise place.error("a value is nested too deeply") from error
        tasks[seen.add(task.task_id, line)] = task
    if not tasks:
        raise file.error(None, "has no tasks")
    return header, tasks


def _header(row: Mapping[str, Any], place: Place) -> Header:
    refuse_unknown(row, _HEADER, place)
    name = text_field(row, "suite", place)
    if not name:
        raise (place / "suite").error("empty")
    text_field(row, "description", place, default="")
    return Header(name, text_field(row, "version", place, default=""))


def _task(row: Mapping[str, Any], place: Place) -> Task:
    refuse_unknown(row, _TASK, place)
    task_id = text_field(row, "task_id", place)
    reference = text_field(row, "reference", place, default="")
    entry_point = text_field(row, "entry_point", place, default="")
    check_source(reference, place / "reference")
    if entry_point and not is_function_name(entry_point):
        raise (place / "entry_point").error(f"{entry_point!r} is not a Python function's name")
    groups = _groups(row, bool(reference), place)
    kinds = {type(group.tests) for group in groups}
    if not entry_point and kinds != {StdioTests}:
        raise (place / "entry_point").error("missing; only a task whose tests are all stdio can do without")
    if "comparison" in row and FunctionTests not in kinds:
        raise (place / "comparison").error("is for function tests; this task has none")
    return Task(
        task_id=task_id,
        prompt=text_field(row, "prompt", place, default=""),
        entry_point=entry_point,
        reference=reference,
        groups=groups,
        comparison=read_comparison(row["comparison"], place / "comparison")
        if "comparison" in row
        else Comparison(),
    )


def read_comparison(value: Any, place: Place) -> Comparison:
    """Read how function tests compare: a name, or an object with ``kind`` and its parameters.

    Raises:
        SuiteError: it is neither, or a parameter is wrong.

    """
    given = {"kind": value} if isinstance(value, str) else value
    if not isinstance(given, dict):
        raise place.error(f"a name or an object is needed, this is {describe(value)}")
    kind = need(given, "kind", place)
    if not isinstance(kind, str) or kind not in _COMPARISON:
        raise (place / "kind").error(f"one of {', '.join(_COMPARISON)} is needed, this is {describe(kind)}")
    refuse_unknown(given, _COMPARISON[kind], place)
    if kind == "exact":
        return Comparison("exact")
    if kind == "set":
        return Comparison("set")
    if kind == "benchmark":
        return Comparison("benchmark")
    return Comparison("close", tolerance(given, "atol", place, 0.0), tolerance(given, "rtol", place, 1e-7))


def _groups(row: Mapping[str, Any], has_reference: bool, place: Place) -> tuple[TestGroup, ...]:
    groups: dict[str, TestGroup] = {}
    rows = list_field(row, "groups", place)
    place = place / "groups"
    if not rows:
        raise place.error("empty: a task needs a group of tests")
    for index, group in enumerate(rows):
        here = place / index
        if not isinstance(group, dict):
            raise here.error(f"an object is needed, this is {describe(group)}")
        name = text_field(group, "name", here)
        if not name or name in groups:
            raise (here / "name").error("empty" if not name else f"{name!r} names two groups of this task")
        kind = need(group, "kind", here)
        if not isinstance(kind, str) or kind not in _READERS:
            wanted = ", ".join(_READERS)
            raise (here / "kind").error(f"one of {wanted} is needed, this is {describe(kind)}")
        if not list_field(group, "tests", here):
            raise (here / "tests").error("empty: a group that tests nothing would pass anything")
        groups[name] = TestGroup(name, _READERS[kind](group, has_reference, here))
    return tuple(groups.values())


def _function_tests(group: Mapping[str, Any], has_reference: bool, place: Place) -> FunctionTests:
    refuse_unknown(group, {"name", "kind", "tests"}, place)
    inputs: list[list[Any]] = []
    expected: list[Any] = []
    for index, test in enumerate(group["tests"]):
        here = place / "tests" / index
        refuse_unknown(_object(test, here), {"args", "expected"}, here)
        inputs.append(python_value(list_field(test, "args", here), here / "args"))
        if "expected" in test:
            expected.append(python_value(test["expected"], here / "expected"))
        elif not has_reference:
            raise (here / "expected").error("missing, and the task has no reference to make it from")
        if len(expected) not in (0, index + 1):
            raise (here / "expected").error("give it for all tests of a group, or for none")
    return FunctionTests(partial(same, inputs), partial(same, expected) if expected else None)


def _stdio_tests(group: Mapping[str, Any], has_reference: bool, place: Place) -> StdioTests:
    refuse_unknown(group, {"name", "kind", "tests", "comparison", "atol"}, place)
    comparison = group.get("comparison", "whitespace")
    if comparison not in get_args(StdioComparison):
        wanted = ", ".join(get_args(StdioComparison))
        raise (place / "comparison").error(f"one of {wanted} is needed, this is {describe(comparison)}")
    if "atol" in group and comparison != "float":
        raise (place / "atol").error("is for the comparison 'float'")
    tests = []
    for index, test in enumerate(group["tests"]):
        here = place / "tests" / index
        refuse_unknown(_object(test, here), {"stdin", "stdout"}, here)
        if "stdout" not in test and not has_reference:
            raise (here / "stdout").error("missing, and the task has no reference to make it from")
        stdout = text_field(test, "stdout", here) if "stdout" in test else None
        tests.append(StdioTest(text_field(test, "stdin", here), stdout))
    return StdioTests(tuple(tests), comparison, tolerance(group, "atol", place, 1e-6))


def _assertion_tests(group: Mapping[str, Any], has_reference: bool, place: Place) -> AssertionTests:
    refuse_unknown(group, {"name", "kind", "tests", "setup"}, place)
    tests = []
    for index, test in enumerate(group["tests"]):
        here = place / "tests" / index
        if not check_source(checked_text(test, here), here):
            raise here.error("has no statement, so anything would pass it")
        tests.append(test)
    setup = text_field(group, "setup", place, default="")
    check_source(setup, place / "setup")
    return AssertionTests(tuple(tests), setup)


_READERS: dict[str, Callable[[Mapping[str, Any], bool, Place], Tests]] = {
    "function": _function_tests,
    "stdio": _stdio_tests,
    "assertions": _assertion_tests,
}


def same(values: list[Any]) -> list[Any]:
    """Return the values; with ``partial``, a source of them that can be sent to another process."""
    return values


def _object(value: Any, place: Place) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise place.error(f"an object is needed, this is {describe(value)}")
    return value


def refuse_unknown(row: Mapping[str, Any], known: frozenset[str] | set[str], place: Place) -> None:
    """Raise SuiteError for the first field that is not known."""
    for name in row:
        if name not in known:
            raise (place / name).error(f"unknown; known are {', '.join(sorted(known))}")


def tolerance(row: Mapping[str, Any], name: str, place: Place, default: float) -> float:
    """Return a field that is a finite number of at least 0. Raises SuiteError where it is not."""
    value = row.get(name, default)
    # An integer may be finite and still too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise (place / name).error(f"a number of at least 0 is needed, this is {describe(value)}")
    return float(value)


def check_source(source: str, place: Place) -> int:
    """Return the number of statements in the source. Raises SuiteError where it is not Python."""
    try:
        return len(parse_source(source).body)
    except ValueError as error:
        raise place.error(str(error)) from error
