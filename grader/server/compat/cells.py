"""Running a script as a notebook's cell would be: the value of its last line is its result."""

from __future__ import annotations

import ast

from grader.suites.source import parse_source

RESULT_FILE = ".grader-result"
"""The file that a script's result is fetched from."""

_MAX_CHARACTERS = 1 << 20  # what is longer is run as it is: to parse it would hold up others


def with_result(script: str) -> str:
    """Return the script changed so that ``repr`` of its last line's value, where that is not None, goes to a file.

    Line numbers stay. A script that does not parse, or does not end in an expression, is returned as it is; one that
    ends in a semicolon has no result, as in a notebook.
    """
    if len(script) > _MAX_CHARACTERS:
        return script
    try:
        tree = parse_source(script)
    except ValueError:
        return script
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or last.end_lineno is None or last.end_col_offset is None:
        return script
    lines = script.encode().splitlines(keepends=True)  # columns are counted in bytes
    before = b"".join(lines[: last.lineno - 1]) + lines[last.lineno - 1][: last.col_offset]
    rest = b"".join(lines[last.end_lineno :])
    after = lines[last.end_lineno - 1][last.end_col_offset :] + rest
    if after.lstrip().startswith(b";"):
        return script
    middle = b"".join(lines[last.lineno - 1 : last.end_lineno])
    value = middle[last.col_offset : len(middle) - len(lines[last.end_lineno - 1]) + last.end_col_offset]
    ending = (
        b"\nif _grader_result is not None:\n"
        b"    with open('" + RESULT_FILE.encode() + b"', 'w', encoding='utf-8') as _grader_file:\n"
        b"        _grader_file.write(repr(_grader_result))\n"
    )
    return (before + b"_grader_result = (" + value + b"\n)" + after + ending).decode()
