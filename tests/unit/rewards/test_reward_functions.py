"""Reward functions: pure functions of a verdict, and None for what could not be judged."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.errors import InputError
from grader.limits import Limits
from grader.rewards import FUNCTIONS, Context, parse
from grader.status import Status
from grader.suites.task import FunctionTests, StdioTest, StdioTests, Task, TestGroup

TASK = Task("T/0", "def add(a, b):\n", "add", "", (TestGroup("base", FunctionTests(lambda: [[1, 2]])),))
STDIO = Task("T/1", "", "", "", (TestGroup("base", StdioTests((StdioTest("", ""),))),))
SPECS = [
    *FUNCTIONS,
    {"sum": ["binary", {"name": "penalties", "max_characters": 3}], "weights": [1.0, 0.5]},
    {"product": ["binary", "efficiency"]},
]


def verdict(status="passed", groups=None, **fields):
    if groups is None:
        groups = {"base": (status, 3, 3), "plus": (status, 7, 7)}
    found = {
        name: None
        if group is None
        else dict(zip(("status", "passed", "total"), group, strict=True), first_failed=None)
        for name, group in groups.items()
    }
    made = {"task_id": "T/0", "sample_id": "s", "status": Status(status), "passed": status == "passed",
            "groups": found, "cpu_s": 0.2, "stdout_tail": "", "error": None}  # fmt: skip
    return {**made, **fields}


def value(spec, *arguments, context=None, **fields):
    return parse(spec)(verdict(*arguments, **fields), context or Context(reference_cpu_s=0.1)).value


def test_binary_is_the_default():
    assert value(None) == value("binary") == 1.0
    assert value(None, "wrong_answer") == 0.0
    assert value({"name": "binary", "passed": 2, "failed": -1}, "time_limit") == -1


def test_fraction_counts_all_groups_or_those_named():
    groups = {"base": ("passed", 5, 5), "plus": ("wrong_answer", 10, 15)}
    assert value("fraction", "wrong_answer", groups) == 0.75
    assert value({"name": "fraction", "groups": ["plus"]}, "wrong_answer", groups) == pytest.approx(10 / 15)
    assert value("fraction") == 1.0


def test_a_fraction_of_few_tests_is_all_or_nothing():
    groups = {"base": ("wrong_answer", 2, 3)}
    assert value("fraction", "wrong_answer", groups) == 0.0
    assert value({"name": "fraction", "min_tests": 3}, "wrong_answer", groups) == pytest.approx(2 / 3)
    assert value("fraction", groups={"base": ("passed", 3, 3)}) == 1.0


def test_fraction_refuses_a_verdict_whose_tests_were_left_out():
    groups = {"base": ("wrong_answer", 2, 10), "plus": None}
    with pytest.raises(InputError, match="group 'plus' of T/0 was not run; grade with fail_fast off"):
        value("fraction", "wrong_answer", groups)
    context = Context(group_totals={"plus": 10})
    assert value("fraction", "wrong_answer", groups, context=context) == 0.1
    assert value("fraction", "no_code", {"base": None, "plus": None}) == 0.0
    assert parse("fraction").needs_all_tests
    assert parse({"sum": ["binary", {"product": ["fraction"]}]}).needs_all_tests
    assert not parse("tiered").needs_all_tests


@pytest.mark.parametrize(
    ("status", "base", "plus", "expected"),
    [
        ("no_code", None, None, 0.0),
        ("compile_error", "compile_error", None, 1.0),
        ("runtime_error", "runtime_error", None, 3.0),
        ("time_limit", "time_limit", None, 3.0),
        ("wrong_answer", "wrong_answer", None, 7.0),
        ("runtime_error", "passed", "runtime_error", 15.0),
        ("passed", "passed", "passed", 31.0),
    ],
)  # fmt: skip
def test_tiered_gives_the_weights_of_the_stages_reached(status, base, plus, expected):
    weights = {"extractable": 1, "compiles": 2, "runs": 4, "base": 8, "plus": 16}
    groups = {name: group and (group, 1, 2) for name, group in (("base", base), ("plus", plus))}
    result = parse({"name": "tiered", "weights": weights})(verdict(status, groups), Context())
    assert result.value == expected
    reached = [name for name in weights if result.components[f"tiered.{name}"]]
    assert sum(weights[name] for name in reached) == expected


def test_tiered_of_a_task_with_one_group():
    assert value("tiered", groups={"laws": ("passed", 3, 3)}) == pytest.approx(1.0)
    assert value("tiered", "wrong_answer", {"laws": ("wrong_answer", 1, 3)}) == pytest.approx(0.2)


def test_efficiency_is_bounded_and_for_those_that_pass():
    assert value("efficiency") == 0.5
    assert value("efficiency", cpu_s=100.0) == 0.1
    assert value("efficiency", cpu_s=0.001) == 1.0
    assert value({"name": "efficiency", "most": 2}, cpu_s=0.001) == 2.0
    assert value("efficiency", "wrong_answer") == 0.0
    assert value("efficiency", cpu_s=0.04, context=Context(reference_cpu_s=0.0001)) == 1.0
    with pytest.raises(InputError, match="T/0 has none; give reference_cpu_s"):
        value("efficiency", context=Context())


def test_penalties():
    spec = {"name": "penalties", "max_characters": 10, "length_weight": 0.2, "banned_imports": ["os"],
            "banned_calls": ["eval", "numpy.sort"], "noise_characters": 5, "no_code_weight": 0.7}  # fmt: skip
    reward = parse(spec)
    assert reward(verdict(), Context(source="x = 1")).value == 0.0
    long = reward(verdict(), Context(source="x = 1" + " " * 10)).components
    assert long["penalties.length"] == pytest.approx(-0.1)
    assert reward(verdict(), Context(source="x" * 1000)).components["penalties.length"] == -0.2
    for source in (
        "import os.path",
        "from os import getcwd",
        "__import__('os')",
        "eval('1')",
        "import numpy as n\nn.sort(1)",
    ):
        assert reward(verdict(), Context(source=source)).components["penalties.banned"] == -0.5, source
    for source in (
        "import osmium",
        "evaluate()",
        "sort(1)",
        "x.evaluate()",
        "def eval_it(): pass",
        "not python",
    ):
        assert reward(verdict(), Context(source=source)).components["penalties.banned"] == 0.0, source
    assert reward(verdict(stdout_tail="noise!"), Context(task=TASK)).components["penalties.noise"] == -0.1
    assert reward(verdict(stdout_tail="answer"), Context(task=STDIO)).components["penalties.noise"] == 0.0
    assert reward(verdict("no_code"), Context()).value == -0.7
    most = parse({"name": "penalties", "noise_characters": 65_535})
    assert most(verdict(stdout_tail="x" * Limits().stdout_bytes), Context(task=TASK)).value == -0.1


PROGRAM = '''
def add(a: int, b: int) -> int:
    """Add."""
    return a if not b else add(a + 1, b - 1)
'''


@pytest.mark.parametrize(
    ("spec", "source", "expected"),
    [
        ({"require": ["recursion"]}, PROGRAM, 1.0),
        ({"require": ["loop"]}, PROGRAM, 0.0),
        ({"require": ["recursion"], "forbid": ["loop", "import"]}, PROGRAM, 1.0),
        ({"require": ["call:sorted"]}, "print(sorted([]))", 1.0),
        ({"require": ["import:math"]}, "from math import sqrt", 1.0),
        ({"forbid": ["call:sort"]}, "[].sort()", 0.0),
        ({"signature": True}, PROGRAM, 1.0),
        ({"signature": True}, "def add(x, y): pass", 0.0),
        ({"signature": True}, "class Solution:\n    def add(self, a, b): pass", 0.0),
        ({"typed": True, "documented": True}, PROGRAM, 1.0),
        ({"typed": True, "documented": True}, "def add(a: int, b): 'Add.'", 0.5),
        ({"typed": True}, "class Solution:\n    def add(self, a: int, b: int) -> int: ...", 1.0),
        ({"typed": True}, "no python", 0.0),
        ({}, PROGRAM, 1.0),
    ],
)  # fmt: skip
def test_constraints(spec, source, expected):
    reward = parse({"name": "constraints", **spec})
    result = reward(verdict(), Context(task=TASK, source=source))
    assert result.value == expected
    assert tuple(result.components) == reward.names


def test_flags_may_cost_something():
    spec = {"name": "flags", "values": {"exit_call": -0.5, "forbidden_syscall": -1}}
    cheat = Context(source="import os\nos._exit(0)")
    assert value(spec, context=Context(source="x = 1")) == 0.0
    assert value(spec, context=cheat) == -0.5
    assert value(spec, "security_violation", context=cheat) == -1.0


def test_sums_and_products():
    both = {"sum": ["binary", {"name": "binary", "label": "other", "passed": 3}], "weights": [0.5, 2]}
    result = parse(both)(verdict(), Context())
    assert (result.value, result.components) == (6.5, {"binary": 1.0, "other": 3.0})
    assert value({"product": ["binary", {"name": "binary", "label": "b", "passed": 4}]}) == 4.0
    labelled = parse({"sum": [{"product": ["binary"], "label": "inner"}]})
    assert labelled(verdict(), Context()).components == {"inner": 1.0, "binary": 1.0}


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("status", list(Status))
def test_the_components_have_the_same_names_whatever_the_verdict(spec, status):
    reward = parse(spec)
    result = reward(verdict(status.value), Context(task=TASK, source=PROGRAM, reference_cpu_s=0.1))
    assert tuple(result.components) == reward.names
    if status is Status.INFRASTRUCTURE_ERROR:
        assert result.value is None
        assert set(result.components.values()) == {None}
    else:
        assert math.isfinite(result.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("binray", "reward.name: no reward is called 'binray'; there are binary, fraction"),
        (7, "reward: a name or an object is needed, this is int"),
        ([], "reward: a name or an object is needed"),
        ({}, "reward: it needs one of name, sum, product"),
        ({"name": ["binary"]}, "reward.name: no reward is called"),
        ({"name": "binary", "passed": "1"}, "reward.passed: Input should be a valid number"),
        ({"name": "binary", "passed": float("nan")}, "reward.passed: Input should be a finite number"),
        ({"name": "binary", "pased": 1}, "reward.pased: Extra inputs are not permitted"),
        ({"name": "tiered", "weights": {"base": -1}}, "reward.weights.base: Input should be greater than"),
        ({"name": "tiered", "weights": {"bass": 1}}, "reward.weights.bass: Input should be"),
        ({"name": "fraction", "min_tests": 0}, "reward.min_tests: Input should be greater than"),
        ({"name": "fraction", "min_tests": True}, "reward.min_tests: Input should be a valid integer"),
        ({"name": "efficiency", "resolution_s": 0}, "reward.resolution_s: "),
        ({"name": "constraints", "require": ["goto"]}, "reward.require[0]: Value error, no construct is called 'goto'"),
        ({"name": "constraints", "forbid": ["call:"]}, "reward.forbid[0]: "),
        ({"name": "penalties", "banned_calls": ["os system"]}, "reward.banned_calls[0]: String should match"),
        ({"name": "flags", "values": {"cheating": -1}}, "reward.values.cheating: Input should be 'exit_call'"),
        ({"sum": []}, "reward.sum: an array of 1 to 16 rewards is needed"),
        ({"sum": ["binary"] * 17}, "reward.sum: an array of 1 to 16"),
        ({"sum": ["binary", "fractoin"]}, "reward.sum[1].name: no reward is called 'fractoin'"),
        ({"sum": ["binary"], "weights": [1, 2]}, "reward.weights: 2 weights for 1 rewards"),
        ({"sum": ["binary"], "weights": ["1"]}, "reward.weights[0]: "),
        ({"sum": ["binary", "binary"]}, "reward: two components are called 'binary'; give one of the parts a label"),
        ({"product": ["binary"], "weights": [1]}, "reward.weights: Extra inputs"),
        ({"name": "penalties", "noise_characters": 65_536}, "reward.noise_characters: Input should be less than"),
        ({"sum": ["binary"], "name": "binary"}, "reward.name: not beside sum"),
        ({"sum": [{"product": [{"sum": [{"product": [{"sum": [{"sum": ["binary"]}]}]}]}]}]}, "nested more than 4 deep"),
    ],
)  # fmt: skip
def test_a_reward_that_is_misconfigured_is_refused_with_the_place(spec, said):
    with pytest.raises(InputError) as error:
        parse(spec)
    assert said in str(error.value)


WORDS = st.sampled_from(["name", "sum", "product", "weights", "label", "passed"]) | st.text()
LEAVES = st.none() | st.booleans() | st.floats() | st.text()


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=8))
def test_any_other_spec_is_refused_with_an_input_error(spec):
    try:
        names = parse(spec).names
    except InputError as error:
        names = (str(error).partition(":")[0].partition(".")[0].partition("[")[0],)
    assert names in (("reward",), ("binary",))


def test_weights_that_overflow_are_an_error_and_no_reward():
    huge = {"sum": [{"name": "binary", "passed": 1e308}], "weights": [10]}
    with pytest.raises(InputError, match="no finite number"):
        value(huge)
    both = {"sum": ["binary", {"name": "binary", "label": "other"}], "weights": [1.7e308, 1.7e308]}
    with pytest.raises(InputError, match="no finite number"):
        value(both)
    infinite = {"sum": ["binary"], "weights": [1e308], "label": "inner"}
    infinite = {"product": [infinite, {"name": "binary", "label": "ten", "passed": 10}], "label": "product"}
    other = {
        "product": [
            {"name": "binary", "label": "a", "passed": -1e308},
            {"name": "binary", "label": "b", "passed": 10},
        ]
    }
    with pytest.raises(InputError, match="no finite number"):
        value({"sum": [infinite, other], "weights": [1, 1]})


@given(st.text(), st.text(max_size=50))
def test_no_program_makes_a_reward_raise(source, stdout):
    context = Context(task=TASK, source=source, reference_cpu_s=0.1)
    for spec in ("penalties", {"name": "constraints", "typed": True, "require": ["loop"]}, "flags"):
        assert math.isfinite(parse(spec)(verdict(stdout_tail=stdout), context).value)
