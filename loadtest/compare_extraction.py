"""Compare our extraction with EvalPlus's sanitizer, on real solutions and on completions made from them.

    python loadtest/compare_extraction.py SAMPLES.jsonl.gz ... --data-dir DIR [--per-file 60]

Each solution is the program that was meant. From it completions of several forms are made; both sides
extract, and each result is held against the program that was meant:

- parses and defines the entry point;
- is the same program (``program_identity``), or the same core: the imports, and what the entry point reaches.

EvalPlus gets what its own command would give it: the completion, behind the prompt where the completion is
a body. It runs in a virtual environment that the script makes, unless ``--evalplus-python`` names an
interpreter that has it.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import process_time

from grader.extraction import extract, program_identity
from grader.extraction.syntax import (
    bindings,
    first_line,
    is_placeholder,
    loaded_names,
    parse_source,
    source_of,
    statement_names,
    without_docstring,
)

EVALPLUS = "evalplus==0.3.1"
SANITIZER = """
import json, sys, time
from evalplus.sanitize import sanitize
for line in sys.stdin:
    case = json.loads(line)
    before = time.process_time()
    try:
        source = sanitize(case["code"], case["entry_point"])
    except Exception as error:
        source = "raise RuntimeError(%r)" % f"sanitizer: {type(error).__name__}"
    print(json.dumps({"source": source, "cpu_s": time.process_time() - before}), flush=True)
"""
GREETING = "Sure! Here is a function that solves the task:\n\n"
REMARK = "\n\nIt walks over the input once. Let me know if you'd like more examples.\n"


@dataclass(frozen=True)
class Case:
    """One completion: what our side gets, what EvalPlus gets, and the program that was meant."""

    form: str
    sample_id: str
    prompt: str
    entry_point: str
    completion: str
    evalplus_code: str
    meant: str


def main() -> None:
    arguments = read_arguments()
    cases = list(all_cases(arguments))
    with tempfile.TemporaryDirectory() as scratch:
        python = arguments.evalplus_python or install_evalplus(Path(scratch))
        theirs = run_sanitizer(python, cases)
    before = process_time()
    ours = [extract(case.completion, prompt=case.prompt, entry_point=case.entry_point) for case in cases]
    our_cpu = process_time() - before
    their_cpu = sum(cpu for _, cpu in theirs)
    report(cases, [found.source for found in ours], [source for source, _ in theirs], arguments.examples)
    print(f"\nhow ours chose: {dict(Counter((c.form, e.how) for c, e in zip(cases, ours, strict=True)))}")
    print(f"CPU: ours {our_cpu:.2f} s, EvalPlus {their_cpu:.2f} s for {len(cases)} completions")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("samples", nargs="+", type=Path)
    parser.add_argument("--data-dir", type=Path, required=True, help="has HumanEvalPlus and MbppPlus")
    parser.add_argument("--per-file", type=int, default=60, help="solutions taken from a file, evenly spread")
    parser.add_argument("--examples", type=int, default=4, help="sample ids printed for each difference")
    parser.add_argument("--evalplus-python", help="an interpreter that has evalplus")
    return parser.parse_args()


def install_evalplus(scratch: Path) -> str:
    home = scratch / "evalplus"
    print("installing", EVALPLUS, file=sys.stderr)
    venv.create(home, with_pip=True)
    subprocess.run([home / "bin" / "pip", "install", "-q", EVALPLUS], check=True)
    return str(home / "bin" / "python")


def run_sanitizer(python: str, cases: list[Case]) -> list[tuple[str, float]]:
    lines = "".join(
        json.dumps({"code": case.evalplus_code, "entry_point": case.entry_point}) + "\n" for case in cases
    )
    done = subprocess.run([python, "-c", SANITIZER], input=lines, capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return [(result["source"], result["cpu_s"]) for result in results]


def read_jsonl(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def all_cases(arguments: argparse.Namespace) -> Iterator[Case]:
    tasks = {
        task["task_id"]: (task["prompt"], task["entry_point"])
        for name in ("HumanEvalPlus", "MbppPlus")
        for task in read_jsonl(arguments.data_dir / f"{name}.jsonl.gz")
    }
    for path in arguments.samples:
        samples = list(read_jsonl(path))
        step = max(len(samples) // arguments.per_file, 1)
        for sample in samples[::step][: arguments.per_file]:
            yield from cases_of(sample["sample_id"], sample["solution"], *tasks[sample["task_id"]])


def cases_of(sample_id: str, solution: str, prompt: str, entry_point: str) -> Iterator[Case]:
    def case(form: str, completion: str, *, after_prompt: bool = False, meant: str = solution) -> Case:
        code = prompt + "\n" + completion if after_prompt else completion
        return Case(form, sample_id, prompt, entry_point, completion, code, meant)

    yield case("solution as it is", solution)
    tree = parse_source(solution).tree
    known = bindings(tree) if tree is not None else {}
    if tree is None or entry_point not in known or is_placeholder(known[entry_point]):
        return
    fenced = f"```python\n{solution.rstrip()}\n```"
    yield case("fenced, in chat", GREETING + fenced + REMARK)
    usage = f"Example usage:\n\n```python\nprint({entry_point})\n```\n"
    yield case("fenced, then usage", GREETING + fenced + "\n\n" + usage)
    wrong = f"```python\ndef {entry_point}(*args):\n" + "    count = 0\n" * 80 + "    return None\n```\n\n"
    draft = wrong + "That is wrong. The correct version:\n\n"
    yield case("wrong draft first", draft + fenced + REMARK)
    thought = f"<think>\nMaybe this?\n{wrong}No.\n</think>\n\n"
    yield case("after <think>", thought + fenced)
    yield case("unclosed fence", GREETING + "```python\n" + solution)
    recursive = f"import sys\nsys.setrecursionlimit(10**6)\n{solution.rstrip()}\n"
    yield case("sets recursion limit", GREETING + f"```python\n{recursive}```" + REMARK, meant=recursive)
    yield case("no fence, in chat", GREETING + solution.rstrip() + REMARK)
    body = body_of(tree, solution, entry_point)
    if body is None or not prompt.rstrip().endswith(('"""', "'''")) or "def " + entry_point not in prompt:
        return
    meant = prompt + body
    if parse_source(meant).tree is None:
        return
    yield case("body", body, after_prompt=True, meant=meant)
    yield case("body, then prose", body + REMARK, after_prompt=True, meant=meant)
    yield case("body, first indent lost", body.lstrip(" "), after_prompt=True, meant=meant)
    yield case("body, one blank short", body.replace("    ", "   ", 1), after_prompt=True, meant=meant)
    flat = "\n".join(line.removeprefix("    ") for line in body.split("\n"))
    yield case("body, dedented", flat, after_prompt=True, meant=meant)
    yield case("body, fenced", f"```python\n{body.rstrip()}\n```", after_prompt=True, meant=meant)


def body_of(tree: ast.Module, solution: str, entry_point: str) -> str | None:
    """The lines of the entry point's body, where it is indented by four blanks and is whole lines."""
    function = bindings(tree)[entry_point]
    if not isinstance(function, ast.FunctionDef):
        return None
    body = without_docstring(function.body)
    if not body or body[0].col_offset != 4 or body[0].lineno == function.lineno:
        return None
    lines = solution.split("\n")
    return "\n".join(lines[body[0].lineno - 1 : function.end_lineno]) + "\n"


def core(source: str, entry_point: str) -> str | None:
    """Identity of the imports and of what the entry point reaches; None where it is not defined."""
    tree = parse_source(source).tree
    known = bindings(tree) if tree is not None else {}
    if tree is None or entry_point not in known:
        return None
    reached, pending = set(), [entry_point]
    while pending:
        name = pending.pop()
        if name in known and name not in reached:
            reached.add(name)
            pending.extend(loaded_names(known[name]))
    lines = source.split("\n")
    kept = [node for node in tree.body if statement_names(node) & reached and known_as_last(node, known)]
    return program_identity("".join(source_of(node, lines) for node in sorted(kept, key=first_line)))


def known_as_last(node: ast.stmt, known: dict[str, ast.stmt]) -> bool:
    """Whether the statement is the one that counts for a name it binds."""
    return any(known.get(name) is node for name in statement_names(node))


def report(cases: list[Case], ours: list[str], theirs: list[str], examples: int) -> None:
    counts: dict[str, Counter[str]] = {}
    shown: dict[tuple[str, str], list[str]] = {}
    for case, mine, other in zip(cases, ours, theirs, strict=True):
        count = counts.setdefault(case.form, Counter())
        wanted = core(case.meant, case.entry_point)
        count["cases"] += 1
        good = []
        for side, source in (("ours", mine), ("theirs", other)):
            found = core(source, case.entry_point)
            same = program_identity(source) == program_identity(case.meant)
            count[f"{side} defines"] += found is not None
            count[f"{side} same"] += same
            count[f"{side} core"] += same or (found is not None and found == wanted)
            good.append(same or (found is not None and found == wanted))
        if wanted is not None and good[0] != good[1]:
            side = "only ours" if good[0] else "only theirs"
            shown.setdefault((case.form, side), []).append(case.sample_id)
        count["differ"] += program_identity(mine) != program_identity(other)
    columns = [
        "cases",
        "ours defines",
        "theirs defines",
        "ours same",
        "theirs same",
        "ours core",
        "theirs core",
    ]
    columns.append("differ")
    print(f"{'form':26}" + "".join(f"{column:>15}" for column in columns))
    for form, count in counts.items():
        print(f"{form:26}" + "".join(f"{count[column]:>15}" for column in columns))
    for (form, which), ids in shown.items():
        print(f"{form}: right core in {which}: {len(ids)}, e.g. {', '.join(ids[:examples])}")


if __name__ == "__main__":
    main()
