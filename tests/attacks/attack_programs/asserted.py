"""Attacks on tasks whose tests are assertions: a driver process runs them and calls the candidate (items 1-27, 96)."""

# ruff: noqa: E501 - a program in one line reads better in a table than one in five
from __future__ import annotations

from attack_programs.forging import YES
from attack_programs.frames import TOOLS
from attack_programs.model import MEMORY, RUNTIME, TIME, VIOLATION, WRONG, Collection, calling, returning

ATTACKS = Collection()


def _add(name: str, items: tuple[int, ...], why: str, source: str, *statuses: object) -> None:
    ATTACKS.add(f"asserted-{name}", items, why, source, *statuses, task="asserted", steps=3)  # type: ignore[arg-type]


for _name, _expression in {
    "object": "Yes()", "class": "Yes", "subclass-of-int": "type('I', (int,), {'__eq__': lambda s, o: True, '__hash__': None})(7)",
    "list": "[Yes()]", "none": "None", "true": "True", "nan": "float('nan')", "the-function": "solve", "opaque-inside": "[Yes(), 24]",
    "forged-number": "{'\\x00object': 0}", "forged-large-number": "{'\\x00object': 10**9}", "forged-name": "{'\\x00builtin type': 'exit'}",
    "forged-instance": "{'\\x00instance of': 'Yes', '\\x00fields': {}}", "iterator": "iter([24])", "range": "range(10**18)",
    "deep": "__import__('functools').reduce(lambda v, _: [v], range(5000), 0)", "huge-int": "1 << 9_000_000",
}.items():  # fmt: skip
    _add(f"returns-{_name}", (3, 4, 7, 25), "The driver compares plain data, with none of the candidate's code.",
         returning(_expression, YES), WRONG, RUNTIME)  # fmt: skip
for _name, _statement in {
    "sys-exit": "import sys; sys.exit(0)", "os-exit": "import os; os._exit(0)", "assertion-error": "raise AssertionError",
    "stop-iteration": "raise StopIteration", "system-exit": "raise SystemExit(0)", "exception-group": "raise ExceptionGroup('x', [ValueError()])",
    "hostile-class": "raise type('AssertionError', (BaseException,), {'__str__': lambda s: 1 / 0})",
    "kill-group": "import os; os.kill(0, 9)", "close-pipes": "import os; os.closerange(3, 10); import time; time.sleep(99)",
}.items():  # fmt: skip
    _add(
        f"{_name}-in-call",
        (1, 2, 14, 78),
        "A test that did not get its answer has failed.",
        calling(_statement),
        RUNTIME,
        WRONG,
        TIME,
    )
    _add(f"{_name}-at-load", (1, 2, 14), "At load too.", _statement, RUNTIME, WRONG, TIME)
for _name, _statement in {
    "true": "say(value(True)); os._exit(0)", "true-for-all": "say(*[value(True)] * 4, frame('Z')); os._exit(0)",
    "loaded-again": "say(frame('L'))", "started-again": "say(frame('S'))", "finished": "say(frame('Z'))", "noise": "say(bytes(range(256)) * 9)",
    "partial": "say(b'\\x05'); time.sleep(99)", "oversized": "say(struct.pack('<IB', 0xffffffff, 86)); time.sleep(99)",
    "oversized-and-sent": "say(struct.pack('<IB', 0xffffffff, 86))\nwhile True: say(b'x' * 65536)",
    "flood": "chunk = value(1) * 5000\nwhile True: say(chunk)", "raised": "say(frame('X', marshal.dumps(('AssertionError', '', 1), 2)))",
    "raised-three": "say(frame('X', marshal.dumps(('E', '', 1), 2)))", "raised-not-a-class": "say(frame('X', marshal.dumps(('E', '', 1, ('exit', 'BaseException')), 2)))",
    "raised-long": "say(frame('X', marshal.dumps(('E' * (1 << 22), '', 1, ('Exception', 'BaseException')), 2)))",
    "raised-classes": "say(frame('X', marshal.dumps(('E', '', 1, ('OSError', 'SyntaxError', 'BaseException')), 2)))",
    "raised-junk": "say(frame('X', b'\\xff' * 9000))", "uncompilable": "say(frame('C', b''))",
    "driver-pipe": "os.write(5, b'x' * 100); os.write(6, b'x')",
}.items():  # fmt: skip
    _add(f"forges-{_name}", (19, 24, 96), "The candidate speaks with the driver only, and is believed in nothing but answers.",
         calling(_statement, TOOLS), WRONG, RUNTIME, TIME, VIOLATION, MEMORY)  # fmt: skip
_add("frames-at-load", (19, 24), "Written before the program has loaded.",
     TOOLS + "say(frame('L', marshal.dumps([], 2)), *[value(True)] * 4, frame('Z')); os._exit(0)", WRONG, RUNTIME)  # fmt: skip
_add("broken-tests-at-load", (19, 24), "The candidate may not say of the tests that they are at fault: it would go unjudged.",
     TOOLS + "say(frame('B', marshal.dumps(('NameError', 'the tests', 1), 2))); os._exit(0)", VIOLATION)  # fmt: skip
_add("shadows-helpers", (10, 11), "Its names are not the tests' names.",
     "import builtins\nassert_equal = check = abs = lambda *a: True\nbuiltins.all = lambda *a: True\ndef solve(n): return 0\n", WRONG)  # fmt: skip
_add("spins", (60,), "The clock of a test runs for both.", calling("while True: pass"), TIME)
_add("sleeps", (57,), "So does the idle one.", calling("import time; time.sleep(99)"), TIME)
_add(
    "hog",
    (44,),
    "Memory too.",
    calling("held = []\nwhile True: held.append(bytearray(b'x' * (1 << 20)))"),
    MEMORY,
    RUNTIME,
)
_add("reads-tests", (31, 32, 33), "No test source is in the candidate's process.", calling("""
    import gc
    for found in gc.get_objects():
        if type(found) is dict:
            for value in list(found.values()):
                assert not (type(value) is str and "assert" + " solve" in value)
    """), WRONG)  # fmt: skip
ATTACKS.add("draws-what-the-tests-draw", (15, 20), "Tests draw what they expect from a random state that no candidate has.",
            "import random\ndef solve(n):\n    return random.random()\n", WRONG, task="drawn")  # fmt: skip
