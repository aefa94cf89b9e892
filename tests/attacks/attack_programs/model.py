"""What an attack is, and the tasks that attacks are made on."""

from __future__ import annotations

import hashlib
import textwrap
from dataclasses import dataclass
from functools import partial

from grader.limits import MIB, Limits
from grader.status import Status
from grader.suites.task import (
    AssertionTests,
    Comparison,
    FunctionTests,
    StdioTest,
    StdioTests,
    Suite,
    Task,
    TestGroup,
)

PASSED = Status.PASSED
NO_CODE = Status.NO_CODE
WRONG = Status.WRONG_ANSWER
RUNTIME = Status.RUNTIME_ERROR
COMPILE = Status.COMPILE_ERROR
TIME = Status.TIME_LIMIT
MEMORY = Status.MEMORY_LIMIT
OUTPUT = Status.OUTPUT_LIMIT
VIOLATION = Status.SECURITY_VIOLATION
HARMLESS = (WRONG, RUNTIME)
"""For a program whose trick is refused: it goes on with a wrong answer, or stumbles over the refusal."""

LIMITS = Limits(
    time_floor_s=1.0,
    time_factor=1.0,
    group_time_s=4.0,
    idle_s=1.0,
    memory_bytes=256 * MIB,
    answer_bytes=16 * MIB,
    stdout_bytes=64 * 1024,
    threads=24,
    tmp_bytes=16 * MIB,
)
"""Small, so that the suite is quick. An honest program needs a thousandth of each."""


@dataclass(frozen=True)
class Attack:
    """One program. ``items`` are the catalogue's numbers, ``statuses`` those that the verdict may have."""

    name: str
    items: tuple[int, ...]
    why: str
    source: str
    statuses: tuple[Status, ...]
    task: str = "Attacked/int"
    steps: int = 2
    """How many steps (load, tests) may use their whole time limit before the sample must have ended."""


class Collection(list[Attack]):
    """The attacks of one section."""

    def add(
        self,
        name: str,
        items: tuple[int, ...],
        why: str,
        source: str,
        *statuses: Status,
        task: str = "int",
        steps: int = 2,
    ) -> None:
        """Add one; ``source`` may be indented."""
        self.append(Attack(name, items, why, textwrap.dedent(source), statuses, f"Attacked/{task}", steps))


def returning(expression: str, before: str = "") -> str:
    """A program whose entry point returns the expression whatever it is asked."""
    return f"{textwrap.dedent(before)}\ndef solve(*arguments):\n    return {expression}\n"


def calling(statements: str, before: str = "") -> str:
    """A program whose entry point runs the statements and, if they let it, returns a wrong answer."""
    body = textwrap.indent(textwrap.dedent(statements).strip(), "    ")
    return f"{textwrap.dedent(before)}\ndef solve(*arguments):\n{body}\n    return 'wrong'\n"


def syscall(number: int, *arguments: str) -> str:
    """A program that makes a system call through ctypes, in the entry point."""
    joined = ", ".join(f"ctypes.c_long({argument})" for argument in arguments)
    before = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)"
    return calling(f"libc.syscall(ctypes.c_long({number}), {joined})", before)


_SECRET = (
    'int.from_bytes(__import__("hashlib").sha256(b"the reference alone knows %d" % n).digest()[:7], "big")'
)

# Entry point's body, inputs, comparison. Expected values are made by running the reference in a cell.
_FUNCTIONS: dict[str, tuple[str, list[list[object]], Comparison]] = {
    "int": ("return arguments[0] * 7919 + 104729", [[n] for n in (3, -4, 11, 2, 5, 90)], Comparison("evalplus")),
    "float": ("return arguments[0] * 1.5 + 0.25", [[n + 0.5] for n in range(6)], Comparison("evalplus")),
    "close": ("return [arguments[0] * 1.5, 'x']", [[n + 0.5] for n in range(6)], Comparison("close", 1e-6)),
    "text": ("return arguments[0][::-1] + '!'", [["ab"], ["hello"], ["xyzzy"], ["q"]], Comparison("evalplus")),
    "list": ("return sorted(arguments[0]) + [99]", [[[3, 1, 2]], [[5]], [[9, 8]], [[4, 4]]], Comparison("evalplus")),
    "set": ("return {x * 2 for x in arguments[0]}", [[[3, 1, 2]], [[5]], [[9, 8]]], Comparison("set")),
    "dict": ("return {x: x * 2 for x in arguments[0]}", [[[3, 1, 2]], [[5]], [[9, 8]]], Comparison("exact")),
    "bool": ("return arguments[0] > 3", [[1], [5], [2], [9]], Comparison("exact")),
    "root": (
        "return -arguments[0][0] / arguments[0][1]",
        [[[3.0, 2.0]], [[8.0, -4.0]], [[9.0, 1.5]]],
        Comparison("polynomial_root", 1e-4),
    ),
    "long": ("return [n ^ 0x2a5a for n in range(arguments[0])]", [[n] for n in (20000, 30000, 40000)], Comparison()),
    "long_float": ("return [n / 7 for n in range(arguments[0])]", [[n] for n in (9000, 9500)], Comparison("evalplus")),
    "secret": (f"n = arguments[0]; return {_SECRET}", [[n] for n in (3, 4, 5, 6)], Comparison("evalplus")),
}  # fmt: skip


def secret(number: int) -> int:
    """What the task ``secret`` expects for an input."""
    digest = hashlib.sha256(b"the reference alone knows %d" % number).digest()
    return int.from_bytes(digest[:7], "big")


def _function_task(name: str) -> Task:
    body, inputs, comparison = _FUNCTIONS[name]
    half = (len(inputs) + 1) // 2
    groups = tuple(
        TestGroup(group, FunctionTests(partial(list, part)))
        for group, part in (("base", inputs[:half]), ("plus", inputs[half:]))
    )
    reference = f"def solve(*arguments):\n    {body}\n"
    return Task(f"Attacked/{name}", "", "solve", reference, groups, comparison)


def _other_tasks() -> list[Task]:
    stdio = StdioTests([StdioTest("3 4\n", "7\n"), StdioTest("10 -2\n", "8\n")])
    asserted = AssertionTests(["assert solve(3) == 24", "assert solve(5) == 38"])
    drawn = AssertionTests(
        ["for _ in range(9):\n    drawn = random.random()\n    assert solve(drawn / 2) == drawn"],
        "import random",
    )
    add = "print(sum(map(int, input().split())))\n"
    return [
        Task("Attacked/stdio", "", "", add, (TestGroup("base", stdio),)),
        Task("Attacked/asserted", "", "solve", "def solve(n):\n    return n * 7 + 3\n", (TestGroup("base", asserted),)),
        Task("Attacked/drawn", "", "solve", "def solve(n):\n    return n * 2\n", (TestGroup("base", drawn),)),
    ]  # fmt: skip


def suite() -> Suite:
    """The attacked tasks."""
    tasks = {task.task_id: task for task in [*map(_function_task, _FUNCTIONS), *_other_tasks()]}
    content = repr(
        [(task.task_id, task.reference, _FUNCTIONS.get(task.task_id[9:], "")) for task in tasks.values()]
    )
    return Suite("attacked", "1", hashlib.sha256(content.encode()).hexdigest(), tasks)
