"""Which of several pieces of code is the answer, and what it needs from the others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from grader.extraction import syntax
from grader.extraction.markup import Block, Markup, cut_at_stop_token
from grader.extraction.prompt import Prompt

_MAX_PIECES = 24
_MAX_RUN = 1 << 15

_ALTERNATIVE = re.compile(
    r"\b(?:alternativ\w*|another (?:way|approach|version|solution|option)|for comparison|for reference"
    r"|(?:naive|brute[- ]force|recursive|iterative|one[- ]line\w*|slower|shorter) (?:\w+ )?version"
    r"|you (?:can|could|may|might) also|or, )",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"\b(?:wrong|incorrect|mistake|bug\w*|fix\w*|correct\w*|improve\w*|final\w*|actually|wait|instead|revis\w*"
    r"|updat\w*)\b",
    re.IGNORECASE,
)
_CODE_START = re.compile(
    r"^(?:(?:async[ \t]+)?def[ \t]+\w|class[ \t]+\w|import[ \t]+\w|from[ \t]+[\w.]+[ \t]+import\b|@\w"
    r"|if[ \t]+\S.*:|for[ \t]+\S.*:|while[ \t]+\S.*:|try:|with[ \t]+\S.*:|print\("
    r"|[A-Za-z_]\w*(?:[ \t]*,[ \t]*[A-Za-z_]\w*){0,9}[ \t]*(?::[^=\n]{1,80})?=[^=\n])",
    re.MULTILINE,
)

# A fence that was closed on the last line of code, where Markdown sees none.
_FENCE_BEHIND_CODE = re.compile(r"(?<=[^\s`])[ \t]*+```[ \t]*+$", re.MULTILINE)
_INDENTED_BLOCK = re.compile(r"(?:^(?:[ ]{4}|\t)[^\n]*+(?:\n|\Z)(?:[ \t]*+\n)*+)++", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Piece:
    """One run of code that parses, in the order of the text, with what speaks for and against it."""

    text: str
    tree: ast.Module
    is_python: bool = True
    closed: bool = True
    alternative: bool = False


def blocks_as_pieces(parser: syntax.Parser, markup: Markup, entry_point: str) -> list[Piece]:
    """Parse the fenced blocks, at most the last 24 that can matter; those that do not parse are left out."""
    mentioning = [block for block in markup.blocks if entry_point in block.text]
    chosen = {id(block) for block in (*mentioning[-_MAX_PIECES // 2 :], *markup.blocks[-_MAX_PIECES // 2 :])}
    pieces = []
    for block in markup.blocks:
        if id(block) in chosen:
            piece = _piece(parser, markup, block)
            if piece is not None:
                pieces.append(piece)
    return pieces


def _piece(parser: syntax.Parser, markup: Markup, block: Block) -> Piece | None:
    if not block.text.strip():
        return None
    alternative = bool(_ALTERNATIVE.search(block.intro)) and not _CORRECTION.search(block.intro)
    for reading in _readings(markup, block):
        text = reading if reading.endswith("\n") else reading + "\n"
        tree = parser.tree(text)
        if tree is not None:
            return Piece(text, tree, block.is_python, block.closed, alternative)
    return None


def _readings(markup: Markup, block: Block) -> Iterable[str]:
    yield block.text
    first = block.text.lstrip("\r\n")
    if first.startswith((" ", "\t")):
        yield dedented(block.text)
    if not block.closed:
        yield cut_at_stop_token(block.text)
    closing = _FENCE_BEHIND_CODE.search(block.text)
    if closing is not None:
        yield block.text[: closing.start()]
    if block.text.count('"""') % 2 or block.text.count("'''") % 2:
        yield markup.past_strings(block)


def dedented(text: str) -> str:
    """Move the text left by the indentation of its first line of code."""
    body = text[len(text) - len(text.lstrip()) :]
    start = text.rfind("\n", 0, len(text) - len(body)) + 1
    width = syntax.indent_width(text[start:])
    return re.sub(rf"^[ \t]{{1,{min(max(width, 1), 1000)}}}", "", text[start:], flags=re.MULTILINE)


def runs_as_pieces(parser: syntax.Parser, text: str, entry_point: str) -> list[Piece]:
    """Find code in text without fences: from each line that looks like code, as far as it parses.

    A run that breaks off inside the entry point (or any function, where there is none) is left out.
    """
    pieces: list[Piece] = []
    position = 0
    for _ in range(_MAX_PIECES):
        found = _CODE_START.search(text, position)
        if found is None:
            break
        window = text[found.start() : found.start() + _MAX_RUN]
        run = parser.longest_prefix(window)
        tree = parser.tree(run) if run is not None else None
        if run is None or tree is None or not tree.body:
            position = _next_line(text, found.start())
            continue
        broken = syntax.cut_short(tree, run, window)
        if broken is None or broken != (entry_point or broken):
            pieces.append(Piece(_without_remarks(run, tree), tree))
        position = max(found.start() + len(run) - 1, _next_line(text, found.start()))
    return pieces


def run_defining(parser: syntax.Parser, text: str, entry_point: str) -> list[Piece]:
    """Find code that starts at a definition of the entry point, for text with too many other starts."""
    pattern = re.compile(rf"^(?:async[ \t]+)?(?:def|class)[ \t]+{re.escape(entry_point)}\b", re.MULTILINE)
    starts = [found.start() for found in pattern.finditer(text)]
    pieces = []
    for start in starts[-4:]:
        pieces += runs_as_pieces(parser, text[start : start + _MAX_RUN], entry_point)[:1]
    return pieces


def indented_as_pieces(parser: syntax.Parser, text: str, entry_point: str) -> list[Piece]:
    """Parse Markdown's blocks without fences: lines that are indented by four blanks or a tab, between prose."""
    pieces = []
    for found in list(_INDENTED_BLOCK.finditer(text))[-_MAX_PIECES:]:
        block = dedented(found[0])
        tree = parser.tree(block) if entry_point in block else None
        if tree is not None:
            pieces.append(Piece(block, tree))
    return pieces


def without_remarks(parser: syntax.Parser, tree: ast.Module, text: str) -> str:
    """Blank the lines of a whole program that are remarks by their looks and read a name that nobody binds: the word
    ``python`` of a lost fence, ``[DONE]``. Each of them would end the program with a NameError."""
    unbound = syntax.unbound_names(tree)
    if not unbound or "*" in syntax.bindings(tree):
        return text
    remarks = [node for node in tree.body if syntax.is_prose(node) and syntax.loaded_names(node) & unbound]
    lines = text.split("\n")
    for node in remarks:
        for number in range(node.lineno - 1, node.end_lineno or node.lineno):
            lines[number] = ""
    cleaned = "\n".join(lines)
    return cleaned if remarks and parser.tree(cleaned) is not None else text


def _next_line(text: str, position: int) -> int:
    newline = text.find("\n", position)
    return len(text) if newline < 0 else newline + 1


def _without_remarks(run: str, tree: ast.Module) -> str:
    """Drop remarks at the end that parse by accident; the tree keeps them, which does no harm."""
    end = len(tree.body)
    while end > 1 and syntax.is_prose(tree.body[end - 1]):
        end -= 1
    if end == len(tree.body):
        return run
    lines = run.split("\n")
    return "\n".join(lines[: tree.body[end - 1].end_lineno]) + "\n"


def answer_among(pieces: Sequence[Piece], entry_point: str) -> Piece | None:
    """Return the piece that is the answer, or None.

    With an entry point only pieces that bind it at module level count, and a real definition beats a stub or
    an import. Without one, any piece that does something counts, and one that reads or prints beats others.
    Then, in this order: marked as Python; not introduced as an alternative; its fence closed; the last one,
    because a model that shows two versions corrects itself.
    """
    ranked: list[tuple[bool, bool, bool, bool, int]] = []
    for number, piece in enumerate(pieces):
        if syntax.returns_outside_function(piece.tree):
            continue  # a body, whatever names it binds
        if entry_point:
            binding = syntax.bindings(piece.tree).get(entry_point.partition(".")[0])
            if binding is None:
                continue
            merit = not syntax.is_placeholder(binding)
        elif syntax.does_something(piece.tree):
            merit = _reads_or_prints(piece.tree)
        else:
            continue
        ranked.append((merit, piece.is_python, not piece.alternative, piece.closed, number))
    return pieces[max(ranked)[-1]] if ranked else None


def _reads_or_prints(tree: ast.Module) -> bool:
    return bool({"print", "input", "open", "stdin", "stdout", "sys"} & syntax.loaded_names(tree))


def with_helpers(parser: syntax.Parser, piece: Piece, pieces: Sequence[Piece], entry_point: str) -> str:
    """Prepend the definitions from other pieces whose names the piece reads and nobody binds.

    Of several definitions of a name, the last before the piece is taken, else the first after it. Statements
    that use the entry point are left out: those try it out.
    """
    missing = syntax.unbound_names(piece.tree)
    if not missing or len(pieces) < 2:
        return piece.text
    own = next(number for number, other in enumerate(pieces) if other is piece)
    offered: dict[str, tuple[int, ast.stmt]] = {}
    for number in (*range(own), *range(len(pieces) - 1, own, -1)):
        for node in pieces[number].tree.body:
            if _can_lend(node, entry_point):
                for name in syntax.statement_names(node):
                    if number < own or offered.get(name, (own + 1,))[0] > own:
                        offered[name] = (number, node)
    taken: dict[tuple[int, int], ast.stmt] = {}
    pending = list(missing)
    while pending:
        number, node = offered.pop(pending.pop(), (0, None))
        if node is not None and (number, node.lineno) not in taken:
            taken[number, node.lineno] = node
            pending.extend(syntax.unbound_names(node))
    lent = "".join(
        syntax.source_of(taken[key], pieces[key[0]].text.split("\n")) + "\n" for key in sorted(taken)
    )
    return insert_before(parser, piece.tree, piece.text, lent)


def _can_lend(node: ast.stmt, entry_point: str) -> bool:
    lending = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign)
    if not isinstance(node, lending) or entry_point in syntax.statement_names(node):
        return False
    return not isinstance(node, ast.Assign) or entry_point not in syntax.loaded_names(node)


def with_preamble(parser: syntax.Parser, prompt: Prompt, source: str) -> str:
    """Prepend the prompt's imports and helpers where the program reads a name of theirs unbound."""
    tree = parser.tree(source) if prompt.preamble else None
    if tree is None:
        return source
    bound = syntax.bindings(tree)
    missing = (syntax.loaded_names(tree) & prompt.preamble_names) - bound.keys()
    if not missing and not ("*" in prompt.preamble_names and "*" not in bound and syntax.unbound_names(tree)):
        return source
    return insert_before(parser, tree, source, prompt.preamble.rstrip("\n") + "\n\n\n")


def insert_before(parser: syntax.Parser, tree: ast.Module, source: str, lent: str) -> str:
    """Put source in front of a program, yet after its docstring and its ``from __future__`` imports."""
    if not lent:
        return source
    rest = syntax.without_docstring(tree.body)
    head = len(tree.body) - len(rest)
    future = [isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in rest]
    head += future.index(False) if False in future else len(future)
    if head == 0:
        return lent + source
    line = max(node.end_lineno or node.lineno for node in tree.body[:head])
    lines = source.split("\n")
    joined = "\n".join(lines[:line]) + "\n" + lent + "\n".join(lines[line:])
    return joined if parser.tree(joined) is not None else source
