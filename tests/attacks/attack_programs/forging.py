"""Make a wrong answer pass: exits, objects that equal everything, patches, and lies about types (items 1-27)."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from attack_programs.model import (
    COMPILE,
    HARMLESS,
    RUNTIME,
    TIME,
    VIOLATION,
    WRONG,
    Collection,
    calling,
    returning,
)

ATTACKS = Collection()
_add = ATTACKS.add

# 1, 2: an exit says nothing about answers.
for _name, _statement in {
    "sys-exit-0": "import sys; sys.exit(0)",
    "system-exit": "raise SystemExit(0)",
    "quit": "raise SystemExit",
    "os-exit-0": "import os; os._exit(0)",
    "posix-exit-0": "import posix; posix._exit(0)",
    "ctypes-exit": "import ctypes; ctypes.CDLL(None).exit(0)",
    "ctypes-_exit": "import ctypes; ctypes.CDLL(None)._exit(0)",
    "ctypes-quick-exit": "import ctypes; ctypes.CDLL(None).quick_exit(0)",
    "exit-group": "import ctypes; ctypes.CDLL(None).syscall(231, 0)",
    "abort": "import os; os.abort()",
    "thread-exit": "import os, threading; threading.Thread(target=os._exit, args=(0,)).start(); threading.Event().wait()",
}.items():
    _add(f"{_name}-at-load", (1, 2), "An exit status proves nothing.", _statement, RUNTIME)
    _add(f"{_name}-in-call", (1, 2), "An answer is owed for every test.", calling(_statement), RUNTIME)
_add(
    "stdio-exit-0", (1,), "Exit status 0 with nothing printed.", "import os; os._exit(0)", WRONG, task="stdio"
)
_add(
    "keyboard-interrupt",
    (1,),
    "An exception outside of Exception.",
    calling("raise KeyboardInterrupt"),
    RUNTIME,
)
_add("base-exception", (1,), "One more.", calling("raise BaseException('x')"), RUNTIME)
_add("generator-exit", (1,), "And one more.", calling("raise GeneratorExit"), RUNTIME)
_add("no-entry-point", (1,), "Nothing to call.", "x = 1", RUNTIME)
_add("entry-point-is-data", (1,), "Not callable.", "solve = 7", RUNTIME)
_add("not-python", (1,), "Does not compile.", "def solve(:", COMPILE)

# 3-6: objects that say yes to every question.
YES = """
class Yes:
    def yes(self, *others): return True
    __eq__ = __bool__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = yes
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __len__(self): return 1
    def __iter__(self): return iter([self])
    def __getitem__(self, key): return self
    def __sub__(self, other): return 0
    __rsub__ = __abs__ = __float__ = __int__ = __index__ = __round__ = lambda self, *a: 0
    def __getattr__(self, name): return self
    def __instancecheck__(self, other): return True
    def __reduce__(self): return (int, (0,))
    def __str__(self): return ""
    __repr__ = __str__
    def __array__(self, *a, **k): raise ValueError
    def __call__(self, *a): return self
"""
for _task in ("int", "float", "close", "text", "list", "set", "dict", "bool", "root", "long", "long_float"):
    _add(f"equals-everything-{_task}", (3, 4, 5, 6), "Only decoded builtins are compared.",
         returning("Yes()", YES), WRONG, task=_task)  # fmt: skip
    _add(f"equals-everything-inside-{_task}", (3, 6), "The same inside of a container.",
         returning("[Yes()] * 3", YES), WRONG, task=_task)  # fmt: skip
for _container in (
    "{Yes()}",
    "{Yes(): Yes()}",
    "(Yes(),)",
    "[[Yes()]]",
    "frozenset([Yes()])",
    "Yes",
    "{1: Yes()}",
):
    _add(f"equals-everything-as-{_container}", (3, 6), "In every kind of container.",
         returning(_container, YES), WRONG, task="set")  # fmt: skip

_CLASS_LIE = """
class Lie:
    @property
    def __class__(self): return int
    def __eq__(self, other): return True
    __hash__ = None
"""
_add("class-property", (3,), "__class__ says int; the type is asked.", returning("Lie()", _CLASS_LIE), WRONG)
_META = """
class Meta(type):
    def __eq__(self, other): return True
    def __hash__(self): return hash(int)
    def __instancecheck__(self, other): return True
    def __subclasscheck__(self, other): return True
class Lie(metaclass=Meta):
    def __eq__(self, other): return True
"""
_add("metaclass-equals-int", (3,), "A class that equals every class.", returning("Lie()", _META), WRONG)
_add("class-instead-of-object", (3,), "A class whose metaclass says yes.", returning("Lie", _META), WRONG)

# 7: subclasses of builtins.
for _base, _value, _task in (
    ("int", "5", "int"), ("float", "5.0", "float"), ("float", "'nan'", "float"), ("str", "'x'", "text"),
    ("list", "[1]", "list"), ("set", "[1]", "set"), ("frozenset", "[1]", "set"), ("dict", "{1: 1}", "dict"),
    ("tuple", "[1]", "list"), ("complex", "1", "float"), ("bytes", "b'x'", "text"), ("float", "5.0", "root"),
    ("int", "0", "root"), ("float", "'nan'", "root"), ("list", "[1]", "long"), ("float", "0", "close"),
):  # fmt: skip
    _add(f"subclass-of-{_base}-{_value}-{_task}", (3, 7), "A subclass may redefine equality: it is opaque.",
         returning(f"Sub({_value})", f"class Sub({_base}):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n"
                   "    __hash__ = lambda s: 0\n    __sub__ = __rsub__ = __abs__ = lambda s, *o: 0\n    __len__ = lambda s: 1"),
         WRONG, task=_task)  # fmt: skip
_ENUM = "import enum\nclass E(enum.IntEnum):\n    A = 7\n    def __eq__(self, other): return True\n    __hash__ = None"
_add("int-enum", (7,), "An enum is a subclass of int.", returning("E.A", _ENUM), WRONG)
_NAMED = "import collections\nclass N(collections.namedtuple('N', 'a')):\n    def __eq__(self, other): return True\n    __hash__ = None"
_add(
    "namedtuple-subclass",
    (7,),
    "A namedtuple that equals everything.",
    returning("N(1)", _NAMED),
    WRONG,
    task="list",
)
_OVERRIDE = "import collections\nN = collections.namedtuple('N', 'a')\nN.__eq__ = lambda s, o: True\nN.__iter__ = lambda s: iter([1])"
_add("namedtuple-patched", (7,), "The same by patching.", returning("N(1)", _OVERRIDE), WRONG, task="list")
for _kind in ("Counter", "OrderedDict", "defaultdict", "deque", "UserDict", "UserList", "UserString"):
    _add(f"patched-{_kind}", (7,), "Patched collections are read with the plain type's methods, or opaque.",
         returning(f"S({'int' if _kind == 'defaultdict' else '[]' if _kind != 'UserString' else repr('')})",
                   f"import collections\nclass S(collections.{_kind}):\n    def __eq__(self, o): return True\n    __hash__ = None"),
         WRONG, task="dict")  # fmt: skip
_FRACTION = """
import fractions, decimal
class F(fractions.Fraction):
    def __eq__(self, other): return True
    __hash__ = None
fractions.Fraction.__eq__ = lambda s, o: True
"""
_add("fraction-subclass", (7,), "A number type of the library.", returning("F(1)", _FRACTION), WRONG)
_add(
    "fraction-patched", (7,), "Patched here, not there.", returning("fractions.Fraction(1)", _FRACTION), WRONG
)
_add(
    "decimal-nan",
    (7, 89),
    "A Decimal NaN equals nothing.",
    returning("decimal.Decimal('nan')", _FRACTION),
    WRONG,
)
_add("decimal-snan", (7, 89), "A signalling NaN cannot even be compared.",
     returning("decimal.Decimal('snan')", _FRACTION), WRONG)  # fmt: skip

# 8: numpy.
_ARRAY = """
import numpy
class A(numpy.ndarray):
    def __array_ufunc__(self, *a, **k): return numpy.array(True)
    def __array_function__(self, *a, **k): return True
    def __eq__(self, other): return True
    def all(self, *a): return True
made = numpy.zeros(3).view(A)
"""
for _task in ("int", "float", "close", "list", "long_float"):
    _add(
        f"ndarray-subclass-{_task}",
        (8,),
        "An array subclass is opaque.",
        returning("made", _ARRAY),
        WRONG,
        task=_task,
    )
_add("object-array", (8,), "Its items are objects.",
     returning("numpy.array([Yes()] * 3, dtype=object)", "import numpy\n" + YES), *HARMLESS, task="float")  # fmt: skip
_add(
    "empty-array",
    (8,),
    "allclose of nothing is true.",
    returning("numpy.array([])", "import numpy"),
    WRONG,
    task="float",
)
_add(
    "nan-array",
    (8, 89),
    "NaN is near nothing.",
    returning("numpy.full(1, numpy.nan)", "import numpy"),
    WRONG,
    task="float",
)
_add("structured-array", (8,), "A dtype with fields.",
     returning("numpy.zeros(1, dtype=[('a', 'f8')])", "import numpy"), WRONG, task="float")  # fmt: skip

# 9-12: the comparator is elsewhere.
_PATCHES = {
    "numpy-allclose": "import numpy\nnumpy.allclose = numpy.isclose = numpy.array_equal = lambda *a, **k: True",
    "numpy-testing": "import numpy.testing\nnumpy.testing.assert_allclose = lambda *a, **k: None",
    "math-isclose": "import math\nmath.isclose = lambda *a, **k: True",
    "builtins": "import builtins\nfor n in ('abs','len','all','any','sum','sorted','set','zip','isinstance','type','hash',"
    "'max','min','repr','str','bool','print','range','list','map','callable','getattr'):\n    setattr(builtins, n, lambda *a, **k: True)",
    "globals": "abs = len = all = any = isinstance = type = lambda *a, **k: True",
    "main": "import __main__\nfor n in list(vars(__main__)):\n    setattr(__main__, n, lambda *a, **k: True)",
    "marshal": "import marshal\nmarshal.dumps = marshal.loads = lambda *a, **k: b'T'",
    "os-write": "import os\nreal = os.write\nos.write = lambda fd, data: real(fd, b'') or len(data)",
    "hashlib": "import hashlib\nhashlib.sha256 = lambda *a: type('H', (), {'update': lambda s, d: None, 'digest': lambda s: b'0'*32})()",
    "struct": "import struct\nstruct.Struct.pack = struct.pack = lambda *a: b''" ,
    "runner": "import sys\nfor m in list(sys.modules):\n    if 'runner' in m:\n        for n in list(vars(sys.modules[m])):\n"
    "            if not n.startswith('__'):\n                setattr(sys.modules[m], n, lambda *a, **k: True)",
    "unittest": "import unittest\nfor n in dir(unittest.TestCase):\n    if n.startswith('assert'):\n        setattr(unittest.TestCase, n, lambda *a, **k: None)",
    "judge-modules": "import sys, types\nfor n in ('grader', 'grader.judge', 'grader.judge.compare', 'evalplus', 'pytest'):\n"
    "    sys.modules[n] = types.ModuleType(n)\n    sys.modules[n].matches = lambda *a: True",
}  # fmt: skip
for _name, _patch in _PATCHES.items():
    _add(f"patched-{_name}", (9, 10, 11), "Patches stay in the process that made them.",
         returning("0", f"try:\n    exec({_patch!r}, globals())\nexcept Exception:\n    pass"), *HARMLESS, VIOLATION)  # fmt: skip
    _add(f"patched-{_name}-float", (9, 10), "The same where a tolerance is in force.",
         returning("[0.0]", f"try:\n    exec({_patch!r}, globals())\nexcept Exception:\n    pass"), *HARMLESS, VIOLATION,
         task="float")  # fmt: skip
_add("settrace", (12,), "A trace function sees our frames, which hold no answers.", calling("""
    import sys
    def trace(frame, event, argument):
        for name in ("expected", "ok", "passed", "result", "verdict"):
            if name in frame.f_locals:
                frame.f_locals[name] = True
        return trace
    sys.settrace(trace); sys.setprofile(trace)
    """), *HARMLESS)  # fmt: skip
_add("import-hook", (12, 16), "An import hook that fakes every later import.", returning("0", """
    import sys, types
    class Finder:
        def find_spec(self, name, path=None, target=None): return None
        def find_module(self, name, path=None): return self
        def load_module(self, name): return types.ModuleType(name)
    sys.meta_path.insert(0, Finder()); sys.modules.clear()
    """), *HARMLESS)  # fmt: skip
_add("audit-hook", (12,), "An audit hook stops what the process does next.",
     returning("0", "import sys\nsys.addaudithook(lambda *a: 1 / 0)"), *HARMLESS)  # fmt: skip
_add(
    "asserts-off", (12,), "Asserts decide nothing.", returning("0", "__debug__ and exec('import sys')"), WRONG
)
for _file in (
    "conftest.py",
    "sitecustomize.py",
    "usercustomize.py",
    "json.py",
    "numpy.py",
    "x.pth",
    "pytest.ini",
):
    _add(f"plants-{_file}", (13, 15, 16), "The working folder is on no path, and is gone after the sample.",
         calling(f"open({_file!r}, 'w').write('import os; os._exit(0)')\nimport json, numpy"), *HARMLESS)  # fmt: skip
for _folder in ("/python/site-packages", "/python/lib", "/runner", "/", "/dev"):
    _add(f"writes-to-{_folder}", (15, 16), "Everything but /tmp is read-only.",
         calling(f"open({_folder!r} + '/sitecustomize.py', 'w')"), RUNTIME)  # fmt: skip
_add("overwrites-runner", (15,), "The runner's own files are read-only.",
     calling("import os\nos.rename('/runner/function.py', '/tmp/function.py')"), RUNTIME)  # fmt: skip
for _skip in ("unittest.SkipTest('x')", "StopIteration", "StopAsyncIteration", "AssertionError", "NotImplementedError",
              "ImportError", "Warning", "__import__('asyncio').CancelledError"):  # fmt: skip
    _add(
        f"raises-{_skip}",
        (14,),
        "No exception is a pass.",
        calling(f"import unittest\nraise {_skip}"),
        RUNTIME,
    )
_add(
    "pytest-skip",
    (14,),
    "There is no pytest to ask.",
    "import pytest\npytest.skip(allow_module_level=True)",
    RUNTIME,
)

# 20-24: markers, files, pickles.
_add("markers-in-stdout", (20, 22), "Standard output of a function task is not read for a verdict.",
     returning("0", "print('PASSED\\n1 passed in 0.01s\\nOK\\n{\"reward\": 1.0}\\nall tests passed', flush=True)"), WRONG)  # fmt: skip
_add("markers-in-stderr", (20,), "Neither is standard error.",
     returning("0", "import sys; print('OK', file=sys.stderr, flush=True)"), WRONG)  # fmt: skip
_add("reward-file", (22,), "Nobody reads files of a sandbox.", calling("""
    for name in ("/tmp/reward.txt", "/tmp/verdict.json", "/tmp/result.pkl"):
        open(name, "w").write("1.0")
    """), WRONG)  # fmt: skip
for _reward in (
    "float('nan')",
    "1.5",
    "float('inf')",
    "'passed'",
    "True",
    "{'passed': True, 'reward': 1.0}",
    "b'passed'",
):
    _add(
        f"reward-as-answer-{_reward}",
        (22,),
        "An answer is compared, never believed.",
        returning(_reward),
        WRONG,
    )
_PICKLE = "class P:\n    def __reduce__(self): return (__import__('os')._exit, (0,))\n    __reduce_ex__ = lambda s, p: s.__reduce__()"
_add("pickle-payload", (23,), "Answers are never pickled.", returning("P()", _PICKLE), WRONG)
_add("pickle-bytes", (23,), "Bytes that are a pickle stay bytes.",
     returning(r"b'cos\nsystem\n(S\'true\'\ntR.'"), WRONG)  # fmt: skip
_add("copyreg", (23,), "Neither are they copied.",
     returning("0", "import copyreg\ncopyreg.pickle(int, lambda i: (int, (1,)))"), WRONG)  # fmt: skip
_add(
    "code-object",
    (23,),
    "marshal can write code objects; they are opaque.",
    returning("solve.__code__"),
    WRONG,
)

# 25-27: values that change.
_LAZY = """
class Lazy(list):
    reads = 0
    def __iter__(self): Lazy.reads += 1; return iter([Lazy.reads])
    def __len__(self): Lazy.reads += 1; return Lazy.reads
    def __getitem__(self, key): Lazy.reads += 1; return Lazy.reads
"""
_add(
    "lazy-list", (25,), "A list that changes with every read.", returning("Lazy()", _LAZY), WRONG, task="list"
)
_add("lazy-generator", (25,), "A generator that counts its readers.",
     returning("(n for n in iter(int, 1) if n)[:0] if 0 else (x for x in [1])"), WRONG, task="list")  # fmt: skip
for _task, _clear, _answer in (
    ("root", "arguments[0].clear()", "0"), ("root", "arguments[0][:] = [0]", "5"), ("root", "arguments[0][:] = [0.0] * 9", "1.5"),
    ("list", "arguments[0].clear()", "arguments[0]"), ("set", "arguments[0].clear()", "arguments[0]"),
    ("dict", "arguments[0].clear()", "{}"),
):  # fmt: skip
    _add(f"mutates-argument-{_task}-{_clear}", (26,), "The oracle keeps inputs of its own.",
         f"def solve(*arguments):\n    {_clear}\n    return {_answer}\n", WRONG, task=_task)  # fmt: skip
_add("mutating-thread", (27,), "A thread that changes the answer after the return.", """
    import threading
    box = []
    def change():
        while True:
            box[:] = [99]; box[:] = [1, 2]
    threading.Thread(target=change, daemon=True).start()
    def solve(*arguments):
        return box
    """, *HARMLESS, TIME, task="list")  # fmt: skip
_add("overwrites-own-frames", (11, 17), "Replaces the loop that calls it.", calling("""
    import gc, sys, types
    for found in gc.get_objects():
        if isinstance(found, types.FunctionType) and found.__name__ in ("answer_all", "encode_bounded", "encode", "send"):
            found.__code__ = (lambda *a, **k: True).__code__
    """), *HARMLESS, VIOLATION)  # fmt: skip
