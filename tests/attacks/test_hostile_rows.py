"""Rows whose tests, reference or program is hostile: whoever brings tests along can be, too.

No row takes from others what they use, and no program passes by what it does to its tests' control flow, or makes its
own tests look broken: that would be no verdict instead of a bad one.
"""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attack_backends import Backend
from attack_programs.frames import TOOLS
from attack_programs.model import PASSED, RUNTIME, TIME, WRONG

from grader.dispatch.blocking import BlockingEngine
from grader.engines.local import LocalPool
from grader.status import Status
from grader.suites.inline import InlineTasks
from grader.worker.program import Program

pytestmark = pytest.mark.parametrize("backend", ["namespaces"], indirect=True, scope="session")

BROKEN = Status.INFRASTRUCTURE_ERROR
RIGHT = "def solve(n): return n * 7 + 3\n"
STOP = "def solve(n): raise StopIteration\n"
EXIT = "import os\ndef solve(n): os._exit(0)\n"
NODE = "class Node:\n    def __init__(self, value=0): self.value = value\n"


@dataclass(frozen=True)
class Row:
    """A row, a program, and what its verdict must be."""

    name: str
    tests: Any
    program: str
    statuses: tuple[Status, ...]
    error: str | None = None


def asserting(*tests: str, setup: str = "", reference: str = "") -> dict[str, object]:
    return {
        "kind": "assertions",
        "entry_point": "solve",
        "tests": list(tests),
        "setup": setup,
        "reference": reference,
    }


def expecting(kind: str) -> dict[str, object]:
    return asserting(f"try:\n    solve(3)\nexcept {kind}:\n    pass\nelse:\n    raise AssertionError")


def calling_reference(reference: str) -> dict[str, object]:
    return {"kind": "function", "entry_point": "solve", "inputs": [[1], [2]], "reference": reference}


def forging_reference(frames: str) -> dict[str, object]:
    """A reference that writes its answers itself."""
    return calling_reference(f"{TOOLS}\nsay(frame('L'), {frames})\nos._exit(0)\ndef solve(n): return 1\n")


ALL_MAPPED = asserting("assert all(map(lambda n: solve(n) == n * 7 + 3, [3, 5]))")
ZIPPED = asserting("for got, want in zip(map(solve, [3, 5]), [24, 38]): assert got == want")
NAMED = asserting("try:\n    solve(3)\nexcept StopIteration:\n    pass\nelse:\n    raise AssertionError")
SWALLOWED = asserting("try:\n    solve(3)\nexcept BaseException:\n    pass\nelse:\n    raise AssertionError")
INHERITS = asserting(
    "assert solve(3) == 24",
    setup="class Leaf(Node): pass",
    reference=NODE + RIGHT,
)
ANNOTATED = asserting(
    "assert solve(made(3).value) == 24",
    setup="def made(value) -> Node | None:\n    return Node(value)",
    reference=NODE + RIGHT,
)
JUDGED = asserting(
    "assert Judge().accepts(3, solve(Case(3)))",
    reference="class Judge:\n    def accepts(self, n, x): return x == n * 7 + 3\n"
    "class Case:\n    def __init__(self, n): self.n = n\ndef solve(case): return case.n * 7 + 3\n",
)
YIELDS = "class Judge:\n    def accepts(self, n, x): return True\nclass Case:\n    n = 3\n"
BY_JSON = {"inputs": [[1], [2]], "outputs": [{"1": 2}, {"2": 3}], "fn_name": "solve"}
A_SET = calling_reference("def solve(n): return {(n, 1), (n, 2)}")
A_GUESS = "def solve(n): return 1\n"
THREADED = asserting(
    "assert solve(3) == 24",
    setup="from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(12) as pool:\n"
    "    assert sum(pool.map(lambda n: __import__('time').sleep(0.05) or n, range(12))) == 66",
)
STARVES = """
import threading, time
for _ in range(64):
    try:
        threading.Thread(target=time.sleep, args=[99], daemon=True).start()
    except RuntimeError:
        break
"""

ROWS = [
    # What a program raises may not end the tests' own loops.
    Row("all-map", ALL_MAPPED, RIGHT, (PASSED,)),
    Row("all-map-stopped", ALL_MAPPED, STOP, (RUNTIME,)),
    Row("zip-map", ZIPPED, RIGHT, (PASSED,)),
    Row("zip-map-stopped", ZIPPED, STOP, (RUNTIME,)),
    Row("zip-map-stopped-async", ZIPPED, STOP.replace("Stop", "StopAsync"), (RUNTIME,)),
    Row("named-stop", NAMED, STOP, (PASSED,)),
    Row("swallowed-exit", SWALLOWED, EXIT, (RUNTIME,)),
    Row("swallowed-exception", SWALLOWED, "def solve(n): raise ValueError\n", (PASSED,)),
    # What a program raises is what it is, whatever it is called.
    *[Row(f"expects-runtime-{name}", expecting("RuntimeError"), f"def solve(n): {body}\n", (RUNTIME, WRONG)) for name, body in {
        "custom": "raise type('Odd', (Exception,), {})", "named-so": "raise type('RuntimeError', (Exception,), {})", "exit": "raise SystemExit(0)",
        "unicode": "b'\\xff'.decode()", "stop": "raise StopIteration", "closed": "raise GeneratorExit", "interrupt": "raise KeyboardInterrupt",
        "group": "raise ExceptionGroup('x', [RuntimeError()])", "odd-name": "raise type('a\\0b', (Exception,), {})",
    }.items()],
    Row("expects-value-named-so", expecting("ValueError"), "class ValueError(Exception): pass\ndef solve(n): raise ValueError\n", (RUNTIME,)),
    Row("expects-type-group", expecting("TypeError"), "def solve(n): raise ExceptionGroup('x', [ValueError()])\n", (RUNTIME,)),
    *[Row(f"raises-{name}", expecting(kind), f"def solve(n): {body}\n", (PASSED,)) for name, kind, body in (
        ("json", "ValueError", "__import__('json').loads('x')"), ("subclass", "ValueError", "raise type('Mine', (ValueError,), {})"),
        ("two", "KeyError", "raise type('Mine', (ValueError, KeyError), {})"), ("unicode", "UnicodeDecodeError", "b'\\xff'.decode()"),
        ("exit", "SystemExit", "raise SystemExit(0)"), ("group", "ExceptionGroup", "raise ExceptionGroup('x', [ValueError()])"),
        ("memory", "MemoryError", "raise MemoryError"), ("hidden-stop", "Exception", "raise StopIteration"),
    )],
    # An array is as true as numpy says.
    Row("array-of-false", asserting("assert solve(3)"), "import numpy\ndef solve(n): return numpy.array([False])\n", (WRONG,)),
    Row("array-of-none", asserting("assert solve(3)"), "import numpy\ndef solve(n): return numpy.array([])\n", (WRONG,)),
    Row("array-of-two", asserting("assert solve(3) != [1, 2]"), "import numpy\ndef solve(n): return numpy.array([3, 4])\n", (WRONG,)),
    Row("array-of-true", asserting("assert solve(3) == 24"), "import numpy\ndef solve(n): return numpy.array([24])\n", (PASSED,)),
    # A class of the program in place of the tests' own.
    Row("judged-by-class", JUDGED, YIELDS + "def solve(case): return 0\n", (WRONG,)),
    Row("judged-by-class-honest", JUDGED, YIELDS + "def solve(case): return case.n * 7 + 3\n", (PASSED,)),
    Row("judged-by-class-unnamed", JUDGED, "def solve(case): return case.n * 7 + 3\n", (PASSED,)),
    Row("inherited-by-setup", INHERITS, NODE + "def solve(n): return 0\n", (WRONG,)),
    Row("inherited-by-setup-honest", INHERITS, NODE + RIGHT, (PASSED,)),
    Row("annotated-in-setup-honest", ANNOTATED, NODE + RIGHT, (PASSED,)),
    Row("hostile-class-in-setup", INHERITS, "class Node:\n    def __init_subclass__(c): 1 / 0\n" + "def solve(n): return 0\n", (WRONG, RUNTIME)),
    # Tests that would have the cell taken for lost, or the program for one that nobody started.
    Row("tests-exit-70", asserting("import os; os._exit(70)", "assert solve(3) == 24"), RIGHT, (RUNTIME,)),
    Row("tests-exit-71", asserting("import os; os._exit(71)", "assert solve(3) == 24"), RIGHT, (RUNTIME,)),
    Row("setup-exits-71", asserting("assert solve(3) == 24", setup="import os; os._exit(71)"), RIGHT, (RUNTIME,)),
    Row("tests-say-broken", asserting("import os; os.write(3, b'\\0\\0\\0\\0B')\nsolve(3)"), RIGHT, (Status.SECURITY_VIOLATION,)),
    Row("tests-kill", asserting("import os; os.kill(1, 9); os.kill(-1, 9)\nassert solve(3) == 24"), RIGHT, (WRONG, RUNTIME)),
    Row("tests-spin", asserting("while True: pass"), RIGHT, (TIME,)),
    # A program that holds what the setup needs breaks nobody's tests but its own.
    Row("setup-starved", THREADED, STARVES + A_GUESS, (RUNTIME,), "RuntimeError"),
    Row("setup-not-starved", THREADED, RIGHT, (PASSED,)),
    Row("setup-fails-by-itself", asserting("assert solve(3) == 24", setup="1 / 0"), STARVES + A_GUESS, (BROKEN,), "BrokenTests"),
    # References: the times they tell are others' limits, and their answers are read by the worker.
    Row("times-cut", forging_reference("value(1), value(1), frame('Z', b'xxx')"), A_GUESS, (BROKEN,), "BrokenTests"),
    Row("times-nan", forging_reference("value(1), value(1), frame('Z', struct.pack('<2d', float('nan'), 1.0))"), A_GUESS, (BROKEN,), "BrokenTests"),
    Row("times-negative", forging_reference("value(1), value(1), frame('Z', struct.pack('<2d', -1e300, 1.0))"), A_GUESS, (BROKEN,), "BrokenTests"),
    Row("times-huge", forging_reference("value(1), value(1), frame('Z', struct.pack('<2d', 1e300, 1e300))"), "def solve(n):\n    while True: pass\n", (TIME,)),
    Row("digest-cut", forging_reference("frame('D', b'x'), frame('D', b'x'), frame('Z', bytes(16))"), A_GUESS, (BROKEN,), "BrokenTests"),
    Row("digest-short", forging_reference("*[frame('D', bytes(40))] * 2, frame('Z', bytes(16))"), A_GUESS, (BROKEN,), "BrokenTests"),
    Row("strange-frames", forging_reference("*[frame('L')] * 2, frame('Z', bytes(16))"), A_GUESS, (BROKEN,), "BrokenTests"),
    Row("junk-answers", forging_reference("*[frame('V', b'junk')] * 2, frame('Z', bytes(16))"), A_GUESS, (WRONG, BROKEN)),
    Row("no-answers", calling_reference("import os; os._exit(0)"), A_GUESS, (BROKEN,), "BrokenTests"),
    # Answers that cannot be compared with the row's.
    Row("huge-key", BY_JSON, "def solve(n): return {10**5000: 1}\n", (WRONG,)),
    Row("items-for-a-set", A_SET, "def solve(n): return {n: [], 1.5: []}.items()\n", (WRONG,)),
    Row("decimals-beside-a-huge-int", A_SET, "from decimal import Decimal\ndef solve(n):\n    p = (1 << 61) - 1\n    return [9 + (p << 200000), *[Decimal(9 + p * k) for k in range(1, 300)]]\n", (WRONG,)),
]  # fmt: skip


@pytest.fixture(scope="module")
def rows(backend: Backend, attack_cache: Path) -> Iterator[tuple[BlockingEngine, dict[str, str]]]:
    """One engine with one worker for all rows, and each row's task."""
    tasks = InlineTasks()
    ids = {row.name: tasks.add(row.tests, row.name) for row in ROWS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADER_CACHE_DIR", str(attack_cache))
        pool = LocalPool(limits=backend.limits, workers=1, cells=backend.cells)
        with BlockingEngine(pool, tasks.suite, limits=backend.limits) as engine:
            yield engine, ids


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_hostile_row_hurts_nobody(row: Row, rows: tuple[BlockingEngine, dict[str, str]]) -> None:
    engine, ids = rows
    (worker,) = engine.pool.processes().values()
    (verdict,) = engine.grade([Program(ids[row.name], "hostile", row.program)])
    assert verdict["status"] in row.statuses, verdict["error"]
    assert verdict["attempts"] <= 1, "it cost the cell"
    if row.error is not None:
        assert verdict["error"]["type"] == row.error
    (honest,) = engine.grade([Program(ids["all-map"], "honest", RIGHT)])
    assert honest["passed"]
    assert list(engine.pool.processes().values()) == [worker]
