from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.rewards import Context, feedback_text
from grader.status import Status
from grader.suites.task import AssertionTests, FunctionTests, StdioTest, StdioTests, Task, TestGroup

SECRET = "expected-4711"
FUNCTION = FunctionTests(lambda: [["first"], [[1] * 1000, {"key": "x" * 5000}]], lambda: [SECRET, SECRET])
TASK = Task(
    "T/0", "", "f", f"def f(x): return '{SECRET}'", (TestGroup("base", FUNCTION), TestGroup("plus", FUNCTION))
)
STDIO = Task("T/1", "", "", "", (TestGroup("base", StdioTests((StdioTest("1 2\n\x1b[31m", SECRET),))),))
ASSERTIONS = Task("T/2", "", "f", "", (TestGroup("base", AssertionTests((f"assert f(1) == '{SECRET}'",))),))
SOURCE = "def f(x):\n    return x.undefined()\n"


def verdict(status, error=None, **first_failed):
    groups = {
        name: {"status": status, "passed": 0, "total": 2, "first_failed": first}
        for name, first in first_failed.items()
    }
    return {"status": status, "groups": groups, "error": error}


def test_an_error_is_told_with_its_line():
    error = {"type": "AttributeError", "message": "'int' object has no attribute 'undefined'", "line": 2}
    text = feedback_text(verdict("runtime_error", error, base=0), Context(task=TASK, source=SOURCE), ["base"])
    assert text.splitlines()[:3] == [
        "The program failed with an error while it ran.",
        "AttributeError: 'int' object has no attribute 'undefined'",
        "Line 2: return x.undefined()",
    ]


@pytest.mark.parametrize("status", ["runtime_error", "compile_error", "security_violation"])
def test_a_program_cannot_tell_what_a_hidden_group_asked_of_it(status):
    context = Context(task=TASK, source=SOURCE)
    error = {"type": "ValueError", "message": "hidden input: 123456", "line": 2}
    failed = verdict(status, error, plus=0)
    assert feedback_text(failed, context, ["base"]).splitlines()[1:] == [
        "ValueError",
        "Line 2: return x.undefined()",
    ]
    assert "ValueError: hidden input: 123456" in feedback_text(failed, context, ["plus"])
    named = verdict(status, {"type": "Asked123456", "message": "", "line": None}, plus=0)
    assert "123456" not in feedback_text(named, context, ["base"])
    assert "Asked123456" in feedback_text(named, context, ["plus"])


def test_why_a_program_is_not_valid_is_told_whatever_is_hidden():
    error = {"type": "SyntaxError", "message": "'(' was never closed", "line": 1}
    text = feedback_text(verdict("compile_error", error, base=0), Context(task=TASK, source="def f(:"))
    assert text.splitlines()[1:] == ["SyntaxError: '(' was never closed", "Line 1: def f(:"]


def test_inputs_are_shown_of_visible_groups_only():
    failed = verdict("wrong_answer", base=0, plus=1)
    context = Context(task=TASK, source=SOURCE)
    assert feedback_text(failed, context) == "The program ran, and gave a wrong answer."
    assert feedback_text(failed, context, ["plus"]) == "The program ran, and gave a wrong answer."
    assert feedback_text(failed, context, ["base"]).splitlines()[1:] == [
        "Test 1 of 2 failed.",
        "It called f('first').",
    ]


def test_what_is_shown_is_short():
    text = feedback_text(verdict("wrong_answer", base=1), Context(task=TASK), ["base"])
    assert len(text) < 700
    huge = {"type": "E" * 9999, "message": "m" * 9999, "line": 1}
    assert len(feedback_text(verdict("runtime_error", huge), Context(source="x" * 99999))) < 700


def test_a_whole_programs_input_is_shown_without_control_characters():
    text = feedback_text(verdict("wrong_answer", base=0), Context(task=STDIO), ["base"])
    assert "Its input was:\n1 2\n" in text
    assert "\x1b" not in text


def test_the_source_of_an_assertion_is_not_shown():
    text = feedback_text(verdict("wrong_answer", base=0), Context(task=ASSERTIONS), ["base"])
    assert text.splitlines()[1:] == ["Test 1 of 2 failed."]


@pytest.mark.parametrize(
    "task", [TASK, STDIO, ASSERTIONS, None], ids=["function", "stdio", "assertions", "none"]
)
@pytest.mark.parametrize("status", list(Status))
def test_nothing_expected_is_ever_told(task, status):
    error = {"type": "ValueError", "message": "bad", "line": 99}
    text = feedback_text(
        verdict(status, error, base=0, plus=1), Context(task=task, source=SOURCE), ["base", "plus"]
    )
    assert text
    assert SECRET not in text


@given(st.text(), st.text(), st.integers())
def test_whatever_an_error_says_the_text_is_printable_lines(kind, message, line):
    error = {"type": kind, "message": message, "line": line}
    text = feedback_text(verdict("runtime_error", error), Context(source=message))
    assert all(part.isprintable() for part in text.split("\n"))
    assert text.count("\n") <= 2
