"""Text made to break a parser: the extraction must answer, and the work must stay within its budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grader.extraction import exact_identity, extract, program_identity, syntax
from grader.extraction.markup import read_markup

PROMPT = 'from typing import List\n\n\ndef f(x: List[int]) -> int:\n    """Doc."""\n'
SIZE = 200_000

PATTERNS = [
    "```\n", "```python\n", "```python\ndef f(x):\n    return 1\n```\n", '```python\n"""\n```\n',
    "~~~\n", "- ```\n",
    "(", "[", "{", ")", "x;", "-", "not ", "lambda:", "1+", "@a\n", "\\\n", 'f"{', '"""\n',
    "if x:\n", "try:\n", "elif 1: pass\n", "def f(\n", "def f(x):\n", "def f(x): return 1\n", "import f\n",
    "from a import b c\n", "a = 1\n", "return 1\n", "    return f(\n", " x\n  y\n", "\n", " ", "\t", "\r",
    "\f", "\u2028", "\x00", "\ud800",
    "<think>", "</think>\n", "<think>a</think>\n", "<|endoftext|>", "</s>", "`", "``` ",
    "[PYTHON]\n", "<answer>\n",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@pytest.mark.parametrize("entry_point", ["f", ""])
def test_repetition_stays_within_the_budget(pattern, entry_point, monkeypatch):
    parsed: list[int] = []
    real = syntax.parse_source

    def counted(source: str) -> syntax.Parsed:
        parsed.append(min(len(source), syntax.MAX_PARSED_CHARS))
        return real(source)

    monkeypatch.setattr(syntax, "parse_source", counted)
    text = (pattern * (SIZE // len(pattern) + 1))[:SIZE]
    found = extract(text, prompt=PROMPT, entry_point=entry_point)
    assert len(parsed) <= 110
    assert isinstance(found.source, str)
    assert program_identity(text)


@pytest.mark.parametrize("depth", [50, 99, 150, 1000, 50_000])
@pytest.mark.parametrize(
    "opening", ["(", "[", "{", "f(", "a[", "-", "not ", "lambda: ", "x if y else ", "a ** ", "{1: "]
)
def test_nesting_is_survived(opening, depth):
    program = f"def f(x):\n    return {opening * depth}1\n"
    assert extract(f"So\n```python\n{program}```", prompt=PROMPT, entry_point="f").source
    assert program_identity(program)


@pytest.mark.parametrize("name", ["a{}", "x = a{} + 1", "'''{}''' + a{}"])
def test_a_name_with_thousands_of_combining_marks_is_not_parsed(name):
    """The parser would take minutes, and let no other thread run."""
    program = name.format(*["\u0301\u0316" * 30_000] * 2)
    assert syntax.parse_source(program).tree is None
    assert program_identity(program) == exact_identity(program)
    harmless = "# " + "\u2500" * 3000 + "\na\u0301 = '" + "\U0001f600" * 3000 + "'"
    assert syntax.parse_source(harmless).tree is not None


def test_many_blocks_are_read_once():
    markup = read_markup("```python\nx = 1\n```\n" * 5000)
    assert len(markup.blocks) == 5000


def test_nul_and_surrogates_are_handed_on():
    for bad in ("\x00", "\ud800"):
        found = extract(f"```python\ndef f(x):\n    return '{bad}'\n```", prompt=PROMPT, entry_point="f")
        assert found.how == "unparsable"
        assert bad in found.source
        assert exact_identity(found.source) == program_identity(found.source)


TOKENS = st.sampled_from(
    [
        *PATTERNS,
        "def f(x):\n",
        "    return x\n",
        "return x\n",
        "prose here\n",
        "\n",
        "import os\n",
        "```",
        "f",
        "class f:\n",
    ]
)
MESSY = st.lists(TOKENS | st.text(max_size=8), max_size=30).map("".join)


@settings(max_examples=150, deadline=None)
@given(completion=MESSY, prompt=st.sampled_from([PROMPT, "", "Do it.", "def f(x):", "class A:\n"]) | MESSY)
def test_never_raises_and_is_deterministic(completion, prompt):
    for entry_point in ("f", ""):
        first = extract(completion, prompt=prompt, entry_point=entry_point)
        assert first == extract(completion, prompt=prompt, entry_point=entry_point)
        assert (first.how == "none") == (first.source == "")
        if first.how == "full_program":
            again = extract(first.source, prompt=prompt, entry_point=entry_point)
            assert again.source == first.source


NAMES = st.sampled_from(["a", "b", "xs", "f"])
VALUES = st.sampled_from(
    ["1", "x", "[x]", "'```'", '"</s>"', "'<think>'", "x + 1", '"""\n```\n"""', "(x,\n 2)"]
)
STATEMENTS = st.one_of(
    st.builds("{} = {}".format, NAMES.filter(lambda name: name != "f"), VALUES),
    st.just("import math"),
    st.just("# a comment with ``` in it"),
    st.builds("def g(x):\n    return {}".format, VALUES),
    st.just("class C:\n    '''Doc\n\n    ```python\n    C()\n    ```\n    '''"),
    st.just("if __name__ == '__main__':\n    print(f(1))"),
)
PROGRAMS = st.builds(
    lambda before, value, after: "\n".join([*before, f"def f(x):\n    return {value}", *after]) + "\n",
    st.lists(STATEMENTS, max_size=4),
    VALUES,
    st.lists(STATEMENTS, max_size=4),
)


@settings(max_examples=150, deadline=None)
@given(
    program=PROGRAMS,
    language=st.sampled_from(["", "python", "py"]),
    prose=st.sampled_from(["", "Here it is:\n\n"]),
)
def test_a_program_in_a_fence_comes_out_as_it_went_in(program, language, prose):
    found = extract(
        f"{prose}```{language}\n{program}```\n\nDone, I hope.\n", prompt="Write f.", entry_point="f"
    )
    assert found.source == program
    assert found.how == "fenced"
