"""Reach into the interpreter and the runner's half of the process (items 7-12, 19-21, 25-27, 40, 68, 86-88)."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from textwrap import indent

from attack_programs.frames import TOOLS
from attack_programs.model import (
    HARMLESS,
    MEMORY,
    OUTPUT,
    TIME,
    VIOLATION,
    WRONG,
    Collection,
    calling,
    returning,
)

ATTACKS = Collection()
_add = ATTACKS.add
_ANY = (*HARMLESS, VIOLATION, TIME)

# The channel, by every other way than os.write in the call.
_WAYS = {
    "ctypes-write": "import ctypes; data = value(1); ctypes.CDLL(None).write(3, data, len(data))",
    "writev": "os.writev(3, [value(1)[:5], value(1)[5:]])",
    "sendfile": "f = os.open('x', os.O_CREAT | os.O_RDWR); os.write(f, value(1)); os.sendfile(3, f, 0, 99)",
    "file-object": "open(3, 'wb', buffering=0, closefd=False).write(value(1))",
    "duplicate": "n = os.dup(3); os.close(3); os.write(n, value(1)); os.dup2(n, 3)",
    "pipe-in-the-middle": "keep = os.dup(3); reader, writer = os.pipe(); os.dup2(writer, 3); threading.Thread(target=lambda: [os.write(keep, os.read(reader, 65536).replace(b'wrong', b'right')) for _ in iter(int, 1)], daemon=True).start(); time.sleep(0.01)",
    "packet-mode": "import fcntl; fcntl.fcntl(3, fcntl.F_SETFL, os.O_DIRECT); [os.write(3, bytes([b])) for b in value(1)]",
    "asynchronous": "import fcntl, signal; signal.signal(signal.SIGIO, lambda *a: os.write(3, value(1))); fcntl.fcntl(3, fcntl.F_SETOWN, os.getpid()); fcntl.fcntl(3, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)",
    "smallest-pipe": "import fcntl; fcntl.fcntl(3, 1031, 4096); threading.Thread(target=lambda: [os.write(3, b'') for _ in range(10**6)], daemon=True).start()",
    "destructor": "box = type('D', (), {'__del__': lambda s: say(value(1))}); x = [box(), box()]; del x",
    "destructor-of-frame": "import sys\ndef leave():\n    box = type('D', (), {'__del__': lambda s: say(value(1))})(); 1 / 0\ntry: leave()\nexcept ZeroDivisionError: pass",
    "weakref": "import weakref; t = type('T', (), {})(); weakref.finalize(t, say, value(1)); del t",
    "signal-handler": "import signal; signal.signal(signal.SIGALRM, lambda *a: say(value(1))); signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4); time.sleep(0.05)",
    "timer-thread": "threading.Timer(0, say, [value(1)]).start(); time.sleep(0.05)",
    "trace": "import sys; sys.settrace(lambda *a: say(value(1))); (lambda: 0)()",
    "profile": "import sys; sys.setprofile(lambda *a: say(value(1)))",
    "audit-hook": "import sys; sys.addaudithook(lambda *a: os.write(3, value(1)))",
    "gc-callback": "import gc; gc.callbacks.append(lambda *a: say(value(1))); gc.collect()",
    "end-of-both": "say(value(1), frame('Z'), frame('T'), frame('S'), frame('L')); os._exit(0)",
    "started-again": "say(frame('S'))",
    "timed-out": "say(frame('T')); os._exit(0)",
    "read-it-back": "os.read(3, 1)",
}  # fmt: skip
for _name, _statements in _WAYS.items():
    _add(f"channel-by-{_name}", (19, 20, 21, 24, 63), "However it is written: frames are only answers, and guessed ones wrong.",
         calling(_statements, TOOLS), *_ANY)  # fmt: skip
_add("channel-in-exit", (19, 63), "Nothing is read after the end.", calling("""
    import atexit, sys, threading
    atexit.register(say, value(1), frame('Z')); threading._register_atexit(say, value(1))
    sys.exitfunc = sys.__stdout__.flush = None
    class Last:
        def __del__(self): say(value(1))
    sys.modules["last"] = Last(); sys.last = Last()
    """, TOOLS), *_ANY)  # fmt: skip
_add("exit-that-returns", (2, 11, 68), "Where the process ends, it goes on into code of the zygote, in its own confinement.", """
    import os
    os._exit = lambda status: None
    def solve(*arguments):
        return "wrong"
    """, *HARMLESS)  # fmt: skip
_add("exit-that-answers", (2, 11), "The same with an answer.", TOOLS + """
def late(status):
    say(value(1), frame('Z'))
    while True: time.sleep(1)
os._exit = late
def solve(*arguments): return "wrong"
""", *_ANY)  # fmt: skip
_add("exit-that-returns-stdio", (2, 11), "The same of a whole program.", "import os; os._exit = lambda status: None; print(7)", *_ANY,
     task="stdio")  # fmt: skip

# What calls the program is Python, and so are its frames.
_FRAME = """
import ctypes, gc, sys, types
def runner_frames():
    frame = sys._getframe()
    while frame:
        if "runner" in frame.f_globals.get("__name__", ""): yield frame
        frame = frame.f_back
def put(frame, **values):
    frame.f_locals.update(values)
    ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
"""
for _name, _values in {
    "skip-to-end": "position=1 << 30", "end-now": "end=0", "no-limit": "limit_s=1e9, own_limits_s={}", "times": "times=[0.0] * 99",
    "longest": "longest=1 << 62", "index": "index=99", "write": "write=lambda fd, data: len(data)", "result": "result=128486",
    "header": "header=lambda n, kind: b''", "clock": "clock=lambda: -1e9", "entry": "entry_point=lambda *a: a[0]", "view": "view=memoryview(bytes(99))",
}.items():  # fmt: skip
    _add(f"runner-local-{_name}", (11, 17, 40), "The loop that calls the program is the program's to spoil, and holds no answer.",
         calling(f"for frame in runner_frames():\n    if 'entry_point' in frame.f_locals: put(frame, {_values})", _FRAME), *_ANY)  # fmt: skip
_PATCHES = {
    "encode-code": "for f in runner_functions():\n    if f.__name__ in ('encode', 'encode_bounded', '_encode_whole', '_marshalled'): f.__code__ = (lambda *a: b'T').__code__",
    "defaults": "for f in runner_functions(): f.__defaults__ = f.__defaults__ and tuple(lambda *a: 0 for _ in f.__defaults__)",
    "globals": "for f in runner_functions(): f.__globals__.clear()",
    "builtins-of-encoder": "for f in runner_functions():\n    b = f.__globals__.get('__builtins__')\n    if type(b) is dict: b.update(type=lambda *a: int, len=lambda *a: 0)",
    "wire": "import sys\nfor m in list(sys.modules.values()):\n        if getattr(m, '__name__', '').endswith('runner.wire'): m.FINISHED = m.LOADED = m.VALUE = ord('V'); m.ANSWER_FD = 1",
    "own-kinds": "for f in runner_functions():\n    for name in ('_SCALARS', '_PLAIN', '_CONTAINERS', '_ITERATORS'):\n        if name in f.__globals__: f.__globals__[name] = type('All', (), {'__contains__': lambda s, o: True, '__le__': lambda s, o: True, '__rand__': lambda s, o: set(), '__ge__': lambda s, o: True})()",
    "modules-gone": "import sys; sys.modules.clear()",
    "types-swapped": "import sys, types, collections; sys.modules['fractions'] = types.SimpleNamespace(Fraction=Fake); sys.modules['numpy'] = types.SimpleNamespace(ndarray=Fake, generic=object)",
}  # fmt: skip
_FAKE = (
    _FRAME
    + """
def runner_functions():
    return [f for f in gc.get_objects() if isinstance(f, types.FunctionType) and "runner" in (f.__module__ or "")]
class Fake:
    numerator = denominator = 1; shape = (); dtype = property(lambda s: types.SimpleNamespace(str="<i8"))
    def tolist(self): return 1
    def __eq__(self, other): return True
    __hash__ = None
"""
)
for _name, _patch in _PATCHES.items():
    for _task in ("int", "float", "set"):
        _add(f"runner-patched-{_name}-{_task}", (9, 10, 11, 68), "Whatever the encoder is made to say, it is data, and compared elsewhere.",
             f"{_FAKE}\ngc.unfreeze()\ndef spoil():\n{indent(_patch, '    ')}\nspoil()\ndef solve(*arguments):\n    return Fake()\n", *_ANY, task=_task)  # fmt: skip

# Types whose slots, layout or reference counts are overwritten in memory.
_MEMORY = {
    "type-of-answer": "x = object.__new__(Odd); ctypes.c_void_p.from_address(id(x) + 8).value = id(int); return x",
    "list-length": "x = [1, 2]; ctypes.c_ssize_t.from_address(id(x) + 16).value = 1 << 40; return x",
    "negative-length": "x = [1]; ctypes.c_ssize_t.from_address(id(x) + 16).value = -5; return x",
    "tuple-in-itself": "x = ([],); ctypes.c_void_p.from_address(id(x) + 24).value = id(x); return x",
    "bytes-length": "x = b'x' * 9; ctypes.c_ssize_t.from_address(id(x) + 16).value = 1 << 30; return x",
    "int-digits": "x = 1 << 100; ctypes.c_ssize_t.from_address(id(x) + 16).value = 1 << 33; return x",
    "int-not-normal": "x = 1 << 100; ctypes.memset(id(x) + 24, 255, 16); return x",
    "str-kind": "x = 'abcdefgh'; ctypes.memset(id(x) + 32, 255, 4); return x",
    "none-freed": "ctypes.c_ssize_t.from_address(id(None)).value = 1; return None",
    "true-is-false": "ctypes.memmove(id(False) + 16, id(True) + 16, 16); return False",
    "type-flags": "ctypes.memset(id(Odd) + 168, 255, 8); return Odd()",
    "marshal-method": "import marshal; m = ctypes.c_void_p.from_address(id(marshal.dumps) + 16).value; ctypes.memmove(m + 8, id(len), 8); return 0",
    "heap-scribble": "import random\nfor n in range(1000): ctypes.memset(id(Odd) + random.randrange(1 << 16), n & 255, 8)",
    "stack-scribble": "ctypes.memset(ctypes.addressof(ctypes.c_long()) & ~0xfff, 0, 1 << 16)",
    "gil-released": "import threading, time; threading.Thread(target=time.sleep, args=[5]).start(); ctypes.pythonapi.PyEval_SaveThread()",
    "finalise": "ctypes.pythonapi.Py_FinalizeEx()",
    "abort": "ctypes.CDLL(None).abort()",
    "longjmp": "ctypes.CDLL(None).longjmp(ctypes.create_string_buffer(400), 1)",
    "new-interpreter": "ctypes.pythonapi.Py_NewInterpreter(); return 0",
}  # fmt: skip
for _name, _statements in _MEMORY.items():
    _add(f"memory-{_name}", (7, 49, 68, 88), "A process that overwrites its own memory crashes, or answers nonsense.",
         calling(_statements, "import ctypes\nclass Odd: pass"), *_ANY, MEMORY, OUTPUT)  # fmt: skip

# Answers that the encoder meets in the middle of a change, or in a costume.
_NUMPY = "import numpy\n"
for _name, _expression, _task in (
    ("masked", "numpy.ma.masked_array([1.0], [True])", "float"), ("masked-constant", "numpy.ma.masked", "float"),
    ("matrix", "numpy.matrix([[0.0]])", "float"), ("memmap-like", "numpy.rec.array([(1,)])", "int"), ("void", "numpy.void(b'x')", "int"),
    ("nan-payload", "numpy.frombuffer(b'\\x01\\0\\0\\0\\0\\0\\xf8\\x7f', 'f8')[0]", "float"), ("half-nan", "numpy.float16('nan')", "close"),
    ("datetime64", "numpy.datetime64('NaT')", "float"), ("long-double", "numpy.longdouble(1) / 3", "float"), ("object-zero", "numpy.array(None)", "int"),
    ("object-nested", "numpy.array([[None, []], [{}, ()]], dtype=object)", "list"), ("zero-size", "numpy.zeros((0, 3))", "long_float"),
    ("broadcast", "numpy.broadcast_to(numpy.float64(4.75), (1000, 1000, 9))", "float"), ("strided", "numpy.zeros(9)[::-2]", "list"),
    ("dtype", "numpy.dtype('f8')", "float"), ("ufunc", "numpy.equal", "bool"), ("string-array", "numpy.array(['x'])", "text"),
    ("byte-order", "numpy.array([1.0], '>f8')", "float"), ("negative-zero", "numpy.float64(-0.0)", "root"), ("poly", "numpy.poly1d([0])", "root"),
):  # fmt: skip
    _add(f"numpy-{_name}-{_task}", (8, 89), "An array is its items and its shape, or opaque.", returning(_expression, _NUMPY), WRONG, MEMORY, task=_task)  # fmt: skip
_BUFFERS = {
    "memoryview": "memoryview(b'x')", "array": "__import__('array').array('i', [1])", "mmap": "__import__('mmap').mmap(-1, 9)",
    "ctypes-array": "(__import__('ctypes').c_int * 3)(1, 2, 3)", "ctypes-int": "__import__('ctypes').c_int(128486)", "bytesio": "__import__('io').BytesIO(b'x').getbuffer()",
    "code": "solve.__code__", "stop-iteration": "StopIteration", "released": "RELEASED", "bytes-subclass": "type('B', (bytes,), {})(b'x')", "mapping-proxy": "type.__dict__",
    "chain-map": "__import__('collections').ChainMap({1: 1})", "not-implemented": "NotImplemented", "ellipsis": "...", "slice": "slice(1)", "generic-alias": "list[int]",
    "simple-namespace": "__import__('types').SimpleNamespace(a=1)", "path": "__import__('pathlib').Path('x')", "uuid": "__import__('uuid').UUID(int=1)", "frame": "__import__('sys')._getframe()",
    "exception": "ValueError(128486)", "weak-set": "__import__('weakref').WeakSet()", "struct-sequence": "__import__('os').stat('/')", "thread-lock": "__import__('_thread').allocate_lock()",
}  # fmt: skip
for _name, _expression in _BUFFERS.items():
    _add(f"costume-{_name}", (7, 23, 91), "What is no plain data is opaque.",
         returning(_expression, "RELEASED = memoryview(b'x'); RELEASED.release()"), WRONG)  # fmt: skip
_add("iterator-that-writes", (19, 25, 65), "An iterator's own code runs while it is read, and may write: out of place.", TOOLS + """
def solve(*arguments):
    yield 1
    say(value(1))
    yield 2
""", *_ANY)  # fmt: skip
_add("iterator-that-changes-its-container", (25, 87), "The container is read as it is when its turn comes.", """
    def solve(*arguments):
        box = []
        def change():
            for n in range(100):
                box.append(n); yield n
        box.append(change())
        return box
    """, WRONG, MEMORY, TIME)  # fmt: skip
_add("iterator-of-itself", (25, 65, 87), "It is exhausted, or running already.", """
    def solve(*arguments):
        def inside(): yield made
        made = inside()
        return made
    """, WRONG)  # fmt: skip
_add("chained-iterators", (65, 86), "An iterator within each item, and so on.", """
    def solve(*arguments):
        return iter([solve()])
    """, *HARMLESS, MEMORY)  # fmt: skip
_add("dict-changed-by-threads", (25, 27), "A dict that others change while it is written.", """
    import sys, threading
    sys.setswitchinterval(1e-6)
    box = {n: object() for n in range(50)}
    def change():
        while True:
            for n in range(50): box.pop(n, None); box[n] = [n]
    for _ in range(3): threading.Thread(target=change, daemon=True).start()
    def solve(*arguments): return [box] * 20
    """, *HARMLESS, TIME)  # fmt: skip
_add("million-deep", (86,), "A million levels.", returning("__import__('functools').reduce(lambda v, _: [v], range(10**6), 0)"), *_ANY, MEMORY, task="list")  # fmt: skip
_add("million-deep-generators", (65, 86), "A million generators within generators.", """
    def solve(*arguments):
        value = 0
        for _ in range(200000): value = iter((value,))
        return value
    """, *_ANY, MEMORY, task="list")  # fmt: skip
_add("deep-drop", (49, 86), "Taken apart again, by its destructor.", calling("""
    class Link:
        def __init__(self, next): self.next = next
    head = None
    for _ in range(10**6 // 4): head = Link(head)
    del head
    """), *_ANY, MEMORY)  # fmt: skip
for _name, _answer in {
    "items-with-dicts": "{1: {}, 2: []}.items()", "items-in-keys": "{k: 1 for k in [(1, ())]}.items()", "keys": "{(1, 2): 1}.keys()",
    "counter-of-lists": "__import__('collections').Counter({1: []})", "ordered": "__import__('collections').OrderedDict({1: {}})",
    "huge-key": "{10**5000: 1}", "huge-negative-key": "{-10**5000: 1, 10.0**300: 2}", "decimal-snan-key": "{__import__('decimal').Decimal('1e4096'): 1}",
    "decimals-and-huge-int": "[9 + (P << 200000), *[D(9 + P * k) for k in range(1, 400)]]", "decimals-and-huge-int-set": "frozenset([9 + (P << 30000), *[D(9 + P * k) for k in range(1, 40)]])",
    "fractions-with-one-hash": "[F(9 + P * ((1 << 3000) + k)) for k in range(300)]", "fractions-and-decimals": "[(F, D)[k % 2](9 + P * ((1 << 3000) + k)) for k in range(300)]",
}.items():  # fmt: skip
    for _task in ("set", "dict", "list"):
        _add(f"incomparable-{_name}-{_task}", (6, 88, 92, 93), "What cannot be compared is not equal, and what only slowly can is refused.",
             returning(_answer, "from decimal import Decimal as D\nfrom fractions import Fraction as F\nP = (1 << 61) - 1"), WRONG, task=_task)  # fmt: skip
