"""What trainers' data sets call a ground truth, a label or an answer: tests of the row's own, or the name of a task.

Read from data sets for verl, OpenRLHF, rLLM, SkyRL and NeMo-Gym:

- a task's name: ``"HumanEval/0"``, or ``{"suite": "humaneval+", "task_id": "HumanEval/0"}``;
- tests as in ``docs/inline-tests.md``, or their JSON text (APPS, TACO, CodeContests and LiveCodeBench rows among them);
- verl's ``{"assert_case": [...]}``, with ``inputs`` and ``outputs`` that say nothing;
- a list of LiveCodeBench's and rLLM's tests: ``{"input", "output", "testtype", "metadata": {"func_name"}}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grader.errors import SuiteError
from grader.suites.files import finite_json

_TASK_FIELDS = {"task_id", "suite"}
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Label:
    """Either ``tests``, or a ``task_id`` with the name of its ``suite`` where the label has one."""

    tests: Any = None
    task_id: str | None = None
    suite: str | None = None


def read_label(given: Any, place: str) -> Label:
    """Read a label. ``place`` is what the caller calls it; errors begin with it.

    The tests themselves are checked where they are used. Raises SuiteError for what cannot be a label.
    """
    value = plain(given)
    if isinstance(value, str):
        text = value.strip()
        if not text:
            raise SuiteError(f"{place}: empty; give tests, or the name of a task")
        if text[0] not in "{[":
            return Label(task_id=text)
        try:
            value = finite_json(text)
        except (ValueError, RecursionError) as error:
            raise SuiteError(f"{place}: begins like JSON, and is not: {error}") from None
    if isinstance(value, list):
        return Label(tests=_of_list(value, place))
    if isinstance(value, dict):
        return _of_object(value, place)
    raise SuiteError(
        f"{place}: {_shown(value)} is no ground truth; give tests (an object, or its JSON text), or a task's name"
    )


def plain(value: Any) -> Any:
    """Return a value as JSON's types: arrays of numpy, mappings and sequences of OmegaConf become dicts and lists."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [plain(one) for one in value]
    return value


def _of_object(value: dict[str, Any], place: str) -> Label:
    if value.keys() <= _TASK_FIELDS and "task_id" in value:
        task_id, suite = value["task_id"], value.get("suite")
        if not isinstance(task_id, str) or not isinstance(suite, str | None):
            raise SuiteError(f"{place}: task_id and suite are names, so texts")
        return Label(task_id=task_id, suite=suite)
    if value.get("assert_case") is not None:
        return Label(tests=_assertions(value, place))
    # A field that says "not this" is left out: data sets stored by column have all fields in all rows.
    return Label(tests={name: one for name, one in value.items() if one is not None})


def _assertions(value: dict[str, Any], place: str) -> dict[str, Any]:
    cases = value["assert_case"]
    if not isinstance(cases, list) or not cases:
        raise SuiteError(f"{place}: assert_case is to be a list of assertions")
    if any(isinstance(one, str) and one.strip() for one in _list(value.get("inputs"))):
        raise SuiteError(
            f"{place}: has assertions and inputs; a row is graded by either, so leave out one of them"
        )
    tests: dict[str, Any] = {"kind": "assertions", "tests": cases}
    return tests | ({"entry_point": value["fn_name"]} if value.get("fn_name") else {})


def _of_list(value: list[Any], place: str) -> Any:
    if not value:
        raise SuiteError(f"{place}: an empty list; a row needs at least one test")
    if not all(isinstance(one, dict) and {"input", "output"} <= one.keys() for one in value):
        return value  # assertions
    names = {(one.get("metadata") or {}).get("func_name") for one in value}
    kinds = {one.get("testtype", "stdin") for one in value}
    if len(names) > 1 or len(kinds) > 1:
        raise SuiteError(f"{place}: its tests call different functions, or are of different kinds")
    tests = {"inputs": [one["input"] for one in value], "outputs": [one["output"] for one in value]}
    name = names.pop()
    if kinds.pop() == "functional" and not name:
        raise SuiteError(f"{place}[0].metadata.func_name: missing, and the tests are functional")
    return tests | ({"fn_name": name} if name else {})


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
