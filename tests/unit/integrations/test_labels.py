"""Ground truths in the shapes of data sets for trainers."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.errors import InputError
from grader.suites.inline import InlineTasks
from grader.suites.labels import Label, plain, read_label

FUNCTION = {"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("HumanEval/0", Label(task_id="HumanEval/0")),
        ({"suite": "s", "task_id": "t"}, Label(task_id="t", suite="s")),
        ({"task_id": "t"}, Label(task_id="t")),
        ('{"task_id": "t"}', Label(task_id="t")),
        (FUNCTION, Label(tests=FUNCTION)),
        (json.dumps(FUNCTION), Label(tests=FUNCTION)),
        (
            {"inputs": ["a"], "outputs": ["b"], "fn_name": None},
            Label(tests={"inputs": ["a"], "outputs": ["b"]}),
        ),
        (["assert f(1) == 2"], Label(tests=["assert f(1) == 2"])),
        (
            {"assert_case": ["assert f()"], "inputs": [""], "outputs": [None], "fn_name": "f"},
            Label(tests={"kind": "assertions", "tests": ["assert f()"], "entry_point": "f"}),
        ),
        (
            [{"input": "1\n2", "output": "3", "testtype": "functional", "metadata": {"func_name": "add"}}],
            Label(tests={"inputs": ["1\n2"], "outputs": ["3"], "fn_name": "add"}),
        ),
        (
            [{"input": "1", "output": "3", "testtype": "stdin", "metadata": {"func_name": None}}],
            Label(tests={"inputs": ["1"], "outputs": ["3"]}),
        ),
    ],
)
def test_shapes(given, expected):
    found = read_label(given, "label")
    assert found == expected
    if found.tests is not None:
        InlineTasks().add(found.tests, "label")


@pytest.mark.parametrize(
    "given",
    [
        None,
        7,
        "",
        "  ",
        "{",
        "[1,",
        [],
        {"task_id": 7},
        {"assert_case": []},
        {"assert_case": ["assert f()"], "inputs": ["1"]},
        [{"input": "1", "output": "2", "testtype": "functional"}],
        [
            {"input": "1", "output": "2", "metadata": {"func_name": name}, "testtype": "functional"}
            for name in "fg"
        ],
        "[" * 100_000,
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_cannot_be_a_label_is_refused_with_its_place(given):
    with pytest.raises(InputError, match=r"^labels\[3\]"):
        read_label(given, "labels[3]")


def test_columns_of_numpy():
    tests = {"inputs": np.array(["a", "b"], dtype=object), "outputs": np.array([1, 2])}
    assert read_label(tests, "label").tests == {"inputs": ["a", "b"], "outputs": [1, 2]}


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(),
                 lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)  # fmt: skip
def test_json_stays_as_it_is(value):
    assert plain(value) == value
    with contextlib.suppress(InputError):
        read_label(value, "label")
