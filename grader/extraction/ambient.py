"""Names that some benchmarks' graders put before every program.

LiveCodeBench and APPS run a program after imports such as ``from typing import *`` and ``from collections import *``,
so models leave these imports out. Here, only the imports that a program needs are put before it: all of them together
cost more time than most programs.
"""

from __future__ import annotations

import ast
import builtins
import importlib
from functools import cache

from grader.extraction.syntax import parse_source

# In the order in which LiveCodeBench imports everything of them: of two with the same name the later one counts.
_STARRED = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "typing",
)  # fmt: skip
_MODULES = (*_STARRED, "time", "fractions")


def with_ambient_imports(source: str) -> str:
    """Return the program with imports before it for the names that it uses, does not bind, and those graders provide.

    One line is put before the program, or in the place of its first line where that is blank or a comment. A program
    that cannot be parsed, or needs nothing, is returned as it is.
    """
    tree = parse_source(source).tree
    if tree is None:
        return source
    known = _ambient_names()
    imports = list(dict.fromkeys(known[name] for name in sorted(_free_names(tree)) if name in known))
    if not imports:
        return source
    line = "; ".join(imports)
    first, newline, rest = source.partition("\n")
    if newline and (not first.strip() or first.lstrip().startswith("#")) and not _has_future_import(tree):
        return f"{line}\n{rest}"
    if _has_future_import(tree):
        return source  # nothing may stand before it
    return f"{line}\n{source}"


@cache
def _ambient_names() -> dict[str, str]:
    """The import statement that provides each name."""
    known: dict[str, str] = {}
    for module in _STARRED:
        loaded = importlib.import_module(module)
        public = getattr(loaded, "__all__", [name for name in vars(loaded) if not name.startswith("_")])
        known |= {name: f"from {module} import {name}" for name in public}
    for name in dir(builtins):
        known.pop(name, None)
    return known | {module: f"import {module}" for module in _MODULES} | {"np": "import numpy as np"}


def _free_names(tree: ast.Module) -> set[str]:
    """Names that are read somewhere and bound nowhere."""
    loaded: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            bound.add(node.name)
    return loaded - bound


def _has_future_import(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
