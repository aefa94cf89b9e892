"""Python that comes with a request is parsed in the service: how much of it is bounded before."""

from __future__ import annotations

import pytest

from grader.errors import SuiteError
from grader.suites.inline import MAX_SOURCE_CHARACTERS, inline_task
from grader.suites.source import MAX_CHARACTERS, parse_source

LONG = "x=1\n" * (MAX_CHARACTERS // 4 + 1)


def test_a_long_source_is_not_parsed() -> None:
    assert parse_source("x=1\n" * 100).body
    with pytest.raises(ValueError, match="characters of Python"):
        parse_source(LONG)


@pytest.mark.parametrize(
    "tests",
    [
        {"tests": ["assert f(1)"], "setup": LONG},
        {"tests": ["assert f(1)\n" + LONG]},
        {"tests": ["assert f(1)"], "reference": "def f(n): pass\n" + LONG},
        {"tests": "from solution import f\n" + LONG + "assert f(1)"},
        {"tests": "x = 1\n" * (MAX_CHARACTERS // 7) + "assert f(1)", "setup": LONG[: MAX_CHARACTERS // 2]},
        {"tests": ["assert f(1)"] * 2000, "setup": "#" * MAX_SOURCE_CHARACTERS},
    ],
    ids=["setup", "test", "reference", "module", "module-and-setup", "together"],
)
def test_a_row_with_long_source_is_refused(tests: dict[str, object]) -> None:
    with pytest.raises(SuiteError, match="characters of Python"):
        inline_task({"kind": "assertions", **tests}, "tests[0]")


def test_a_name_with_thousands_of_combining_marks_is_refused() -> None:
    """Its letters would be brought into an order for minutes, while no other thread runs."""
    with pytest.raises(ValueError, match="combining marks"):
        parse_source("a" + "\u0301\u0316" * 30_000 + " = 1")
    assert parse_source("e\u0301 = 1").body
