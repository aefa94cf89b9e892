"""The way from a completion to a program, and the order in which readings of the completion are tried."""

from __future__ import annotations

import re
from dataclasses import dataclass

from grader.extraction import syntax
from grader.extraction.choose import (
    Piece,
    answer_among,
    blocks_as_pieces,
    dedented,
    indented_as_pieces,
    run_defining,
    runs_as_pieces,
    with_helpers,
    with_preamble,
    without_remarks,
)
from grader.extraction.continuation import continue_prompt
from grader.extraction.markup import Block, Markup, read_markup
from grader.extraction.prompt import Prompt, read_prompt


@dataclass(frozen=True, slots=True)
class Extraction:
    """A program and how it was found.

    ``how`` is one of: ``full_program`` (the completion is the program), ``fenced`` and ``unclosed_fence``
    (a Markdown block), ``continued_body`` (the prompt and the completion after it), ``reindented_body`` (the
    same, after moving lines of the completion), ``longest_parsable`` (code found between prose, or cut where
    it stops parsing), ``unparsable`` (code by its looks, which no reading makes parse: the program's error),
    ``none`` (nothing that looks like code; ``source`` is "").
    """

    source: str
    how: str


_NONE = Extraction("", "none")
_LOOKS_LIKE_CODE = re.compile(
    r"^[ \t]*(?:(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(|class[ \t]+\w+[^\n]{0,200}:|import[ \t]+\w+"
    r"|from[ \t]+[\w.]+[ \t]+import\b|return\b[^\n]{0,200}$)",
    re.MULTILINE,
)
_LOOKS_LIKE_BODY = re.compile(
    r"^[ \t]+(?:return\b|(?:for|if|while|try|with)\b[^\n]{0,200}:|[\w.]{1,60}[ \t]*[-+*/|&]?=[^=])",
    re.MULTILINE,
)


def extract(completion: str, *, prompt: str, entry_point: str) -> Extraction:
    """Reduce a completion to the program that it stands for.

    ``prompt`` is what the model was shown, ``entry_point`` the function that will be called, "" for a whole
    program that reads and prints. The answer depends on nothing but the arguments. Nothing in the text is
    run or compiled; the time is linear in its length; no text makes it raise.
    """
    parser = syntax.Parser()
    owner, _, method = entry_point.rpartition(".")
    if owner and f"class {owner}" not in completion + prompt:
        entry_point = method  # the function is taken where a program has no such class
    facts = read_prompt(prompt, entry_point)
    task = _Task(parser, facts, entry_point)
    found = task.full_program(completion)
    if found is None:
        markup = read_markup(completion)
        found = task.in_markup(markup) if markup.text.strip() else _NONE
    return found


@dataclass(frozen=True, slots=True)
class _Task:
    parser: syntax.Parser
    prompt: Prompt
    entry_point: str

    def in_markup(self, markup: Markup) -> Extraction:
        """Try the readings, the most explicit first."""
        text = markup.text
        indented = text.lstrip("\r\n").startswith((" ", "\t"))
        found = self.full_program(text)
        if found is None and indented and self._defines_by_its_looks(text):
            found = self.full_program(dedented(text)) or self.full_program(text.lstrip())
        if found is None and (indented or not markup.blocks):
            found = self._continued(text, whole=True)
        if found is None and markup.blocks:
            found = self._fenced(markup)
        if found is None:
            found = self._unfenced(markup, indented=indented)
        return found or self._last_resort(markup)

    def full_program(self, text: str) -> Extraction | None:
        tree = self.parser.tree(text)
        if tree is None or answer_among([Piece(text, tree)], self.entry_point) is None:
            return None
        program = without_remarks(self.parser, tree, _ended(text))
        return Extraction(with_preamble(self.parser, self.prompt, program), "full_program")

    def _defines_by_its_looks(self, text: str) -> bool:
        name = re.escape(self.entry_point)
        return (
            re.search(rf"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+{name}\b", text, re.MULTILINE) is not None
        )

    def _continued(self, text: str, *, whole: bool) -> Extraction | None:
        found = continue_prompt(self.parser, self.prompt, self.entry_point, text, whole=whole)
        if found is None:
            return None
        return Extraction(found.source, "reindented_body" if found.reindented else "continued_body")

    def _assembled(self, pieces: list[Piece], how: str) -> Extraction | None:
        answer = answer_among(pieces, self.entry_point)
        if answer is None:
            return None
        source = with_helpers(self.parser, answer, pieces, self.entry_point)
        source = with_preamble(self.parser, self.prompt, source)
        return Extraction(source, how if answer.closed else "unclosed_fence")

    def _fenced(self, markup: Markup) -> Extraction | None:
        pieces = blocks_as_pieces(self.parser, markup, self.entry_point)
        found = self._assembled(pieces, "fenced")
        if found is not None or not self.entry_point:
            return found
        for block in reversed(markup.blocks[-8:]):
            if block.is_python and not self._is_usage(block):
                found = self._continued(block.text, whole=True)
                if found is not None:
                    return found
        return None

    def _is_usage(self, block: Block) -> bool:
        """A block that calls the entry point from the margin shows its use; it is no body of it."""
        called = re.search(rf"^(?=\S).*\b{re.escape(self.entry_point)}[ \t]*\(", block.text, re.MULTILINE)
        return called is not None and "return" not in block.text

    def _unfenced(self, markup: Markup, *, indented: bool) -> Extraction | None:
        text = markup.prose()
        if indented or not self._defines_by_its_looks(text):
            found = self._continued(markup.text, whole=False)
            if found is not None:
                return found
        pieces = runs_as_pieces(self.parser, text, self.entry_point)
        found = self._assembled(pieces, "longest_parsable")
        if found is None and self.entry_point:
            defining = run_defining(self.parser, text, self.entry_point)
            found = self._assembled(defining + pieces, "longest_parsable") if defining else None
        if found is None and self._defines_by_its_looks(text):
            found = self._assembled(
                indented_as_pieces(self.parser, text, self.entry_point), "longest_parsable"
            )
        return found

    def _last_resort(self, markup: Markup) -> Extraction:
        """Code without the entry point, or code that does not parse, is the program's error and not ours."""
        pieces = [
            piece
            for piece in blocks_as_pieces(self.parser, markup, self.entry_point)
            if piece.is_python and syntax.does_something(piece.tree)
        ]
        if pieces:
            how = "fenced" if pieces[-1].closed else "unclosed_fence"
            return Extraction(with_preamble(self.parser, self.prompt, pieces[-1].text), how)
        blocks = [block for block in markup.blocks if block.is_python and block.text.strip()]
        named = [block for block in blocks if self._defines_by_its_looks(block.text)]
        if named or blocks:
            return Extraction(_ended((named or blocks)[-1].text), "unparsable")
        text = markup.prose()
        tree = self.parser.tree(text)
        if tree is not None and syntax.does_something(tree):
            return Extraction(_ended(text), "full_program")
        is_body = self.prompt.body_indent is not None and _LOOKS_LIKE_BODY.search(text)
        if is_body and not self._defines_by_its_looks(text):
            return Extraction(_ended(self.prompt.text + markup.text), "unparsable")
        start = _LOOKS_LIKE_CODE.search(text)
        return Extraction(_ended(text[start.start() :]), "unparsable") if start else _NONE


def _ended(source: str) -> str:
    return source if source.endswith("\n") else source + "\n"
