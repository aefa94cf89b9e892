from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest

from grader.errors import SuiteError
from grader.suites import evalplus, registry
from grader.suites.files import read_suite_file
from grader.suites.restoration import restore

ROW = {
    "task_id": "Own/1",
    "prompt": "def add(a, b):\n",
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "base_input": [[1, 2]],
    "plus_input": [[3, 4], [5, 6]],
    "atol": 0,
    "contract": "",
}


def without(name):
    return {key: value for key, value in ROW.items() if key != name}


def test_a_row_becomes_a_task_with_two_groups(write_rows):
    task = registry.load(str(write_rows(ROW))).tasks["Own/1"]
    assert task.reference == "def add(a, b):\n    return a + b\n"
    assert [(group.name, group.tests.inputs()) for group in task.groups] == [
        ("base", [[1, 2]]),
        ("plus", [[3, 4], [5, 6]]),
    ]
    assert all(group.tests.expected is None for group in task.groups)
    assert (task.comparison.kind, task.comparison.atol, task.comparison.rtol) == ("evalplus", 0.0, 1e-7)


def test_inputs_may_be_json_text_inside_json(write_rows):
    path = write_rows({**ROW, "plus_input": json.dumps([[3, 4]])})
    assert registry.load(str(path)).tasks["Own/1"].groups[1].tests.inputs() == [[3, 4]]


def test_one_caller_cannot_change_the_inputs_of_the_next(write_rows):
    tests = registry.load(str(write_rows({**ROW, "base_input": [[[1, 2]]]}))).tasks["Own/1"].groups[0].tests
    tests.inputs()[0][0].clear()
    assert tests.inputs() == [[[1, 2]]]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (without("prompt"), "field 'prompt': missing"),
        (without("plus_input"), "field 'plus_input': missing"),
        (without("atol"), "field 'atol': missing"),
        ({**ROW, "entry_point": "a b"}, "not a Python function's name"),
        ({**ROW, "entry_point": "lambda"}, "not a Python function's name"),
        ({**ROW, "canonical_solution": 7}, "a string is needed, this is a number"),
        ({**ROW, "base_input": [1]}, "input 0 must be an array of arguments"),
        ({**ROW, "base_input": {"a": 1}}, "an array of argument lists is needed"),
        ({**ROW, "base_input": [], "plus_input": {}}, "anything would pass"),
        ({**ROW, "base_input": "[[1,"}, "field 'base_input'"),
        ({**ROW, "atol": -1}, "a number of at least 0"),
        ({**ROW, "atol": True}, "a number of at least 0"),
        ({**ROW, "prompt": "\ud800"}, "lone surrogate"),
        ({**ROW, "task_id": ""}, "field 'task_id': empty"),
        ({**ROW, "task_id": "Mbpp/124", "base_input": [[1]]}, "field 'base_input'"),
        (["not", "a", "row"], "a JSON object is needed"),
        ('{"task_id": "x",', "not JSON"),
    ],
)
def test_a_bad_row_is_refused_with_its_line_and_field(write_rows, row, problem):
    path = write_rows({**ROW, "task_id": "Own/0"}, "", row)
    with pytest.raises(SuiteError) as error:
        registry.load(str(path))
    assert f"{path}, line 3: " in str(error.value)
    assert problem in str(error.value)


def test_a_task_id_that_comes_twice_is_refused(write_rows):
    with pytest.raises(SuiteError, match=r"line 2: field 'task_id': 'Own/1' was already used on line 1"):
        registry.load(str(write_rows(ROW, ROW)))


@pytest.mark.parametrize(
    ("task_id", "written", "restored"),
    [
        ("Mbpp/2", [[1, 2], [3]], [(1, 2), (3,)]),
        ("Mbpp/63", [[[1, 2]]], [[(1, 2)]]),
        ("Mbpp/259", [[[1], [2]], [[3]]], [((1,), (2,)), ((3,),)]),
        ("Mbpp/278", [[1, [2, 3]]], [(1, (2, 3))]),
        ("Mbpp/580", [[1, [2, [3]]]], [(1, (2, (3,)))]),
        ("Mbpp/250", [[1, 2], 1], [(1, 2), 1]),
        ("Mbpp/307", [[1, []], 1, 50], [(1, []), 1, 50]),
        ("Mbpp/106", [[1], [2]], [[1], (2,)]),
        ("Mbpp/75", [[[1]], 6], [[(1,)], 6]),
        ("Mbpp/722", [{"a": [1.5, 2]}, 6.0, 70], [{"a": (1.5, 2)}, 6.0, 70]),
        ("Mbpp/115", [[[1, 2], [], {}]], [[{1, 2}, {}, {}]]),
        ("Mbpp/252", ["(1+2j)"], [1 + 2j]),
        ("Mbpp/124", ["0", "1j"], [0.0, 1j]),
        ("Mbpp/3", [[1, 2]], [[1, 2]]),
        ("HumanEval/2", [[1, 2]], [[1, 2]]),
    ],
)
def test_the_types_that_json_lost_are_restored(task_id, written, restored):
    found = restore(task_id, [written])[0]
    assert found == restored
    assert [type(value) for value in found] == [type(value) for value in restored]


def test_only_the_tasks_of_the_release_are_compared_in_a_way_of_their_own(write_rows):
    ids = ["Mbpp/2", "Mbpp/737", "HumanEval/32", "Mbpp/164", "Mbpp/295", "Mbpp/558", "Mbpp/581", "Own/2"]
    path = write_rows(
        *({**ROW, "task_id": task_id, "base_input": []} for task_id in ids if task_id != "Mbpp/2")
    )
    tasks = registry.load(str(path)).tasks
    assert {task_id: (task.comparison.kind, task.comparison.oracle) for task_id, task in tasks.items()} == {
        "Mbpp/737": ("not_none", None),
        "HumanEval/32": ("polynomial_root", None),
        "Mbpp/164": ("alternative", "are_equivalent"),
        "Mbpp/295": ("alternative", "sum_div"),
        "Mbpp/558": ("alternative", "digit_distance_nums"),
        "Mbpp/581": ("alternative", "surface_area"),
        "Own/2": ("evalplus", None),
    }


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "base_input": [[{"atol": 1, "contract": "x"}, ', "atol": ']]},
        {**ROW, "prompt": '"base_input": [], "plus_input": [[9]]'},
        {"plus_input": [[1]], "base_input": [[{"plus_input": [2]}]], **without("base_input")},
        {**ROW, "plus_input": [["}", '"}', "]"]]},
    ],
)
def test_inputs_cut_out_unread_are_those_of_a_full_parse(write_rows, row):
    file = read_suite_file(write_rows(row))
    cut, whole = (evalplus.load_tasks(file, released=released)["Own/1"] for released in (True, False))
    assert cut.prompt == whole.prompt == row["prompt"]
    for quick, full in zip(cut.groups, whole.groups, strict=True):
        assert quick.tests.inputs() == full.tests.inputs() == row[f"{quick.name}_input"]


@pytest.mark.dataset
@pytest.mark.parametrize(
    ("name", "file_name", "tasks", "inputs"),
    [
        ("humaneval+", "HumanEvalPlus", 164, 124_253),
        ("humaneval+mini", "HumanEvalPlus-Mini", 164, 2_677),
        ("humaneval+noextreme", "HumanEvalPlus-NoExtreme", 164, 124_074),
        ("mbpp+", "MbppPlus", 378, 41_015),
        ("mbpp+noextreme", "MbppPlus-NoExtreme", 378, 40_810),
    ],
)
def test_a_released_suite_has_the_tasks_and_inputs_of_its_file(data_dir, name, file_name, tasks, inputs):
    suite = registry.load(name, data_dir=data_dir)
    assert (suite.name, len(suite.tasks)) == (name, tasks)
    count = 0
    with gzip.open(data_dir / f"{file_name}.jsonl.gz") as lines:
        for row in map(json.loads, lines):
            task = suite.tasks[row["task_id"]]
            assert task.reference == row["prompt"] + row["canonical_solution"]
            assert task.comparison.atol == row["atol"]
            for group in task.groups:
                written = row[f"{group.name}_input"] or []
                found = group.tests.inputs()
                assert found == restore(task.task_id, written)
                count += len(found)
    assert count == inputs


@pytest.mark.dataset
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("humaneval+", {"evalplus": 163, "polynomial_root": 1}),
        ("mbpp+", {"evalplus": 366, "set": 7, "not_none": 3, "alternative": 2}),
    ],
)
def test_a_released_suite_has_its_special_comparisons(data_dir, name, kinds):
    suite = registry.load(name, data_dir=data_dir)
    assert Counter(task.comparison.kind for task in suite.tasks.values()) == kinds
