"""Limits, and how those of a request become those of a run."""

from __future__ import annotations

import ast
import marshal
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.errors import InputError
from grader.limits import GIB, Limits
from grader.sandbox.cell import Done
from grader.sandbox.runner import library
from grader.worker.requests import RunRequest, Usage, ending_of, function_payload, run_limits

NAMES = [field.name for field in fields(Limits)]
amounts = st.floats(0.001, 1e9)


def test_the_defaults_are_evalplus_s_rule_and_a_gibibyte():
    limits = Limits()
    assert (limits.time_floor_s, limits.time_factor, limits.memory_bytes) == (4.0, 4.0, GIB)


@given(amounts, amounts, st.floats(0, 1e6))
def test_a_test_has_the_floor_or_a_multiple_of_the_reference(floor, factor, reference):
    limits = Limits(time_floor_s=floor, time_factor=factor)
    assert limits.test_time_s(reference) == max(floor, factor * reference)


@given(amounts, amounts, st.lists(st.floats(0, 1e6)))
def test_only_those_tests_are_named_that_have_more_than_the_floor(floor, factor, references):
    limits = Limits(time_floor_s=floor, time_factor=factor)
    longer = limits.longer_test_times_s(references)
    assert all(longer[index] == limits.test_time_s(references[index]) for index in longer)
    for index, reference in enumerate(references):
        assert longer.get(index, limits.test_time_s(0.0)) == pytest.approx(limits.test_time_s(reference))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, float("nan"), -float("inf")])
def test_a_limit_that_is_not_above_nought_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=name):
        Limits(**{name: value})


@given(
    st.fixed_dictionaries(dict.fromkeys(NAMES, amounts)),
    st.fixed_dictionaries(dict.fromkeys(NAMES, amounts)),
)
def test_a_ceiling_lowers_what_exceeds_it_and_nothing_else(mine, top):
    lowered = Limits(**mine).within(Limits(**top))
    assert {name: getattr(lowered, name) for name in NAMES} == {
        name: min(mine[name], top[name]) for name in NAMES
    }


def test_a_ceiling_that_leaves_the_idle_limit_to_the_test_does_so():
    assert Limits(idle_s=3.0).within(Limits()).idle_s == 3.0
    assert Limits().within(Limits(time_floor_s=1.0)).time_floor_s == 1.0


def test_a_run_has_the_requests_limits():
    limits = run_limits(Limits(time_floor_s=2.0, idle_s=9.0, stdout_bytes=77), {3: 8.0})
    assert (limits.load_s, limits.test_s, limits.tests, limits.idle_s) == (2.0, 2.0, {3: 8.0}, 9.0)
    assert limits.stdout_bytes == 77
    assert run_limits(Limits(), {}, load_s=6.0).load_s == 6.0


def request(source: str) -> RunRequest:
    payload = function_payload(source, "f", b"", stop_at_error=True)
    return RunRequest((payload,), run_limits(Limits(), {}), (0,), lambda data: False, GIB)


def test_a_program_that_names_numpy_is_forked_from_the_process_that_has_it():
    assert request("import numpy as np").zygote == "numpy"
    assert request("import math").zygote == "plain"


def test_a_program_that_imports_a_large_module_is_forked_from_the_process_that_has_it():
    tree = ast.parse(Path(library.__file__).read_text())
    names = [name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names]
    assert len(names) > 5
    for name in names:
        for line in (f"import {name}", f"from {name} import *", f"def f():\n    import math, {name} as m"):
            assert request(f"x = 1\n{line}\n").zygote == "library"
    assert request("# json\nimport math  # not json\njson = 'import'").zygote == "plain"
    assert request("import json\nimport numpy").zygote == "numpy"


def test_a_payload_carries_its_own_limits():
    (encoded,) = request("x = 1").encoded(Limits(threads=7, tmp_bytes=8), 99)
    payload = marshal.loads(encoded)
    assert payload["limits"] == {"threads": 7, "tmp_bytes": 8, "address_space": 99}
    assert payload["source"] == "x = 1"


def done(**facts) -> Done:
    given = {"run": 1, "ended": "exited", "code": 0, "signal": 0, "driver_code": 0, "cpu_s": 0.5, "wall_s": 1.0,
             "peak_memory_bytes": 10, "stdout_tail": b"", "stderr_tail": b"", "memory_kill": False}  # fmt: skip
    return Done(**given | facts)


def test_runs_of_a_sample_add_up_and_the_last_words_are_kept():
    usage = Usage()
    usage.add(done(peak_memory_bytes=30, stdout_tail=b"first \xff"))
    usage.add(done())
    assert (usage.cpu_s, usage.wall_s, usage.peak_memory_bytes) == (1.0, 2.0, 30)
    assert usage.stdout_tail == "first \ufffd"


@pytest.mark.parametrize(
    ("ended", "peak", "filled"),
    [("cpu_limit", 300, True), ("cpu_limit", 200, False), ("idle_limit", 900, False), ("exited", 900, False)],
)
def test_a_program_stopped_for_its_time_with_a_quarter_of_its_memory_in_use_is_one_that_fills_memory(
    ended, peak, filled
):
    done = Done(1, ended, 0, 9, 0, 1.0, 1.0, peak, b"", b"", memory_kill=False)
    assert ending_of(done, 1000).memory_kill is filled
