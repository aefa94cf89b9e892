"""What a cell sees of the grader is the runner's folder alone: it must need nothing from outside of it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grader.sandbox import runner

RUNNER = Path(runner.__file__).parent
# The folder is mounted as the package "runner"; its __main__ imports it under that name.
OWN_NAME = "runner"


def imported_modules(file: Path) -> Iterator[tuple[str, int]]:
    """Yield (top-level module, line) of each import; a relative one yields a name that begins with a dot."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            yield dots + (node.module or "").partition(".")[0], node.lineno


@pytest.mark.parametrize("file", sorted(RUNNER.glob("*.py")), ids=lambda file: file.name)
def test_the_runner_imports_the_standard_library_and_itself(file: Path) -> None:
    foreign = [
        f"{file.name}:{line} imports {name}"
        for name, line in imported_modules(file)
        if name not in sys.stdlib_module_names
        and name != OWN_NAME
        and not (name.startswith(".") and name[1:2] != ".")
    ]
    assert foreign == []


def test_the_runner_is_one_flat_folder() -> None:
    assert [entry.name for entry in RUNNER.iterdir() if entry.is_dir() and entry.name != "__pycache__"] == []
