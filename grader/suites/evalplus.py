"""Suites in EvalPlus's schema: HumanEval+, MBPP+, and any file of the same shape.

A row has ``task_id``, ``prompt``, ``entry_point``, ``canonical_solution``, ``base_input``, ``plus_input`` and
``atol``. Which tasks are compared in a way of their own is recorded in EvalPlus
(``evalplus/eval/__init__.py`` and ``_special_oracle.py``, Apache-2.0).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from grader.errors import SuiteError
from grader.suites.files import (
    Place,
    SuiteFile,
    TaskIds,
    describe,
    identifier_field,
    need,
    parse_row,
    text_field,
)
from grader.suites.restoration import restore
from grader.suites.task import Comparison, ComparisonKind, FunctionTests, Task, TestGroup

_RTOL = 1e-7  # what EvalPlus passes to numpy.allclose
_GROUPS = {"base": "base_input", "plus": "plus_input"}
# Where an input's text may end in a released file: at one of these keys, or with the row.
_KEYS_AFTER_INPUTS = tuple(f', "{key}": ' for key in ("atol", "plus_input", "contract", "assertion", "test"))

# What parsing and restoring raise on inputs of another shape than the task's.
_UNUSABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)

_SPECIAL: dict[str, tuple[ComparisonKind, str | None]] = {
    "HumanEval/32": ("polynomial_root", None),
    **{f"Mbpp/{number}": ("set", None) for number in (2, 7, 111, 140, 232, 249, 579, 769)},
    **{f"Mbpp/{number}": ("not_none", None) for number in (737, 787, 794)},
    "Mbpp/164": ("alternative", "are_equivalent"),
    "Mbpp/295": ("alternative", "sum_div"),
    "Mbpp/558": ("alternative", "digit_distance_nums"),
    "Mbpp/581": ("alternative", "surface_area"),
}


def load_tasks(file: SuiteFile, *, released: bool = False) -> dict[str, Task]:
    """Read the tasks of a file in EvalPlus's schema.

    ``released`` says that the file's hash is that of a known release: then the inputs, nearly all of the
    file, are left as text until somebody asks for them. Any other file is parsed and checked whole, now.

    Raises:
        SuiteError: a row is not JSON, a field is missing or of the wrong type, or a task id comes twice.

    """
    seen = TaskIds(file)
    tasks: dict[str, Task] = {}
    for line, text in file.rows():
        row, inputs = (_split_row if released else _parse_whole_row)(file, line, text)
        place = Place(file, line)
        task_id = seen.add(text_field(row, "task_id", place), line)
        prompt = text_field(row, "prompt", place)
        tasks[task_id] = Task(
            task_id=task_id,
            prompt=prompt,
            entry_point=identifier_field(row, "entry_point", place),
            reference=prompt + text_field(row, "canonical_solution", place),
            groups=tuple(
                TestGroup(group, FunctionTests(_Inputs(f"{file.path}, line {line}", task_id, inputs[field])))
                for group, field in _GROUPS.items()
            ),
            comparison=_comparison(task_id, row, place),
        )
    if not tasks:
        raise file.error(None, "has no tasks")
    return tasks


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs of one group, parsed anew at each call: kept as text they take a tenth of the memory."""

    place: str
    task_id: str
    text: Callable[[], str]

    def __call__(self) -> Sequence[Sequence[Any]]:
        try:
            return restore(self.task_id, _argument_lists(json.loads(self.text())))
        except _UNUSABLE as error:
            raise SuiteError(f"{self.place}: the inputs of {self.task_id} are not usable: {error}") from error


def _argument_lists(value: Any) -> list[list[Any]]:
    if isinstance(value, str):  # older releases hold JSON text inside JSON
        value = json.loads(value)
    if value == {}:  # how MBPP+ v0.2.0 writes that Mbpp/793 has no plus inputs
        return []
    if not isinstance(value, list):
        raise TypeError(f"an array of argument lists is needed, this is {describe(value)}")
    for index, arguments in enumerate(value):
        if not isinstance(arguments, list):
            raise TypeError(f"input {index} must be an array of arguments, this is {describe(arguments)}")
    return value


def _split_row(file: SuiteFile, line: int, text: str) -> tuple[dict[str, Any], dict[str, Callable[[], str]]]:
    """Parse a row but for its inputs, which are cut out of the text unread.

    Parsing HumanEval+ whole takes 130 ms and 90 MB; this takes a few milliseconds. A row that cannot be cut
    this way is parsed whole.
    """
    spans: dict[str, tuple[int, int]] = {}
    for field in _GROUPS.values():
        key = f'"{field}": '
        at = text.find(key)
        if at < 0:
            return _parse_whole_row(file, line, text)
        start = at + len(key)
        ends = [end for after in _KEYS_AFTER_INPUTS if (end := text.find(after, start)) >= 0]
        spans[field] = (start, min(ends, default=text.rindex("}")))
    skeleton, position = "", 0
    for start, end in sorted(spans.values()):
        skeleton += text[position:start] + "null"
        position = end
    try:
        row = json.loads(skeleton + text[position:])
    except ValueError:
        return _parse_whole_row(file, line, text)
    return row, {field: _Slice(text, *span) for field, span in spans.items()}


@dataclass(frozen=True, slots=True)
class _Slice:
    text: str
    start: int
    end: int

    def __call__(self) -> str:
        return self.text[self.start : self.end]


def _parse_whole_row(
    file: SuiteFile, line: int, text: str
) -> tuple[dict[str, Any], dict[str, Callable[[], str]]]:
    row = parse_row(file, line, text)
    place = Place(file, line)
    inputs: dict[str, Callable[[], str]] = {}
    for field in _GROUPS.values():
        value = need(row, field, place)
        try:
            restore(str(row.get("task_id")), _argument_lists(value))
        except _UNUSABLE as error:
            raise (place / field).error(str(error)) from error
        kept = json.dumps(value)
        inputs[field] = _Slice(kept, 0, len(kept))
    if not row["base_input"] and not row["plus_input"]:
        raise (place / "base_input").error("the task has no inputs at all, so anything would pass it")
    return row, inputs


def _comparison(task_id: str, row: dict[str, Any], place: Place) -> Comparison:
    atol = need(row, "atol", place)
    if isinstance(atol, bool) or not isinstance(atol, int | float) or not 0 <= atol < float("inf"):
        raise _bad_tolerance(place, atol)
    kind, oracle = _SPECIAL.get(task_id, ("evalplus", None))
    return Comparison(kind=kind, atol=float(atol), rtol=_RTOL, oracle=oracle)


def _bad_tolerance(place: Place, value: Any) -> SuiteError:
    return (place / "atol").error(f"a number of at least 0 is needed, this is {describe(value)}")
