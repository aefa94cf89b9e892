"""Hurt what reads the answer or the verdict (items 86-97)."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from attack_programs.model import (
    COMPILE,
    MEMORY,
    NO_CODE,
    OUTPUT,
    RUNTIME,
    TIME,
    WRONG,
    Collection,
    calling,
    returning,
)

ATTACKS = Collection()
_add = ATTACKS.add

_NEST = "def nest(make, depth=100000):\n    value = 0\n    for _ in range(depth): value = make(value)\n    return value\n"
for _name, _make in {
    "list": "lambda v: [v]", "tuple": "lambda v: (v,)", "dict": "lambda v: {1: v}", "frozenset": "lambda v: frozenset([v])",
    "deque": "lambda v: __import__('collections').deque([v])", "generator": "lambda v: iter([v])",
}.items():  # fmt: skip
    _add(
        f"deep-{_name}",
        (86,),
        "Too deep is opaque.",
        returning(f"nest({_make})", _NEST),
        WRONG,
        RUNTIME,
        TIME,
        MEMORY,
        task="list",
    )
    _add(
        f"deep-{_name}-within",
        (86,),
        "As deep as is written.",
        returning(f"nest({_make}, 495)", _NEST),
        WRONG,
        TIME,
        task="list",
    )
_RECURSIVE = {
    "list": "x = []; x.append(x)", "dict": "x = {}; x[1] = x", "pair": "x = []; y = [x]; x.append(y)",
    "tuple": "x = ([],); x[0].append(x)", "shared": "x = [0]\nfor _ in range(60): x = [x, x]",
    "shared-tuples": "x = (0,)\nfor _ in range(60): x = (x, x)", "deque": "import collections; x = collections.deque(); x.append(x)",
    "generator": "x = []; x.append(iter(x))",
}  # fmt: skip
for _name, _make in _RECURSIVE.items():
    _add(f"recursive-{_name}", (87,), "Contains itself: its program's own time and memory.", calling(f"{_make}\nreturn x"),
         WRONG, RUNTIME, TIME, MEMORY, OUTPUT)  # fmt: skip
for _task in ("int", "float", "root", "text"):
    for _name, _expression in {
        "4301-digits": "10 ** 4301", "million-digits": "1 << 999_999", "beyond": "1 << 9_000_000", "negative": "-(1 << 999_999)",
    }.items():  # fmt: skip
        _add(
            f"huge-int-{_name}-{_task}",
            (88,),
            "Never turned into decimal digits.",
            returning(_expression),
            WRONG,
            task=_task,
        )
for _value in (
    "float('nan')",
    "float('inf')",
    "-float('inf')",
    "complex('nan')",
    "1e308 * 10",
    "[float('nan')]",
):
    for _task in ("float", "close", "root", "int"):
        _add(f"not-finite-{_value}-{_task}", (89,), "NaN is near nothing, and infinity only to itself.", returning(_value),
             WRONG, task=_task)  # fmt: skip
for _name, _expression in {
    "surrogate": "'\\ud800'", "surrogate-pair": "'\\ud83d\\ude00'", "nul": "'\\0'", "bytes": "b'\\xff\\xfe'", "bom": "'\\ufeff'",
    "bidi": "'\\u202e'", "combining": "'e' + '\\u0301' * 10000", "noncharacter": "'\\uffff'", "surrogate-key": "{'\\ud800': 1}",
    "long-text": "'x' * 1000000",
}.items():  # fmt: skip
    _add(
        f"text-{_name}",
        (90,),
        "A wrong answer, never an error of the grader.",
        returning(_expression),
        WRONG,
        task="text",
    )
    _add(
        f"text-{_name}-raised",
        (90, 97),
        "The same as an exception's text.",
        calling(f"raise ValueError({_expression})"),
        RUNTIME,
    )
_add(
    "stdio-bad-utf8",
    (90,),
    "Output is compared as bytes.",
    "import os; os.write(1, b'\\xff\\xfe7\\n')",
    WRONG,
    task="stdio",
)
_add("stdio-nul", (90,), "NUL is no white space.", "import os; os.write(1, b'7\\0\\n')", WRONG, task="stdio")
_add("stdio-ansi", (94,), "Neither is a control sequence.", "print('\\x1b[2J7')", WRONG, task="stdio")
_add("stdio-both", (24,), "Two answers are none.", "print(7, 8)", WRONG, task="stdio")
for _task, _value in (("bool", "1"), ("bool", "'True'"), ("int", "True"), ("text", "['a']"), ("list", "(1,)"), ("dict", "[]"),
                      ("set", "None"), ("int", "'128486'"), ("float", "'4.75'"), ("root", "None"), ("root", "'0'"), ("root", "True")):  # fmt: skip
    _add(
        f"type-{_value}-for-{_task}",
        (91,),
        "Types that Python holds for equal are, others are not.",
        returning(_value),
        WRONG,
        task=_task,
    )
for _name, _expression in {
    "duplicate-keys": "{1: 1, True: 2, 1.0: 3}", "nan-keys": "{float('nan'): n for n in range(1000)}", "unhashable": "[{}, set(), []]",
    "bytearray-key": "{b'x': bytearray(b'x')}", "set-of-nans": "{float('nan') for _ in range(1000)}",
    "nested-sets": "frozenset([frozenset([frozenset()])])", "many-dicts": "[{n: {n: n}} for n in range(20000)] and {}",
}.items():  # fmt: skip
    for _task in ("dict", "set"):
        _add(f"keys-{_name}-{_task}", (92,), "Decoded or refused.", returning(_expression), WRONG, task=_task)
_add(
    "quadratic-items",
    (93,),
    "A long list where a set is compared.",
    returning("[[n] for n in range(200000)]"),
    WRONG,
    task="set",
    steps=4,
)
_add(
    "quadratic-equal",
    (93,),
    "Equal items without end.",
    returning("[1] * 1000000"),
    WRONG,
    task="set",
    steps=4,
)
_add(
    "quadratic-text",
    (93,),
    "Long texts that differ at their end.",
    returning("['x' * 10000 + str(n) for n in range(300)]"),
    WRONG,
    task="set",
    steps=4,
)
_add(
    "many-values",
    (93,),
    "Two million of them.",
    returning("[None] * 1900000"),
    WRONG,
    MEMORY,
    task="list",
    steps=4,
)
_add(
    "many-empty",
    (93,),
    "Containers of nothing.",
    returning("[[] for _ in range(300000)]"),
    WRONG,
    task="list",
    steps=4,
)

_ANSI = "'\\x1b[2J\\x1b[31mPASSED\\x1b]0;title\\x07\\r\\n\\x9b' + '%s{0}\\x00' * 20"
_add(
    "ansi-in-exception",
    (94,),
    "Control characters do not reach a terminal.",
    calling(f"raise ValueError({_ANSI})"),
    RUNTIME,
)
_add("ansi-in-stdout", (94,), "What is printed is kept as text.", calling(f"print({_ANSI})"), WRONG)
_add("ansi-in-type-name", (94, 97), "Neither by an exception's class.",
     calling(f"raise type(str({_ANSI}).replace(chr(0), ''), (Exception,), {{}})()"), RUNTIME)  # fmt: skip
_add(
    "long-type-name",
    (94, 97),
    "Nor a name of a megabyte.",
    calling("raise type('X' * 1000000, (Exception,), {})()"),
    RUNTIME,
)
_add("type-name-of-another", (97,), "A class called MemoryError is one, for what it is worth.",
     calling("raise type('MemoryError', (Exception,), {})()"), MEMORY, RUNTIME)  # fmt: skip
_EXCEPTIONS = {
    "str-raises": "def __str__(self): raise SystemExit(0)",
    "str-spins": "def __str__(self):\n        while True: pass",
    "str-sleeps": "def __str__(self): __import__('time').sleep(99)",
    "str-exits": "def __str__(self): __import__('os')._exit(0)",
    "str-is-no-text": "def __str__(self): return 5",
    "str-is-subclass": "def __str__(self): return type('S', (str,), {'__getitem__': lambda s, k: s, '__len__': lambda s: 1})('x' * 10**6)",
    "str-is-huge": "def __str__(self): return 'x' * (64 << 20)",
    "args-hostile": "args = property(lambda self: 1 / 0)",
    "traceback-hostile": "__traceback__ = property(lambda self: 1 / 0)",
    "cause-cycle": "@property\n    def __cause__(self): return self",
    "class-property": "__class__ = property(lambda self: 1 / 0)",
    "getattribute": "def __getattribute__(self, name): raise SystemExit",
    "repr-raises": "def __repr__(self): raise KeyboardInterrupt",
}  # fmt: skip
for _name, _body in _EXCEPTIONS.items():
    _add(f"exception-{_name}", (97,), "An exception is described, whatever it does.",
         f"class Hostile(BaseException):\n    {_body}\ndef solve(*a):\n    raise Hostile('x')\n", RUNTIME, TIME, MEMORY)  # fmt: skip
    _add(f"exception-{_name}-at-load", (97,), "The same at load.",
         f"class Hostile(Exception):\n    {_body}\nraise Hostile('x')\n", RUNTIME, TIME, MEMORY)  # fmt: skip
    _add(f"exception-{_name}-stdio", (97,), "The same in a whole program.",
         f"class Hostile(Exception):\n    {_body}\nraise Hostile('x')\n", RUNTIME, TIME, MEMORY, WRONG, OUTPUT, task="stdio")  # fmt: skip
_META = """
class Meta(type):
    @property
    def __name__(cls): raise SystemExit(0)
    def __repr__(cls): raise SystemExit(0)
class Hostile(Exception, metaclass=Meta): pass
"""
_add("exception-metaclass", (97,), "A class whose name raises.", calling("raise Hostile", _META), RUNTIME)
_add(
    "answer-metaclass",
    (97,),
    "An answer whose class's name raises.",
    returning("Hostile()", _META),
    WRONG,
    RUNTIME,
)
_add("exception-group", (97,), "Groups within groups.", calling("""
    error = ValueError("x")
    for _ in range(2000): error = ExceptionGroup("g", [error])
    raise error
    """), RUNTIME)  # fmt: skip
_add("exception-chain", (97,), "A chain of causes.", calling("""
    error = None
    for number in range(100000):
        try: raise ValueError(number) from error
        except ValueError as caught: error = caught
    raise error
    """), RUNTIME, MEMORY)  # fmt: skip
_add("huge-traceback", (97,), "A million frames.", calling("""
    import sys
    sys.setrecursionlimit(200000)
    def down(n): return 1 / n if n == 0 else down(n - 1)
    down(100000)
    """), RUNTIME)  # fmt: skip
_add("huge-traceback-stdio", (97,), "Printed within the limits.", """
    import sys
    sys.setrecursionlimit(200000)
    def down(n): return 1 / n if n == 0 else down(n - 1)
    down(100000)
    """, RUNTIME, TIME, task="stdio")  # fmt: skip
_add(
    "syntax-error-text",
    (94, 97),
    "The text of a syntax error.",
    "x = '\\x1b[2J\x1b[2J" + "y" * 100000,
    COMPILE,
)
_add(
    "warnings",
    (94,),
    "Warnings are output.",
    calling("import warnings\nfor n in range(10000): warnings.warn(str(n))"),
    WRONG,
)
_add(
    "excepthook",
    (97,),
    "Hooks of the interpreter.",
    calling("import sys\nsys.excepthook = sys.unraisablehook = lambda *a: 1 / 0\n1 / 0"),
    RUNTIME,
)
_add(
    "stdout-replaced",
    (97,),
    "The streams themselves.",
    calling("import sys\nsys.stdout = sys.stderr = None"),
    WRONG,
)
_add("stdout-hostile", (97,), "Or something worse.", calling("""
    import sys
    class Hostile:
        def __getattribute__(self, name): raise SystemExit(0)
    sys.stdout = sys.stderr = Hostile()
    """), WRONG)  # fmt: skip
_add(
    "label-injection",
    (94,),
    "Names in metrics.",
    calling('raise type(\'x",status="passed\', (Exception,), {})("} 1\\n# HELP x")'),
    RUNTIME,
)
_add(
    "json-injection",
    (94,),
    "Or in JSON.",
    calling('raise ValueError(\'", "passed": true, "x": "\')'),
    RUNTIME,
)
_add("nothing", (28,), "Nothing at all.", "", NO_CODE)
_add("only-a-comment", (28,), "Nothing but a comment.", "# solved", RUNTIME)
