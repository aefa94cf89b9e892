"""Taking the prompt off a text that has prompt and completion in one, as OpenRLHF's queries have."""

from __future__ import annotations

import re

# Tokens that chat templates put around turns and texts: ChatML, Llama 2 and 3, Gemma, DeepSeek, Mistral, and
# whatever else is written between <| and |>.
_SPECIAL = re.compile(
    r"<\|[^|<>\s]{1,64}\|>|<｜[^｜<>\s]{1,64}｜>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?INST\]|<</?SYS>>"
)
_SKIPPED = re.compile(rf"(?:\s|{_SPECIAL.pattern})+")
_TOKENS = re.compile(rf"(?:\s*+(?:{_SPECIAL.pattern}))++")
_LEAST_SEEN = 16


def has_special_tokens(text: str) -> bool:
    """Whether a text has tokens of a chat template in it."""
    return _SPECIAL.search(text) is not None


def completion_after(query: str, prompt: str) -> str | None:
    """Return what follows the prompt in ``query``, without special tokens at its end; None if the prompt is not there.

    Tokenizers do not give back the very text that they were given: special tokens are added or left out and spaces
    change, so neither of them counts. A prompt that was too long may have been cut at its beginning. The time is
    linear in both texts.
    """
    if query.startswith(prompt):
        end: int | None = len(prompt)
    else:
        end = _end_of(_squeezed(prompt), query)
        if end is not None:
            end = _past_the_end(prompt, query, end)
    if end is None:
        return None
    return _without_trailing_tokens(query[end:])


def _past_the_end(prompt: str, query: str, end: int) -> int:
    """Skip what the prompt has after its last visible character; spaces of the completion's own are kept."""
    visible = len(prompt)
    for skipped in _SKIPPED.finditer(prompt):
        if skipped.end() == len(prompt):
            visible = skipped.start()
    rest = prompt[visible:]
    if query.startswith(rest, end):
        return end + len(rest)
    tokens = _TOKENS.match(query, end)
    end = tokens.end() if tokens else end
    return end + query.startswith("\n", end)


def _squeezed(text: str) -> str:
    return _SKIPPED.sub("", text)


def _end_of(wanted: str, query: str) -> int | None:
    """Where in ``query`` the squeezed prompt, or the rest of one that was cut, ends."""
    ends = _Ends(query)
    if ends.squeezed.startswith(wanted):
        return ends.at(len(wanted))
    # The beginning may have been cut off: then the query begins with the rest of the prompt.
    seen = _longest_overlap(ends.squeezed[: len(wanted)], wanted)
    return ends.at(seen) if seen >= _LEAST_SEEN else None


def _longest_overlap(pattern: str, text: str) -> int:
    """The length of the longest beginning of ``pattern`` that ``text`` ends with (Knuth, Morris and Pratt, 1977)."""
    borders = [0] * len(pattern)
    matched = 0
    for position in range(1, len(pattern)):
        while matched and pattern[position] != pattern[matched]:
            matched = borders[matched - 1]
        matched += pattern[position] == pattern[matched]
        borders[position] = matched
    matched = 0
    for character in text:
        while matched and (matched == len(pattern) or character != pattern[matched]):
            matched = borders[matched - 1]
        matched += bool(pattern) and character == pattern[matched]
    return matched


class _Ends:
    """A text without spaces and special tokens, and where its characters are in the text itself."""

    def __init__(self, text: str) -> None:
        self._kept: list[tuple[int, int]] = []
        start = 0
        for skipped in _SKIPPED.finditer(text):
            self._kept.append((start, skipped.start()))
            start = skipped.end()
        self._kept.append((start, len(text)))
        self.squeezed = "".join(text[begin:end] for begin, end in self._kept)

    def at(self, count: int) -> int:
        """Return where the first ``count`` squeezed characters end in the text."""
        for begin, end in self._kept:
            if count <= end - begin:
                return begin + count
            count -= end - begin
        return self._kept[-1][1]


def _without_trailing_tokens(text: str) -> str:
    while True:
        stripped = text.rstrip()
        last = next((token for token in _SPECIAL.finditer(stripped, max(0, len(stripped) - 80))
                     if token.end() == len(stripped)), None)  # fmt: skip
        if last is None:
            return text
        text = stripped[: last.start()]
