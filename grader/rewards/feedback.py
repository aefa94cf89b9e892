"""What a model may be told of its program, so that it can mend it.

Never in it: an expected value, the source of a test, or an input of a group that the caller did not call visible. A
program can put what it is asked, or what a test asks of its answer, into an exception's message or the name of its
type: these are told of visible groups only, and where it cannot have run, as its text is not valid Python.
"""

from __future__ import annotations

import builtins
from collections.abc import Collection, Mapping
from reprlib import Repr
from typing import Any

from grader.extraction.syntax import parse_source
from grader.rewards.model import Context, VerdictFields
from grader.status import Status
from grader.suites.task import FunctionTests, StdioTests

_LINE_CHARACTERS = 200
_INPUT_CHARACTERS = 500
_BUILTIN_EXCEPTIONS = frozenset(
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
)

_SENTENCES: Mapping[Status, str] = {
    Status.PASSED: "The program passed all tests.",
    Status.WRONG_ANSWER: "The program ran, and gave a wrong answer.",
    Status.RUNTIME_ERROR: "The program failed with an error while it ran.",
    Status.COMPILE_ERROR: "The program is not valid Python.",
    Status.TIME_LIMIT: "The program took too long and was stopped.",
    Status.MEMORY_LIMIT: "The program used too much memory and was stopped.",
    Status.OUTPUT_LIMIT: "The program printed or returned too much and was stopped.",
    Status.SECURITY_VIOLATION: "The program did something that is not allowed and was stopped.",
    Status.NO_CODE: "There is no Python code in the response.",
    Status.INFRASTRUCTURE_ERROR: "The program could not be judged; this says nothing about it.",
}


def feedback_text(verdict: VerdictFields, context: Context, visible_groups: Collection[str] = ()) -> str:
    """Return a few short lines: what became of the program, its error with the line, and where it first failed.

    ``visible_groups`` names the test groups whose inputs the model may see; of the others not even the number of the
    failing test is told, and of an exception its line, and its type where that is a builtin one.
    """
    status = Status(verdict["status"])
    lines = [_SENTENCES[status]]
    if status in (Status.PASSED, Status.NO_CODE, Status.INFRASTRUCTURE_ERROR):
        return lines[0]
    if verdict["error"]:
        # A program can claim to be invalid once it has read its input.
        invalid = status is Status.COMPILE_ERROR and parse_source(context.source).tree is None
        whole = invalid or _failing_group(verdict) in visible_groups
        lines += _error_lines(verdict["error"], context.source, whole=whole)
    lines += _failing_test(verdict, context, visible_groups)
    return "\n".join(lines)


def _failing_group(verdict: VerdictFields) -> str | None:
    failing = (
        name for name, group in verdict["groups"].items() if group and group["first_failed"] is not None
    )
    return next(failing, None)


def _error_lines(error: Mapping[str, Any], source: str, *, whole: bool) -> list[str]:
    """``whole``: with the message and the type, whatever they are."""
    kind = _printable(error["type"], 100)
    message = _printable(error["message"], _LINE_CHARACTERS) if whole else ""
    lines = [f"{kind}: {message}" if message else kind] if whole or kind in _BUILTIN_EXCEPTIONS else []
    number, program = error["line"], source.splitlines()
    if number is not None and 1 <= number <= len(program):
        lines.append(f"Line {number}: {_printable(program[number - 1].strip(), _LINE_CHARACTERS)}")
    return lines


def _failing_test(verdict: VerdictFields, context: Context, visible: Collection[str]) -> list[str]:
    name = _failing_group(verdict)
    if name is None or name not in visible:
        return []
    group = verdict["groups"][name]
    index = group["first_failed"]
    shown = _input_of(context, name, index)
    told = f"Test {index + 1} of {group['total']} failed."
    return [told, shown] if shown else [told]


def _input_of(context: Context, group_name: str, index: int) -> str:
    """Show the input of a test, shortened; "" where there is none that could be shown without the test itself."""
    task = context.task
    tests = next((group.tests for group in task.groups if group.name == group_name), None) if task else None
    if isinstance(tests, FunctionTests):
        inputs = tests.inputs()
        if task is not None and index < len(inputs):
            arguments = ", ".join(map(_short_repr().repr, inputs[index]))
            return f"It called {task.entry_point}({_printable(arguments, _INPUT_CHARACTERS)})."
    if isinstance(tests, StdioTests) and index < len(tests.tests):
        stdin = tests.tests[index].stdin
        shown = stdin if len(stdin) <= _INPUT_CHARACTERS else stdin[:_INPUT_CHARACTERS] + " ..."
        return f"Its input was:\n{_without_controls(shown)}"
    return ""


def _short_repr() -> Repr:
    short = Repr()
    short.maxlist = short.maxtuple = short.maxset = short.maxfrozenset = short.maxdict = 20
    short.maxstring = short.maxother = short.maxlong = 100
    return short


def _printable(text: str, limit: int) -> str:
    """One line without characters that could steer a terminal or a log."""
    one_line = "".join(letter if letter.isprintable() else " " for letter in text[: limit + 1])
    return one_line if len(one_line) <= limit else one_line[:limit] + " ..."


def _without_controls(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in text)
