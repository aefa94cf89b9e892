from __future__ import annotations

import json

import pytest

from grader.errors import SuiteError
from grader.suites import registry
from grader.suites.task import AssertionTests

HUMANEVAL = {
    "task_id": "Own/1",
    "prompt": "def add(a, b):\n",
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
MBPP = {
    "task_id": 9,
    "text": 'Add two numbers, as in """1 + 2""".',
    "code": "def double(a):\r\n    return 2 * a\r\ndef add(a, b):\r\n    return a + b",
    "test_setup_code": "",
    "test_list": [
        " assert add(1, 2) == 3",
        "assert add(double(1), 0) == 2",
        "assert add('\\n', '') == '\\n'",
    ],
    "challenge_test_list": [],
}


def test_humaneval_is_one_test_that_runs_check(write_rows):
    suite = registry.load(str(write_rows(HUMANEVAL, name="own.jsonl")))
    task = suite.tasks["Own/1"]
    assert (suite.name, suite.version, task.entry_point) == ("own", "custom", "add")
    assert [group.name for group in task.groups] == ["base"]
    assert task.groups[0].tests == AssertionTests(("check(add)",), setup=HUMANEVAL["test"])


def test_humaneval_needs_a_check_function(write_rows):
    with pytest.raises(SuiteError, match=r"line 1: field 'test': does not define check"):
        registry.load(str(write_rows({**HUMANEVAL, "test": "assert add(1, 2) == 3"})))


def test_mbpp_has_one_test_an_assert(write_rows):
    task = registry.load(str(write_rows(MBPP))).tasks["Mbpp/9"]
    assert task.entry_point == "add"
    assert [group.name for group in task.groups] == ["base"]
    assert task.groups[0].tests.tests == tuple(test.strip() for test in MBPP["test_list"])
    assert "\r" not in task.reference


def test_mbpp_makes_arguments_of_its_references_classes(write_rows):
    code = "class Pair:\n    def __init__(self, a): self.a = a\ndef add(pair, b): return pair.a + b"
    task = registry.load(
        str(write_rows({**MBPP, "code": code, "challenge_test_list": ["assert add(Pair(1), 2)"]}))
    )
    assert [group.tests.argument_classes for group in task.tasks["Mbpp/9"].groups] == [("Pair",)] * 2


def test_the_prompt_of_mbpp_is_a_docstring_that_shows_the_asserts(write_rows):
    task = registry.load(str(write_rows(MBPP))).tasks["Mbpp/9"]
    names: dict[str, str] = {}
    exec("shown = " + task.prompt, names)
    assert names["shown"].strip().splitlines() == [
        MBPP["text"],
        *(test.strip() for test in MBPP["test_list"]),
    ]


def test_challenge_tests_are_a_group_of_their_own(write_rows):
    row = {**MBPP, "challenge_test_list": ["assert add(0, 0) == 0"], "test_setup_code": "zero = 0"}
    groups = registry.load(str(write_rows(row))).tasks["Mbpp/9"].groups
    assert [(group.name, group.tests.setup) for group in groups] == [
        ("base", "zero = 0"),
        ("challenge", "zero = 0"),
    ]
    assert groups[1].tests.tests == ("assert add(0, 0) == 0",)


def test_sanitized_mbpp_is_one_array_with_imports_as_setup(tmp_path):
    row = {
        "task_id": 4,
        "prompt": "Add.",
        "code": "def add(a, b): return a + b",
        "test_imports": ["import math", "import os"],
        "test_list": ["assert math.isclose(add(1, 2), 3)"],
    }
    path = tmp_path / "own.json"
    path.write_text(json.dumps([row], indent=2))
    task = registry.load(str(path)).tasks["Mbpp/4"]
    assert (task.entry_point, task.groups[0].tests.setup) == ("add", "import math\nimport os")

    path.write_text(json.dumps([row, {**row, "task_id": "5"}], indent=2))
    with pytest.raises(SuiteError, match=r"line 14: field 'task_id': a number is needed"):
        registry.load(str(path))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"test_list": []}, "field 'test_list': empty"),
        ({"test_list": "assert add(1, 2) == 3"}, "field 'test_list': an array is needed"),
        ({"test_list": [1]}, "field 'test_list[0]': a string is needed"),
        ({"test_list": ["assert 1 +"]}, "test 0 is not Python"),
        ({"test_list": ["assert other(1) == 1"]}, "calls none of the reference's functions (add, double)"),
        ({"code": "def add(a, b:"}, "field 'code': not Python"),
        ({"task_id": True}, "field 'task_id': a number is needed"),
    ],
)
def test_a_bad_row_of_mbpp_is_refused_with_its_line_and_field(write_rows, change, problem):
    path = write_rows({**MBPP, "task_id": 1}, {**MBPP, **change})
    with pytest.raises(SuiteError) as error:
        registry.load(str(path))
    assert f"{path}, line 2: " in str(error.value)
    assert problem in str(error.value)


@pytest.mark.dataset
def test_humaneval_has_its_tasks(data_dir):
    suite = registry.load("humaneval", data_dir=data_dir)
    assert len(suite.tasks) == 164
    assert suite.tasks["HumanEval/32"].groups[0].tests.tests == ("check(find_zero)",)
    assert "def poly(" in suite.tasks["HumanEval/32"].reference


@pytest.mark.dataset
@pytest.mark.parametrize(("name", "tasks", "asserts"), [("mbpp", 974, 2922), ("mbpp-sanitized", 427, 1324)])
def test_mbpp_has_its_tasks_and_asserts(data_dir, name, tasks, asserts):
    suite = registry.load(name, data_dir=data_dir)
    assert len(suite.tasks) == tasks
    assert sum(len(task.groups[0].tests.tests) for task in suite.tasks.values()) == asserts


@pytest.mark.dataset
def test_the_entry_point_is_the_function_and_not_the_class_of_its_arguments(data_dir):
    assert registry.load("mbpp", data_dir=data_dir).tasks["Mbpp/601"].entry_point == "max_chain_length"
