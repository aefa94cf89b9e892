"""Test modules in pytest's style, as KodCode's rows have them, read as assertion tests."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from grader.suites.files import Place
from grader.suites.source import parse_source, unparsed

_SOLUTION_MODULE = "solution"

# What test modules use of pytest most; the cells have no pytest, and need none.
_PYTEST = """
class pytest:
    class raises:
        def __init__(self, expected, match=None):
            self.expected, self.match, self.value = expected, match, None

        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            import re
            assert kind is not None, "did not raise"
            self.value = error
            if not issubclass(kind, self.expected):
                return False
            assert self.match is None or re.search(self.match, str(error))
            return True

    class approx:
        def __init__(self, expected, rel=1e-6, abs=1e-12):
            self.expected, self.rel, self.abs = expected, 1e-6 if rel is None else rel, 1e-12 if abs is None else abs

        def __eq__(self, answer):
            import math
            if isinstance(self.expected, dict):
                return isinstance(answer, dict) and answer.keys() == self.expected.keys() and all(
                    pytest.approx(value, self.rel, self.abs) == answer[key] for key, value in self.expected.items())
            if isinstance(self.expected, (list, tuple)):
                return isinstance(answer, (list, tuple)) and len(answer) == len(self.expected) and all(
                    pytest.approx(value, self.rel, self.abs) == item for value, item in zip(self.expected, answer))
            if not isinstance(answer, (int, float)) or not isinstance(self.expected, (int, float)):
                return answer == self.expected
            return math.isclose(answer, self.expected, rel_tol=self.rel, abs_tol=self.abs)

        __hash__ = None
"""


@dataclass(slots=True)
class TestModule:
    """A test module taken apart. ``imported`` has the names that it imports from the solution."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    setup: str = ""
    tests: list[str] = field(default_factory=list)
    imported: list[str] = field(default_factory=list)


def read_test_module(source: str, entry_point: str, place: Place) -> TestModule:
    """Take a test module apart: each function ``test_...`` is a test, or, without such, each assertion at the end.

    ``entry_point`` is the function under test, or "" for the first name that the module imports from ``solution``.

    Raises:
        SuiteError: it is not Python, has no test, cannot be written out again (nested too deeply, too long a number),
            or uses more of pytest than ``raises`` and ``approx``.

    """
    try:
        tree = parse_source(source)
    except ValueError as error:
        raise place.error(str(error)) from error
    module = TestModule()
    uses_pytest, body, aliases = False, [], []
    for node in tree.body:
        if _imports_solution(node, place):
            assert isinstance(node, ast.ImportFrom)
            for alias in node.names:
                module.imported.append(alias.name)
                if alias.asname:
                    aliases.append(f"{alias.asname} = {alias.name}")
        elif _imports_pytest(node, place):
            uses_pytest = True
        else:
            body.append(node)
    module.tests = [f"{name}()" for node in body if (name := _name_of_test(node, place))]
    if not module.tests:
        body, module.tests = _assertions_at_the_end(body, place)
    stand_ins = _stand_ins(module.imported, entry_point)
    text = _source_of(ast.Module(body=body, type_ignores=[]), place)
    module.setup = "\n".join([*([_PYTEST] if uses_pytest else []), *stand_ins, *aliases, text])
    return module


def _stand_ins(imported: list[str], entry_point: str) -> list[str]:
    """Bind names of the solution beside the entry point, to stand-ins of the kind that the driver gives that."""
    first = entry_point or (imported[0] if imported else "")
    return [f"{name} = type({first})({name!r})" for name in dict.fromkeys(imported) if name != first]


def _imports_solution(node: ast.stmt, place: Place) -> bool:
    if isinstance(node, ast.Import) and any(alias.name == _SOLUTION_MODULE for alias in node.names):
        raise place.error(f"import the names that are tested: from {_SOLUTION_MODULE} import name")
    if not isinstance(node, ast.ImportFrom) or node.module != _SOLUTION_MODULE:
        return False
    if any(alias.name == "*" for alias in node.names):
        raise place.error(f"name what is imported from {_SOLUTION_MODULE}; * is not known here")
    return True


def _imports_pytest(node: ast.stmt, place: Place) -> bool:
    if isinstance(node, ast.ImportFrom) and node.module == "pytest":
        raise place.error("write import pytest; of its names there are raises and approx")
    if not isinstance(node, ast.Import) or not any(alias.name == "pytest" for alias in node.names):
        return False
    if len(node.names) > 1 or node.names[0].asname:
        raise place.error("write import pytest on a line of its own")
    return True


def _name_of_test(node: ast.stmt, place: Place) -> str:
    if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
        raise place.error(
            f"class {node.name}: write the tests as functions; classes of tests are not known here"
        )
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test"):
        return ""
    if isinstance(node, ast.AsyncFunctionDef) or node.decorator_list or _has_parameters(node.args):
        raise place.error(
            f"function {node.name}: a test is a plain function; fixtures, parameters and marks are not known here"
        )
    return node.name


def _has_parameters(arguments: ast.arguments) -> bool:
    return any(isinstance(node, ast.arg) for node in ast.iter_child_nodes(arguments))


def _source_of(tree: ast.AST, place: Place) -> str:
    try:
        return unparsed(tree)
    except ValueError as error:
        raise place.error(str(error)) from error


def _assertions_at_the_end(body: list[ast.stmt], place: Place) -> tuple[list[ast.stmt], list[str]]:
    """Without functions: a test each assertion, if nothing else comes after the first; otherwise all is one test."""
    first = next((number for number, node in enumerate(body) if isinstance(node, ast.Assert)), None)
    if first is None:
        if not any(isinstance(node, ast.Assert) for statement in body for node in ast.walk(statement)):
            raise place.error("has no test: no function named test_..., and no assertion")
        first = len(body) - 1
    if all(isinstance(node, ast.Assert) for node in body[first:]):
        return body[:first], [_source_of(node, place) for node in body[first:]]
    return [], [_source_of(ast.Module(body=body, type_ignores=[]), place)]
