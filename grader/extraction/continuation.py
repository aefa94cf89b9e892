"""A completion that goes on where the prompt stops: a function's body, with right or wrong indentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from grader.extraction import syntax
from grader.extraction.prompt import Prompt

# A body of nothing but these answers nothing: it is a function in its own right, moved to the right.
_DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
# A function that is tested needs none of these when it is loaded; what follows a body and calls them tries it out.
_TRYING = frozenset(("print", "input", "open", "exit", "quit"))
_MAX_BODY = 1 << 16
_TAB = "    "
_LEADING_TABS = re.compile(r"^[ ]*\t[ \t]*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Continued:
    """A program made of the prompt and a body; ``reindented`` where the body's lines had to be moved."""

    source: str
    reindented: bool


def continue_prompt(
    parser: syntax.Parser, prompt: Prompt, entry_point: str, text: str, *, whole: bool
) -> Continued | None:
    """Put a body under the prompt's open function, or return None where the text is no body for it.

    ``whole`` asks for a text that parses to its end. Otherwise trailing prose is cut off, and among the
    ways to indent the body the one that keeps most lines is taken, the text as it stands first.
    """
    if prompt.body_indent is None or not text.strip():
        return None
    if len(text) > _MAX_BODY:
        if whole:
            return None
        text = text[:_MAX_BODY]  # further on there is no body of a function, but a model that cannot stop
    candidates = list(dict.fromkeys(_layouts(prompt, text)))
    for number, source in enumerate(candidates):
        tree = parser.tree(source)
        if tree is not None and _extends(tree, prompt):
            return Continued(_without_usage(tree, source, entry_point), number > 0)
    if whole:
        return None
    best: Continued | None = None
    for number, source in enumerate(candidates):
        prefix = parser.longest_prefix(source, prompt.line_count)
        tree = parser.tree(prefix) if prefix is not None else None
        if prefix is None or tree is None or not _extends(tree, prompt):
            continue
        if syntax.cut_short(tree, prefix, source) == entry_point.rpartition(".")[2]:
            continue
        if best is None or prefix.count("\n") > best.source.count("\n"):
            best = Continued(_without_usage(tree, prefix, entry_point), number > 0)
    return best


def _layouts(prompt: Prompt, text: str) -> Iterator[str]:
    """The ways to read the indentation, likeliest first; the text as it stands comes before any change."""
    joined = prompt.text + text
    if prompt.text.endswith(("\n", " ", "\t")) or text.startswith(("\n", "\r")):
        yield joined
    else:
        yield prompt.text + "\n" + text
    start = prompt.text.rstrip(" \t")
    start += "" if start.endswith("\n") else "\n"
    indent = prompt.body_indent or ""
    body = text[len(text) - len(text.lstrip()) :]
    body = text[text.rfind("\n", 0, len(text) - len(body)) + 1 :]
    yield start + _first_line_aligned(body, indent)
    yield start + _shifted(body, indent)
    spaced = _LEADING_TABS.sub(lambda found: found[0].replace("\t", _TAB), body)
    if spaced != body and "\t" not in indent:
        yield start + spaced
        yield start + _first_line_aligned(spaced, indent)
        yield start + _shifted(spaced, indent)
    yield start + _shifted(spaced.lstrip(" \t"), indent)


def _first_line_aligned(body: str, indent: str) -> str:
    """For a first line whose blanks were lost or doubled, unless the lines right after it lost theirs too."""
    first, newline, rest = body.partition("\n")
    paragraph = rest.split("\n\n", 1)[0]
    if not first.startswith((" ", "\t")) and re.search(r"^[^\s#)\]}]", paragraph, re.MULTILINE):
        return _shifted(body, indent)
    return indent + first.lstrip(" \t") + newline + rest


def _shifted(body: str, indent: str) -> str:
    """Move all lines by the same width, so that the first is at the body's indentation.

    What stands at the margin below an indented first line is no part of the body and stays there.
    """
    width = syntax.indent_width(body)
    delta = len(indent) - width
    fill = "\t" if "\t" in indent else " "
    if delta >= 0:
        margin = r"^(?=[ \t]*\S)" if width == 0 else r"^(?=[ \t]+\S)"
        return re.sub(margin, fill * delta, body, flags=re.MULTILINE)
    return re.sub(rf"^[ \t]{{1,{min(-delta, 1000)}}}", "", body, flags=re.MULTILINE)


def _extends(tree: ast.Module, prompt: Prompt) -> bool:
    """Tell whether the prompt's function has got a body that does something, with no part of it outside."""
    if syntax.returns_outside_function(tree):
        return False
    for node in tree.body:
        if node.lineno > prompt.line_count:
            break
        holder: ast.stmt = node
        while isinstance(holder, ast.ClassDef):
            inside = [child for child in holder.body if child.lineno <= prompt.line_count]
            if not inside:
                break
            holder = inside[-1]
        if isinstance(holder, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = syntax.without_docstring(holder.body)
            same_line = holder.lineno == prompt.line_count  # "def f(x):" and a body right behind the colon
            new = [child for child in body if child.lineno >= prompt.line_count + (not same_line)]
            if any(not syntax.is_prose(child) for child in new):
                return not all(isinstance(child, _DEFINING) for child in new)
    return False


def _without_usage(tree: ast.Module, source: str, entry_point: str) -> str:
    """Cut where the text stops defining and begins to try things out, or starts the same task over.

    A base model goes on after the body until its tokens run out; the usual stop words (``\\nprint``,
    ``\\nassert``, a second definition of the entry point) mean the same. So does what cannot but fail when
    it is loaded, as tests do whose imports are missing. Kept whole where a name that is bound only after the
    cut would be missed.
    """
    name = entry_point.rpartition(".")[2]
    defined = False
    unbound = set() if "*" in syntax.bindings(tree) else syntax.unbound_names(tree)
    for node in tree.body:
        names = syntax.statement_names(node)
        if defined and (name in names or _is_trial(node, name) or _loaded_at_once(node) & unbound):
            lines = source.split("\n")[: syntax.first_line(node) - 1]
            after = tree.body[tree.body.index(node) :]
            before = ast.Module(tree.body[: tree.body.index(node)], [])
            lost = set().union(*(syntax.statement_names(later) for later in after))
            if lost & syntax.unbound_names(before):
                return source
            return "\n".join(lines).rstrip() + "\n"
        defined = defined or name in names or isinstance(node, ast.ClassDef)
    return source


def _loaded_at_once(node: ast.stmt) -> set[str]:
    """Names that are read as soon as a statement is met: of a function its decorators, defaults and annotations."""
    read: set[str] = set()
    parts: list[ast.expr | None]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        given = node.args
        named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        annotations = [argument.annotation for argument in named if argument is not None]
        parts = [*node.decorator_list, *given.defaults, *given.kw_defaults, *annotations, node.returns]
    elif isinstance(node, ast.ClassDef):
        read = read.union(*map(_loaded_at_once, node.body))
        parts = [*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)]
    else:
        return set() if isinstance(node, _DEFINING) else syntax.loaded_names(node)
    return read.union(*(syntax.loaded_names(part) for part in parts if part is not None))


def _is_trial(node: ast.stmt, entry_point: str) -> bool:
    if isinstance(node, _DEFINING):
        return False
    if isinstance(node, (ast.Assert, ast.Raise, ast.While)) or syntax.is_prose(node):
        return True
    return bool(({entry_point} | _TRYING) & syntax.loaded_names(node))
