"""Questions about Python source, answered from its syntax tree and never by running or compiling it.

The text is hostile and the process is trusted, hence the bounds. ``compile()`` to bytecode is out of the
question: constant folding of ``((9**9)**9)**9`` or ``'x' * 10**9`` is work that the text chooses. Parsing is
linear in practice, but recursive in C: CPython 3.11 and newer count their parser's recursion and raise
``MemoryError`` or ``RecursionError``, on a stack of the usual size. The bounds here (length, and the length
of a run of prefix operators and brackets) keep a small thread stack safe too, and bound the time.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grader.suites.source import has_endless_name, unwarned

MAX_PARSED_CHARS = 1 << 17
"""Longer source is not parsed: 128 Ki characters are beyond any model's program."""

_TOTAL_CHARS = 2 << 17
_TOTAL_ATTEMPTS = 96
_PREFIX_ATTEMPTS = 12
_MAX_PREFIX_RUN = 1000

# Runs of tokens that each open one more level of the grammar; matches never overlap and need no backtracking.
_PREFIX_RUN = re.compile(r"(?:[-+~(\[{]\s*|\b(?:not|await)\s+|\blambda\b[^:\n]{0,99}:\s*)+")

_BUILTINS = frozenset(dir(builtins))
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_SCOPES = (*_DEFINITIONS, ast.Lambda)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A tree, or None and the line (from 1) where parsing gave up, if the parser named one."""

    tree: ast.Module | None
    error_line: int | None = None


def parse_source(source: str) -> Parsed:
    """Parse within the bounds; whatever is wrong with the text, the answer is a ``Parsed`` without a tree."""
    if len(source) > MAX_PARSED_CHARS or _takes_too_long(source):
        return Parsed(None)
    try:
        with unwarned():
            return Parsed(ast.parse(source))
    except SyntaxError as error:
        return Parsed(None, error.lineno)
    except (ValueError, MemoryError, RecursionError):  # NUL bytes, lone surrogates, deep nesting
        return Parsed(None)


def _takes_too_long(source: str) -> bool:
    if any(run.end() - run.start() > _MAX_PREFIX_RUN for run in _PREFIX_RUN.finditer(source)):
        return True
    return has_endless_name(source)


class Parser:
    """Parses candidates of one completion, on a budget of attempts and characters that bounds the time.

    The budget counts work, not seconds, so that the outcome does not depend on the machine's load. When it
    is used up, everything counts as unparsable.
    """

    def __init__(self) -> None:
        self._attempts = _TOTAL_ATTEMPTS
        self._chars = _TOTAL_CHARS
        self._known: dict[str, Parsed] = {}

    def parse(self, source: str) -> Parsed:
        """Parse source once; a text met before costs nothing."""
        known = self._known.get(source)
        if known is None:
            if self._attempts <= 0 or self._chars < len(source):
                return Parsed(None)
            known = self._known[source] = parse_source(source)
            self._attempts -= 1
            self._chars -= _cost(source, known)
        return known

    def tree(self, source: str) -> ast.Module | None:
        """Return the syntax tree, or None where the source does not parse within the bounds."""
        return self.parse(source).tree

    def longest_prefix(self, source: str, keep_lines: int = 0) -> str | None:
        """Return the longest run of first lines that parses, found by cutting where the parser stops.

        At most twelve attempts. None where fewer than ``keep_lines + 1`` lines would be left.
        """
        lines = source.split("\n")
        count = len(lines)
        for _ in range(_PREFIX_ATTEMPTS):
            if count <= keep_lines:
                return None
            text = "\n".join(lines[:count]) + "\n"
            parsed = self.parse(text)
            if parsed.tree is not None:
                return text
            if parsed.error_line is None:
                return None
            inside = parsed.error_line < _last_code_line(lines, count) + 1
            count = max(parsed.error_line - 1, 0) if inside else _without_open_block(lines, count)
        return None


def _cost(source: str, parsed: Parsed) -> int:
    if parsed.tree is not None or parsed.error_line is None:
        return len(source)
    lines = source.count("\n") + 1
    return len(source) // 8 + len(source) * min(parsed.error_line, lines) // lines


def _last_code_line(lines: Sequence[str], count: int) -> int:
    while count > 0 and not lines[count - 1].strip():
        count -= 1
    return count


def _without_open_block(lines: Sequence[str], count: int) -> int:
    """Cut a text that ends too early: a header without its block, or the innermost block with its header."""
    last = _last_code_line(lines, count)
    if last == 0:
        return 0
    depth = indent_width(lines[last - 1])
    if depth == 0 or lines[last - 1].rstrip().endswith(":"):
        return last - 1
    last -= 1
    while last > 0 and not (lines[last - 1].strip() and indent_width(lines[last - 1]) < depth):
        last -= 1
    return max(last - 1, 0)


def indent_width(line: str) -> int:
    """Return the number of blanks and tabs that a line starts with."""
    return len(line) - len(line.lstrip(" \t"))


def _module_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements that run at module level: also those under if, try, with and loops."""
    pending: list[ast.AST] = list(reversed(body))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.stmt):
            yield node
            if isinstance(node, _DEFINITIONS):
                continue
        for part in ("finalbody", "orelse", "cases", "handlers", "body"):
            inner = getattr(node, part, None)
            if inner:
                pending.extend(reversed(inner))


def statement_names(statement: ast.stmt) -> set[str]:
    """Return the names that one statement, taken alone, binds at its level."""
    if isinstance(statement, _DEFINITIONS):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, (ast.AnnAssign, ast.AugAssign, ast.For, ast.AsyncFor)):
        targets = [statement.target]
    elif isinstance(statement, (ast.With, ast.AsyncWith)):
        targets = [item.optional_vars for item in statement.items if item.optional_vars is not None]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def bindings(tree: ast.Module) -> dict[str, ast.stmt]:
    """Map each name bound at module level to the statement that binds it last."""
    return {name: node for node in _module_level(tree.body) for name in statement_names(node)}


def loaded_names(node: ast.AST) -> set[str]:
    """Return every name that is read anywhere in the tree."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def unbound_names(node: ast.AST) -> set[str]:
    """Return the names that are read but bound nowhere in the tree and not built in.

    A name that is local to one function and free in another is missed; that errs towards leaving a program
    as it is.
    """
    bound: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
            bound.add(inner.id)
        elif isinstance(inner, ast.arg):
            bound.add(inner.arg)
        elif isinstance(inner, (*_DEFINITIONS, ast.Import, ast.ImportFrom)):
            bound |= statement_names(inner)
        elif isinstance(inner, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and inner.name:
            bound.add(inner.name)
    return loaded_names(node) - bound - _BUILTINS


def returns_outside_function(tree: ast.Module) -> bool:
    """Tell whether ``return`` stands at module level, which the parser lets pass."""
    return any(isinstance(node, ast.Return) for node in _module_level(tree.body))


def cut_short(tree: ast.Module, kept: str, whole: str) -> str | None:
    """Return the name of the function that lost code which could have run by cutting ``whole`` to ``kept``.

    None where the cut is between definitions, or after a function's last ``return`` or ``raise``: then what
    is missing could not have run. A function cut elsewhere is a broken one, not one with prose behind it.
    """
    beyond = whole[len(kept) :].lstrip("\r\n") if whole.startswith(kept) else ""
    last: ast.stmt | None = tree.body[-1] if tree.body else None
    while isinstance(last, ast.ClassDef):
        last = last.body[-1]
    if not isinstance(last, _FUNCTIONS) or indent_width(beyond) <= last.col_offset:
        return None
    return None if isinstance(last.body[-1], (ast.Return, ast.Raise)) else last.name


def is_prose(statement: ast.stmt) -> bool:
    """Tell whether a statement may be a remark that happens to parse (``Done``, ``Note: this``, ``"x"``)."""
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    if not isinstance(statement, ast.Expr):
        return False
    acting = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
    if isinstance(statement.value, ast.Constant) and statement.value.value is Ellipsis:
        return False
    return not any(isinstance(node, acting) for node in ast.walk(statement.value))


def does_something(tree: ast.Module) -> bool:
    """Tell whether any statement is more than a remark."""
    return any(not is_prose(statement) for statement in tree.body)


def without_docstring(body: Sequence[ast.stmt]) -> Sequence[ast.stmt]:
    """Return the statements after the docstring, if there is one."""
    if body and isinstance(first := body[0], ast.Expr) and isinstance(first.value, ast.Constant):
        return body[1:] if isinstance(first.value.value, str) else body
    return body


def is_placeholder(statement: ast.stmt) -> bool:
    """Tell whether a binding leaves the work out: a stub function, or an import of somebody else's."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return True
    if not isinstance(statement, _FUNCTIONS):
        return False
    for inner in without_docstring(statement.body):
        if isinstance(inner, ast.Raise):
            if inner.exc is None or "NotImplementedError" not in loaded_names(inner.exc):
                return False
        elif not isinstance(inner, ast.Pass) and not (
            isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant)
        ):
            return False
    return True


def first_line(statement: ast.stmt) -> int:
    """Return the line (from 1) that a statement starts on, with its decorators."""
    if isinstance(statement, _DEFINITIONS) and statement.decorator_list:
        return min(statement.lineno, *(decorator.lineno for decorator in statement.decorator_list))
    return statement.lineno


def source_of(statement: ast.stmt, lines: Sequence[str]) -> str:
    """Return the whole lines of a statement, each ended by a newline."""
    end = statement.end_lineno or statement.lineno
    return "".join(line + "\n" for line in lines[first_line(statement) - 1 : end])
