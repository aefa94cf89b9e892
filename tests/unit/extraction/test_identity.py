"""Which programs are the same program."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grader.extraction import exact_identity, program_identity

PLAIN = "import math\n\n\ndef f(x):\n    return math.floor(x) + 1\n"


@pytest.mark.parametrize(
    "other",
    [
        "import math\n\n\ndef f(x):\n    # a comment\n    return math.floor(x) + 1\n",
        "import math\ndef f( x ):\n  return (math.floor(x)\n     +   1)",
        'import math\n\n\ndef f(x):\n    """Doc."""\n    return math.floor(x) + 1\n',
        '"""Module."""\nimport math\n\n\ndef f(x):\n    return math.floor(x) + 0x1\n',
        PLAIN.replace("\n", "\r\n"),
    ],
)
def test_comments_formatting_and_docstrings_do_not_matter(other):
    assert program_identity(other) == program_identity(PLAIN)
    assert exact_identity(other) != exact_identity(PLAIN)


def test_regular_expressions_are_not_taken_for_the_builtin():
    program = "import re\nP = re.compile('a')\n"
    assert program_identity(program) == program_identity(program + "# comment\n")
    assert program_identity("P = compile('a')\n") == exact_identity("P = compile('a')\n")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 0.0", "x = -0.0"),
        ("x = 'a'", "x = b'a'"),
        ("x = 'a'", "x = a"),
        ("x = None", "x = 'None'"),
        ("x = 1, 2", "x = [1, 2]"),
        ("f(1, 2)", "f((1, 2))"),
        ("f(a, *b)", "f(*b, a)"),
        ("x = {**a}", "x = {None: a}"),
        ("if a:\n x\n y", "if a:\n x\ny"),
        ("def f(a, /): a", "def f(a): a"),
        ("def f(a, *, b=1): a", "def f(a, b=1): a"),
        ("assert a, 'x'", "assert a, 'y'"),
        ("def f(a: int): a", "def f(a: str): a"),
        ("x: int = 1", "(x): int = 1"),
        ("'doc'\n'text'", "'doc'"),
        ("f'{x=}'", "f'{x = }'"),
        ("global_ = 1", "global_ = 2"),
        ("async def f(): a", "def f(): a"),
        ("x = 10", "x = 1\n0"),
    ],
)
def test_what_can_behave_differently_differs(one, other):
    assert program_identity(one) != program_identity(other)


@pytest.mark.parametrize(
    "line",
    [
        "x = f.__doc__",
        "x = '{0.__doc__}'.format(f)",
        "x = ('{0.__do' + 'c__}').format(f)",
        "import inspect",
        "from dataclasses import inspect",
        "import random; random._os",
        "import sys; sys._getframe().f_lineno",
        "import traceback",
        "import linecache",
        "import warnings",
        "import numpy",
        "import doctest",
        "import os",
        "help(f)",
        "x = open('a')",
        "x = __file__",
        "x = f.__code__.co_firstlineno",
        "eval('1')",
        "vars()",
        "x = getattr(f, '__do' + 'c__')",
        "try:\n    f()\nexcept Exception as e:\n    n = e.__traceback__.tb_lineno",
        "match f:\n    case object(__doc__=d): pass",
        "from operator import attrgetter",
        "import sys; sys.modules",
        "from . import x",
        "breakpoint()",
    ],
)
def test_a_program_that_could_see_itself_is_only_itself(line):
    program = f"{line}\ndef f(): return 1\n"
    assert ast.parse(program)
    assert program_identity(program) == exact_identity(program)
    assert program_identity(program) != program_identity(program + "# comment\n")


def test_coding_line_is_part_of_the_program():
    program = "# -*- coding: latin-1 -*-\nx = 'é'\n"
    assert program_identity(program) == exact_identity(program)


@pytest.mark.parametrize(
    "text", ["", "def f(", "\x00", "\ud800", "x" * 300_000, "-" * 5000 + "1", "1+" * 5000 + "1"]
)
def test_any_text_has_an_identity(text):
    assert len(program_identity(text)) == 64
    assert len(exact_identity(text)) == 64


def test_huge_integers_have_one():
    assert program_identity("x = 0x" + "f" * 20_000) != program_identity("x = 0x" + "f" * 20_001)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_never_raises(text):
    assert program_identity(text) == program_identity(text)


EXPRESSIONS = st.recursive(
    st.sampled_from(["1", "1.0", "True", "x", "'a'", "None", "-1"]),
    lambda inner: st.one_of(
        st.builds("({} + {})".format, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("({}, {})".format, inner, inner),
        st.builds("f({}, k={})".format, inner, inner),
        st.builds("(lambda: {})".format, inner),
        st.builds("{{{}: {}}}".format, inner, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(one=EXPRESSIONS, other=EXPRESSIONS)
def test_equal_exactly_when_the_trees_are(one, other):
    """``ast.dump`` is the slow way to say the same."""
    same = ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
    assert (program_identity(one) == program_identity(other)) == same
