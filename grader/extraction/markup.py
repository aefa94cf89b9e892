"""What surrounds code in a completion: sections of reasoning, fences, and the tokens that end a turn.

One pass over the few places that matter, found by one regular expression, so that the time is linear in the
text whatever it holds.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field

STOP_TOKENS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|eos|>",
    "<|EOT|>",
    "<|EOS|>",
    "<|return|>",
    "<|end_of_sentence|>",
    "<|end_of_role|>",
    "<|endofmessage|>",
    "<|endofblock|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|user|>",
    "<|fim_pad|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|file_sep|>",
    "<|file_separator|>",
    "<|repo_name|>",
    "<file_sep>",
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "<eos>",
    "<EOT>",
    "<pad>",
    "<unk>",
    "</s>",
)

_STOP = "|".join(map(re.escape, STOP_TOKENS))
_STOP_TOKEN = re.compile(_STOP)
_TAG_NAMES = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad"
_TAG = rf"<(?P<close>/?)(?i:{_TAG_NAMES})>|\[(?P<close2>/?)THINK\]|◁(?P<close3>/?)think▷"
_FENCE = (
    r"^(?P<lead>[ \t]*+(?:(?:[-*+]|\d{1,3}[.)])[ \t]++)?)(?P<marks>`{3,}+|~{3,}+)"
    r"(?P<info>[^`\n<]*+)(?=[\n<]|\Z)"
)
_EVENT = re.compile(rf"{_FENCE}|{_TAG}|(?P<stop>{_STOP})", re.MULTILINE)
_FIRST_TAG = re.compile(_TAG)

# CodeLlama, the few-shot MBPP prompt and R1-like prompts frame code in these.
_FRAME_BEGIN = re.compile(
    r"^[ \t]*+(?:\[PYTHON\]|\[BEGIN\]|<(?:answer|code|solution)>)[ \t]*+\n?", re.MULTILINE
)
_FRAME_END = re.compile(r"\n?(?:\[/PYTHON\]|\[DONE\]|</(?:answer|code|solution)>)[ \t]*+$", re.MULTILINE)
_FRAME_LINE = re.compile(
    r"^[ \t]*(?:\[/?PYTHON\]|\[BEGIN\]|\[DONE\]|</?(?:answer|code|solution)>)[ \t]*$", re.MULTILINE
)

# gpt-oss writes its reasoning into channels of their own before it.
_FINAL_CHANNEL = "<|channel|>final<|message|>"

# What a web page makes of blanks at the start of a line, and marks of byte order or of no width before the text.
_HARD_BLANKS = re.compile(r"^[ \t]*+\u00a0[ \t\u00a0]*+", re.MULTILINE)
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"

# Comments and strings, of a triple-quoted one only the start. Possessive, so that no text makes it slow.
_LEXEME = re.compile(
    r"#[^\n]*+|'''|\"\"\"|'(?:\\.|[^'\\\n])*+'?|\"(?:\\.|[^\"\\\n])*+\"?",
    re.DOTALL,
)
_STRING_END = {
    quote: re.compile(rf"(?:\\.|(?!{quote})[^\\])*+{quote}", re.DOTALL) for quote in ("'''", '"""')
}
_MAX_BLOCK = 1 << 16
_LOOK_BACK = 64

_PYTHON_NAMES = frozenset({"", "python", "python3", "py", "py3", "python2", "sage", "code"})


@dataclass(frozen=True, slots=True)
class Block:
    """The inside of one fence. ``start`` is where it begins in the text, ``intro`` the prose before."""

    text: str
    is_python: bool
    closed: bool
    start: int
    indent: int
    intro: str


@dataclass(slots=True)
class Markup:
    """A completion without reasoning and end tokens: its text, its blocks, and where fence lines begin."""

    text: str
    blocks: list[Block] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)

    def prose(self) -> str:
        """Return the text with every fence line blanked, so that code outside of fences can be looked for."""
        return _FRAME_LINE.sub("", re.sub(_FENCE, "", self.text, flags=re.MULTILINE))

    def past_strings(self, block: Block) -> str:
        """Return the block's text up to the first fence line that is not inside a triple-quoted string."""
        strings = _triple_quoted(self.text, block.start, block.start + _MAX_BLOCK)
        number = 0
        for at in self.fences[bisect_left(self.fences, block.start) :]:
            while number < len(strings) and strings[number][1] <= at:
                number += 1
            if number == len(strings) or at < strings[number][0]:
                return unindented(self.text[block.start : at], block.indent)
        return unindented(self.text[block.start :], block.indent)


def _triple_quoted(text: str, start: int, limit: int) -> list[tuple[int, int]]:
    """Where triple-quoted strings begin and end; one that never ends is left out, and all after it."""
    spans: list[tuple[int, int]] = []
    token = _LEXEME.search(text, start, limit)
    while token is not None:
        end = token.end()
        if token[0] in _STRING_END:
            rest = _STRING_END[token[0]].match(text, end, limit)
            if rest is None:
                break
            end = rest.end()
            spans.append((token.start(), end))
        token = _LEXEME.search(text, end, limit)
    return spans


def cut_at_stop_token(text: str) -> str:
    """Return what comes before the first token that ends a turn."""
    found = _STOP_TOKEN.search(text)
    return text[: found.start()] if found else text


def unindented(text: str, width: int) -> str:
    """Take up to ``width`` blanks off every line, as CommonMark does inside an indented fence."""
    if width == 0:
        return text
    return re.sub(rf"^[ \t]{{1,{min(width, 1000)}}}", "", text, flags=re.MULTILINE)


def read_markup(completion: str) -> Markup:
    """Take a completion apart; never raises, and takes time linear in its length."""
    text = _without_final_stop_tokens(completion.rpartition(_FINAL_CHANNEL)[2].lstrip(_INVISIBLE))
    text = _without_reasoning(text)
    if "```" not in text and "~~~" not in text:
        text = _FRAME_BEGIN.sub("```python\n", _FRAME_END.sub("\n```", text))
    text = _HARD_BLANKS.sub(lambda blanks: blanks[0].replace("\u00a0", " "), text)
    markup = Markup(text)
    _find_blocks(markup)
    return markup


def _without_final_stop_tokens(text: str) -> str:
    kept = end = len(text)
    while True:
        while end > 0 and text[end - 1].isspace():
            end -= 1
        token = next((token for token in STOP_TOKENS if text.endswith(token, 0, end)), None)
        if token is None:
            return text[:kept]
        kept = end = end - len(token)


def _is_closing(tag: re.Match[str]) -> bool:
    return bool(tag["close"] or tag["close2"] or tag["close3"])


def _starts_line(text: str, at: int) -> bool:
    before = text[max(at - _LOOK_BACK, 0) : at]  # bounded: one line can be the whole text
    return not before.rpartition("\n")[2].strip() and ("\n" in before or at <= _LOOK_BACK)


def _begins_inside_reasoning(text: str) -> bool:
    """Chat templates may put the opening tag into the prompt; then only the closing one is here."""
    tag = _FIRST_TAG.search(text)
    if tag is None or not _is_closing(tag):
        return False
    line_end = text.find("\n", tag.end())
    rest = text[tag.end() : len(text) if line_end < 0 else line_end]
    return not rest.strip() or _starts_line(text, tag.start())


def _without_reasoning(text: str) -> str:
    """Drop reasoning and what follows the end of the turn; tags inside a fence are the program's own."""
    kept: list[str] = []
    position = 0
    reasoning = _begins_inside_reasoning(text)
    fence = ""
    for event in _EVENT.finditer(text):
        if reasoning:
            if event["marks"] is None and event["stop"] is None and _is_closing(event):
                reasoning, position = False, event.end()
        elif event["marks"] is not None:
            fence = _fence_after(fence, event)
        elif fence:
            continue
        elif event["stop"] is not None:
            before = text[position : event.start()]
            if not _is_quoted(text, event) and (before.strip() or any(piece.strip() for piece in kept)):
                return "".join((*kept, before))
        elif not _is_closing(event) and _starts_line(text, event.start()):
            kept.append(text[position : event.start()])
            reasoning = True
    if not reasoning:
        kept.append(text[position:])
    return "".join(kept)


def _is_quoted(text: str, event: re.Match[str]) -> bool:
    around = {text[max(event.start() - 1, 0)], text[event.end() : event.end() + 1]}
    return around <= {"'", '"'}


def _fence_after(fence: str, event: re.Match[str]) -> str:
    """Return the marks of the fence that is open after this fence line, "" for none."""
    marks, info = event["marks"], event["info"].strip()
    if not fence:
        return marks
    if marks[0] != fence[0]:
        return fence
    if info:
        return marks  # a fence with a language opens a block, also where the one before was never closed
    return "" if len(marks) >= len(fence) else fence


def _find_blocks(markup: Markup) -> None:
    text = markup.text
    fence = ""
    opened: tuple[int, re.Match[str], str] | None = None
    prose_from = 0
    for event in _EVENT.finditer(text):
        if event["marks"] is None:
            continue
        markup.fences.append(event.start())
        after = _fence_after(fence, event)
        if fence and (after == "" or event["info"].strip()) and event["marks"][0] == fence[0]:
            if opened is not None:
                markup.blocks.append(_block(text, opened, event.start(), closed=True))
            opened, prose_from = None, event.end()
        if after and opened is None:
            intro = text[max(prose_from, event.start() - 300) : event.start()]
            opened = (min(event.end() + 1, len(text)), event, intro)
        fence = after
    if opened is not None:
        markup.blocks.append(_block(text, opened, len(text), closed=False))


def _block(text: str, opened: tuple[int, re.Match[str], str], end: int, *, closed: bool) -> Block:
    start, event, intro = opened
    language = re.split(r"[\s{}:,.]+", event["info"].strip(" \t\r{.").lower(), maxsplit=1)[0]
    indent = len(event["lead"])
    return Block(
        text=unindented(text[start:end], indent),
        is_python=language in _PYTHON_NAMES or language.startswith("python"),
        closed=closed,
        start=start,
        indent=indent,
        intro=intro,
    )
