from __future__ import annotations

import copy
import json
from collections import Counter

import pytest

from grader.status import Status
from grader.suites import registry

SUITE = registry.load("starter")
STUBS = {
    "none": lambda *arguments: None,
    "zero": lambda *arguments: 0,
    "one": lambda *arguments: 1,
    "minus one": lambda *arguments: -1,
    "empty list": lambda *arguments: [],
    "empty dict": lambda *arguments: {},
    "empty text": lambda *arguments: "",
    "true": lambda *arguments: True,
    "false": lambda *arguments: False,
    "first argument": lambda *arguments: arguments[0],
}


def reference(task):
    names: dict[str, object] = {}
    exec(task.reference, names)
    return names[task.entry_point]


def samples():
    return [json.loads(line) for line in registry.starter_samples_path().read_text("utf-8").splitlines()]


def expected():
    return json.loads(registry.starter_samples_path().with_name("starter_expected.json").read_text("utf-8"))


def test_the_starter_suite_loads_without_data_folder_and_network():
    assert (SUITE.name, SUITE.version) == ("starter", "v1")
    assert list(SUITE.tasks) == [f"Starter/{number}" for number in range(len(SUITE.tasks))]
    assert len(SUITE.tasks) >= 18


@pytest.mark.parametrize("task", SUITE.tasks.values(), ids=lambda task: task.entry_point)
class TestEveryTask:
    def test_its_examples_are_true(self, task):
        import doctest

        names: dict[str, object] = {"__name__": "starter"}
        exec(task.reference, names)
        examples = doctest.DocTestParser().get_doctest(
            names[task.entry_point].__doc__, names, task.entry_point, None, 0
        )
        assert examples.examples
        assert doctest.DocTestRunner().run(examples).failed == 0

    def test_its_reference_always_gives_the_same_and_keeps_its_arguments(self, task):
        function = reference(task)
        for group in task.groups:
            for arguments in group.tests.inputs():
                before = copy.deepcopy(arguments)
                assert function(*arguments) == function(*copy.deepcopy(before))
                assert arguments == before

    @pytest.mark.parametrize("stub", STUBS)
    def test_a_trivial_stub_fails_its_base_tests(self, task, stub):
        function = reference(task)
        inputs = task.groups[0].tests.inputs()
        assert any(STUBS[stub](*arguments) != function(*arguments) for arguments in inputs)

    def test_no_single_value_is_right_for_most_of_its_tests(self, task):
        function = reference(task)
        answers = Counter(
            repr(function(*arguments)) for group in task.groups for arguments in group.tests.inputs()
        )
        assert answers.most_common(1)[0][1] <= 0.75 * answers.total()


def test_every_sample_names_a_task_and_has_an_expected_status():
    rows, statuses = samples(), expected()
    assert [row["sample_id"] for row in rows] == list(statuses)
    assert len(statuses) == len(rows)
    for row in rows:
        assert row["task_id"] in SUITE.tasks
        assert set(row) in ({"task_id", "sample_id", "solution"}, {"task_id", "sample_id", "completion"})
        assert statuses[row["sample_id"]] in set(Status)


def test_the_samples_show_the_statuses_and_cost_little():
    statuses = Counter(expected().values())
    for status in ("passed", "wrong_answer", "runtime_error", "compile_error", "memory_limit", "no_code"):
        assert statuses[status] >= 1
    assert 1 <= statuses["time_limit"] <= 2, "each one costs its whole CPU limit"


def test_every_task_with_samples_has_two_to_five_and_a_right_one():
    by_task: dict[str, list[str]] = {}
    statuses = expected()
    for row in samples():
        by_task.setdefault(row["task_id"], []).append(statuses[row["sample_id"]])
    assert len(by_task) >= 12
    for found in by_task.values():
        assert 2 <= len(found) <= 5
        assert "passed" in found
