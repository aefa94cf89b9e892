"""What a prompt holds for the program: a preamble to lend, and perhaps a function to be continued."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache

from grader.extraction import syntax
from grader.extraction.markup import read_markup

_UNIT = 4


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt seen as code. ``text`` is "" where the prompt is not Python.

    ``body_indent`` is None unless the prompt ends inside a function whose body is still to be written; then
    it is the blanks that the body's lines start with. ``line_count`` counts up to the last line not blank.
    ``preamble`` is the source of what stands beside the entry point (imports, helpers, constants), and
    ``preamble_names`` what it binds, "*" for a star import.
    """

    text: str
    body_indent: str | None
    line_count: int
    preamble: str
    preamble_names: frozenset[str]


_NOT_CODE = Prompt("", None, 0, "", frozenset())


@lru_cache(maxsize=1024)
def read_prompt(prompt: str, entry_point: str) -> Prompt:
    """Read a prompt; a chat prompt counts by the last fenced block in it that is Python."""
    found = _read_code(prompt, entry_point)
    if found is None and ("```" in prompt or "~~~" in prompt):
        for block in reversed(read_markup(prompt).blocks[-4:]):
            found = _read_code(block.text, entry_point)
            if found is not None:
                break
    return found or _NOT_CODE


def _read_code(text: str, entry_point: str) -> Prompt | None:
    if len(text) > syntax.MAX_PARSED_CHARS:
        return None
    lines = text.rstrip().split("\n")
    header_indent = " " * syntax.indent_width(lines[-1])
    for filler in ("", header_indent + " " * _UNIT + "pass\n"):
        tree = syntax.parse_source(text.rstrip(" \t\n") + "\n" + filler).tree
        if tree is not None:
            break
    else:
        return None
    if not tree.body:
        return None
    preamble = [node for node in tree.body if not _is_entry(node, tree, entry_point)]
    return Prompt(
        text=text,
        body_indent=_open_body_indent(tree, text),
        line_count=len(lines),
        preamble="".join(syntax.source_of(node, lines) for node in preamble),
        preamble_names=frozenset(name for node in preamble for name in syntax.statement_names(node)),
    )


def _is_entry(node: ast.stmt, tree: ast.Module, entry_point: str) -> bool:
    """The entry point itself, what is open at the end, and remarks are no part of the preamble."""
    if syntax.is_prose(node) or entry_point in syntax.statement_names(node):
        return True
    return node is tree.body[-1] and _open_function(tree) is not None


def _open_function(tree: ast.Module) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    last: ast.stmt | None = tree.body[-1]
    while isinstance(last, ast.ClassDef):
        last = last.body[-1]
    if isinstance(last, (ast.FunctionDef, ast.AsyncFunctionDef)) and syntax.is_placeholder(last):
        return last
    return None


def _open_body_indent(tree: ast.Module, text: str) -> str | None:
    function = _open_function(tree)
    if function is None:
        return None
    lines = text.split("\n")
    first = function.body[0].lineno - 1
    line = lines[first] if first < len(lines) and first >= function.lineno else ""
    if line.strip():
        return line[: syntax.indent_width(line)]
    return " " * (function.col_offset + _UNIT)
