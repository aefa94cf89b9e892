"""Which programs are the same program."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grader.extraction import exact_identity, program_identity
from grader.extraction.identity import outline

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
    assert outline(other) == outline(PLAIN)
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
        ("class A(metaclass=M):\n 'one'\n x = 1", "class A(metaclass=M):\n 'two'\n x = 1"),
    ],
)
def test_what_can_behave_differently_differs(one, other):
    assert program_identity(one) != program_identity(other)


@pytest.mark.parametrize(
    "line",
    [
        "x = f.__doc__",
        "class P(property):\n def __setattr__(self, name, value): print(value)",
        "import sys; sys.monitoring.register_callback",
        "import sys; sys.getallocatedblocks()",
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
        "import functools\n@functools.singledispatch\ndef g(x): pass\n@g.register\ndef h(x: 'f._' + '_doc__'): pass",
        "from functools import singledispatchmethod",
        "import typing\nx = typing.ForwardRef('f.__do' + 'c__')",
        "import dataclasses\nx = dataclasses._create_fn('d', ('f',), ['return f.__do' + 'c__'])",
        "import dataclasses\nC = dataclasses.make_dataclass('C', ['__do' + 'c__'])",
        "class C: pass\nsetattr(C, '__match_' + 'args__', ('__do' + 'c__',))",
        "import abc\nclass C(abc.ABC): pass",
        "import enum\nE = enum.Enum('E', {'__match_' + 'args__': ('__do' + 'c__',)})",
        "import functools\nfunctools.wraps(f, (), ('__do' + 'c__',))(x)",
        "W = type('W', (), {'__do' + 'c__': 1})",
        "W = type(int)('W', (), {'__do' + 'c__': 1})",
        "W = map(type, [int])",
        "W = int.__class__('W', (), {'__do' + 'c__': 1})",
        "class M(type): pass",
        "class C(metaclass=m): pass",
        "import copy\ncopy.copyreg.pickle(C, reducer)",
        "import sys\nsys.addaudithook(print)",
        "x = '{0.gi_frame.f_lineno}'.format(f())",
        "x = 'line {a[0].cr_frame}'.format(a=[f()])",
        "x = '{0._overload_registry}'.format(typing)",
        "x = '{0.modules}'.format(sys)",
        "x = '{0.inspect}'.format(dataclasses)",
        "match '{0.gi_' + 'frame}':\n case object(format=g): pass",
        "import typing\nx = typing.get_overloads(f)",
        "import typing\nx = typing._overload_registry",
        "from typing import _overload_registry as x",
        "import typing\nmatch typing:\n case object(_overload_registry=x): pass",
        "import typing\nself = typing\nx = self._overload_registry",
        "import sys\nsys.stderr = W()",
        "from sys import stderr as s",
        "import sys\nsys.breakpointhook()",
        "import sys\nsys.set_coroutine_origin_tracking_depth(1)",
        "import typing\nC = typing.ABCMeta('C', (), {'__match_' + 'args__': ('__do' + 'c__',)})",
        "from numbers import ABCMeta as M",
        "import typing\nC = typing.NamedTupleMeta('C', b, d)",
        "import dataclasses\nx = dataclasses.abc",
        "from collections import abc",
        "import collections._collections_abc",
        "import collections\nx = collections._collections_abc",
        "import typing\nclass C(N, typing.Hashable): pass\nC.register(F)",
        "import typing\n@typing.runtime_checkable\nclass C(B): pass",
        "import dataclasses\nx = dataclasses.FunctionType",
        "import re\nE = re.enum.Flag('E', d)",
        "import calendar\nE = calendar.IntEnum('E', d)",
        "import re\nx = re._compiler",
        "import re._compiler",
        "from json.tool import *\nx = argparse",
        "class P(property): pass",
        "class S(staticmethod): pass",
        "x = classmethod(f)",
        "c.attrname = '__do' + 'c__'",
        "import pydoc",
        "import faulthandler",
        "import tracemalloc",
        "import sys\nsys.unraisablehook = print",
    ],
)
def test_a_program_that_could_see_itself_is_only_itself(line):
    program = f"{line}\ndef f(): return 1\n"
    assert ast.parse(program)
    assert program_identity(program) == exact_identity(program)
    assert program_identity(program) != program_identity(program + "# comment\n")


@pytest.mark.parametrize(
    "line", ["x = type(x) is int", "x = 1 < 2 == type(x)", "x = type(x).__name__", "y = type(x) != type(y)"]
)
def test_a_type_that_is_compared_or_named_shows_nothing(line):
    assert program_identity(line + "\n") == program_identity(line + "  # comment\n")


@pytest.mark.parametrize(
    "line",
    [
        "x = '{0.name} {}, {1[key]:>8.3f}. What a format'.format(a, b)",
        "from collections.abc import Iterable",
        "class C:\n @property\n def p(self): return 1\n @staticmethod\n def s(): pass",
        "class C:\n @classmethod\n def c(cls): pass",
        "x = '{a. b}'",
        "import json.decoder",
    ],
)
def test_what_shows_nothing_does_not_end_it(line):
    assert program_identity(line + "\n") == program_identity(line + "  # comment\n")


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


# Each as it may be written; ``ast.unparse`` writes it in another way.
WRITTEN = [
    "x = 0XFF_ff + 1_000 + 0b10 + 00 + 1E3 + .5 + 5. + 1e-05 + 2J",
    "if a:\n b\nelse:\n if c:\n  d\n else:\n  e",
    "x = 'it''s' \"a\" + r'\\n' + '''a ' b'''  # 'not a string",
    "x = f'{a!r:>{width}} {b}' f\"{c}\" + rb'a'.decode()",
    "def \ufb01nd(x): return x.\ufb01nd",
    "def f():\n '''Doc # of it.\n'''\n return 1;",
    "x = [1\\\n,2,]; del(x)\n# \u00e9\n",
    "with (a(1)) as (b): pass",
    "try: a\nexcept(ValueError): b",
    "x = 0b1and y",
    "x = 'a\\\r\nb c'",
    "e\u0301, a\uff3fb, \u0958 = 1",
    "def f():\n  '''It's\n  a doc of \"mine\"\n  '''\n  return 1",
]


@pytest.mark.filterwarnings("ignore:invalid")
@pytest.mark.parametrize("text", WRITTEN)
def test_a_program_has_one_outline_however_it_is_written(text):
    other = ast.unparse(ast.parse(text))
    assert text != other
    assert program_identity(text) == program_identity(other)
    assert outline(text) == outline(other)


@settings(max_examples=200, deadline=None)
@given(one=EXPRESSIONS, other=EXPRESSIONS)
def test_programs_with_different_outlines_are_different(one, other):
    assert outline(one) == outline(other) or program_identity(one) != program_identity(other)
    assert outline(one) == outline(ast.unparse(ast.parse(one)))


def test_the_outline_tells_names_and_numbers_apart():
    texts = ("x = 1", "y = 1", "x = 2", "x = 1.0", "x = 1j", "x = x", "pass")
    assert len({outline(text) for text in texts}) == len(texts)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.text("'\"\\\n\r#0xe_.1jarf{} ", max_size=60))
def test_any_text_has_an_outline(text):
    assert len(outline(text)) == 64


@pytest.mark.parametrize(
    "part", ["'''\\", "'''\\'", '"""\\"', "'\\", "0x", "1_", "1e", "0_.", "rb'", "#", "e\u0301", "x ", "1e+"]
)
def test_the_outline_of_a_long_text_is_found(part):
    """Where a string that is not closed is looked through again and again, this takes hours."""
    text = part * ((1 << 17) // len(part))
    assert len(outline(text[:-1] + "\\")) == 64
