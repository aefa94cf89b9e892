"""A function's test has no input: what reads it is told so by an OSError, as in EvalPlus, and not that it has ended."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("read", ["input()", "sys.stdin.read()", "sys.stdin.readline()", "next(sys.stdin)"])
def test_reading_is_an_error(user, read):
    source = f"import sys\ndef f():\n    try:\n        {read}\n    except OSError:\n        return 'no input'"
    (run,) = user.run({"source": source, "entry_point": "f"})["runs"]
    assert run["answers"] == ["no input"]


def test_a_whole_program_has_its_input(user):
    source = "import sys\nprint(input(), sys.stdin.read(), end='')"
    (run,) = user.run({"source": source, "stdin": "one\ntwo"})["runs"]
    assert run["output"] == "one two"
