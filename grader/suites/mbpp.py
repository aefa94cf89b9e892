"""Google's MBPP and sanitized MBPP: a text, a reference, and a list of asserts.

MBPP has one row a line with ``text``, ``code``, ``task_id``, ``test_setup_code``, ``test_list`` and
``challenge_test_list``; sanitized MBPP is one JSON array whose rows have ``prompt`` for ``text`` and
``test_imports`` for ``test_setup_code`` (https://github.com/google-research/google-research/tree/master/mbpp,
CC-BY-4.0). Neither names the entry point: it is the function of ``code`` that the asserts call.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from grader.suites.files import (
    Place,
    SuiteFile,
    TaskIds,
    checked_text,
    describe,
    list_field,
    parse_json,
    parse_row,
    text_field,
)
from grader.suites.source import parse_source
from grader.suites.task import AssertionTests, Task, TestGroup


def load_tasks(file: SuiteFile) -> dict[str, Task]:
    """Read the tasks of a file in MBPP's schema, task ids as in EvalPlus (``Mbpp/2``).

    Each assert of ``test_list`` is a test of the group ``base``; those of ``challenge_test_list``, where a
    task has any, make the group ``challenge``.

    Raises:
        SuiteError: a row is not JSON, a field is missing or of the wrong type, a task id comes twice, or no
            entry point can be found.

    """
    seen = TaskIds(file)
    tasks: dict[str, Task] = {}
    for line, row, place in _rows(file):
        task_id = seen.add(_task_id(row, place), line)
        tasks[task_id] = _task(task_id, row, place)
    if not tasks:
        raise file.error(None, "has no tasks")
    return tasks


def _rows(file: SuiteFile) -> Iterator[tuple[int, dict[str, Any], Place]]:
    if not file.text.lstrip().startswith("["):
        for line, text in file.rows():
            yield line, parse_row(file, line, text), Place(file, line)
        return
    parse_json(file, 1, file.text)  # for the error with its line, if there is one
    for line, row in _array_items(file):
        if not isinstance(row, dict):
            raise file.error(line, f"a JSON object is needed, this is {describe(row)}")
        yield line, row, Place(file, line)


def _array_items(file: SuiteFile) -> Iterator[tuple[int, Any]]:
    """Give the items of a file that is one JSON array, each with the line it begins on."""
    import json

    decoder, text = json.JSONDecoder(), file.text
    position, line, counted = text.index("[") + 1, 1, 0
    while True:
        while text[position] in " \t\r\n,":
            position += 1
        if text[position] == "]":
            return
        line, counted = line + text.count("\n", counted, position), position
        item, position = decoder.raw_decode(text, position)
        yield line, item


def _task_id(row: dict[str, Any], place: Place) -> str:
    number = row.get("task_id")
    if isinstance(number, bool) or not isinstance(number, int):
        raise (place / "task_id").error(f"a number is needed, this is {describe(number)}")
    return f"Mbpp/{number}"


def _task(task_id: str, row: dict[str, Any], place: Place) -> Task:
    text = text_field(row, "text" if "text" in row else "prompt", place)
    code = _plain_lines(text_field(row, "code", place))
    setup = _setup(row, place)
    tests = _sources(row, "test_list", place)
    if not tests:
        raise (place / "test_list").error("empty: a task needs a test")
    challenge = _sources(row, "challenge_test_list", place) if "challenge_test_list" in row else ()
    entry_point = _entry_point(code, (*tests, *challenge), place)
    classes = _classes(code)
    groups = [TestGroup("base", AssertionTests(tests, setup, classes))]
    if challenge:
        groups.append(TestGroup("challenge", AssertionTests(challenge, setup, classes)))
    return Task(
        task_id=task_id,
        prompt=_prompt(text, tests),
        entry_point=entry_point,
        reference=code,
        groups=tuple(groups),
    )


def _setup(row: dict[str, Any], place: Place) -> str:
    if "test_imports" in row:
        return "\n".join(_sources(row, "test_imports", place))
    return _plain_lines(text_field(row, "test_setup_code", place, default=""))


def _sources(row: dict[str, Any], name: str, place: Place) -> tuple[str, ...]:
    values = list_field(row, name, place)
    # Some of MBPP's asserts begin with a blank, which Python would take for an indentation.
    return tuple(
        _plain_lines(checked_text(value, place / name / index)).strip() for index, value in enumerate(values)
    )


def _plain_lines(source: str) -> str:
    return source.replace("\r\n", "\n")


def _prompt(text: str, tests: Sequence[str]) -> str:
    """Write what a model is shown: the text and the asserts in a docstring, as the task names no function."""
    shown = "\n".join((text.strip(), *tests))
    return '"""\n' + shown.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') + '\n"""\n'


def _classes(code: str) -> tuple[str, ...]:
    """The classes of the reference. The tests make nothing but arguments of them, and a program has its own, with
    fields that it may call as it likes."""
    return tuple(node.name for node in parse_source(code).body if isinstance(node, ast.ClassDef))


def _entry_point(code: str, tests: Sequence[str], place: Place) -> str:
    """Find the function of the reference that most asserts call; classes only make arguments."""
    try:
        functions = {node.name for node in parse_source(code).body if isinstance(node, ast.FunctionDef)}
    except ValueError as error:
        raise (place / "code").error(str(error)) from error
    calls: Counter[str] = Counter()
    for index, test in enumerate(tests):
        try:
            calls.update(_called_names(parse_source(test)) & functions)
        except ValueError as error:
            raise place.error(f"test {index} is {error}") from error
    if not calls:
        raise (place / "test_list").error(
            f"calls none of the reference's functions ({', '.join(sorted(functions)) or 'it has none'})"
        )
    return calls.most_common(1)[0][0]


def _called_names(tree: ast.AST) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
