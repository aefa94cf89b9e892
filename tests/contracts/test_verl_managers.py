"""verl's own reward managers with our functions, loaded as its trainer loads them."""

from __future__ import annotations

import pytest

from grader.suites import registry

# The first test of a machine makes the environments.
pytestmark = pytest.mark.timeout(1800)

TASK = next(iter(registry.load("starter").tasks.values()))
# right, wrong, right (stdio), right (assertions), and one that exits with 0 in place of being right
SCORES = [1.0, 0.0, 1.0, 1.0, 0.0]
KEYS = {"score", "acc", "infrastructure_error", "flagged"}


@pytest.fixture(scope="module")
def found(verl_environment, service):
    return verl_environment.run(
        "verl_managers.py", URL=service.url, TASK=TASK.task_id, REFERENCE=f"```python\n{TASK.reference}\n```"
    )


@pytest.fixture(scope="module")
def lost(verl_environment, noop_service):
    return verl_environment.run("verl_managers.py", URL=noop_service.url, ROWS="lost")


@pytest.mark.parametrize("manager", ["naive", "batch"])
def test_managers_of_whole_batches(found, manager):
    assert found[manager]["rewards"] == SCORES
    assert found[manager]["extra"] == {
        "score": SCORES, "acc": SCORES, "infrastructure_error": [0.0] * 5, "flagged": [0.0] * 4 + [1.0],
    }  # fmt: skip


def test_the_prime_manager_gets_floats(found):
    assert found["prime"] == {"rewards": SCORES, "extra": {}}


@pytest.mark.parametrize("manager", ["loop", "loop sync"])
def test_managers_of_the_reward_loop(found, manager):
    assert [one["reward"] for one in found[manager]] == SCORES
    assert all(one["extra"].keys() == KEYS for one in found[manager])


def test_the_manager_of_our_own(found):
    assert [one["reward"] for one in found["own"]] == [1.0, 0.2, 1.0, 1.0, 0.1]
    assert all(one["extra"].keys() == KEYS | {"tiered", "tiered.base"} for one in found["own"])
    assert [one["extra"]["tiered.base"] for one in found["own"]] == SCORES


def test_tasks_of_a_suite(found):
    assert found["task"]["rewards"] == [1.0, 0.0]


@pytest.mark.parametrize("manager", ["naive", "batch", "own"])
def test_what_could_not_be_judged_is_an_error(lost, manager):
    name, said = lost[manager]
    assert name == "NotJudgedError"
    assert "infrastructure_error_score" in said


def test_what_could_not_be_judged_is_scored_as_was_asked_for(lost):
    assert lost["batch scored"] == {
        "rewards": [1.0, -0.5],
        "extra": {
            "score": [1.0, -0.5],
            "acc": [1.0, "nan"],
            "infrastructure_error": [0.0, 1.0],
            "flagged": [0.0, 0.0],
        },
    }
    assert [one["reward"] for one in lost["limited"]] == [1.0, -0.5]
    assert all(one["extra"].keys() == KEYS for one in lost["limited"])


def test_prime_which_takes_every_exception_for_0_gets_nan(lost):
    assert lost["prime"]["rewards"] == [1.0, "nan"]
    assert lost["prime label"]["rewards"] == ["nan"]
    assert lost["prime scored"]["rewards"] == [1.0, -0.5]
