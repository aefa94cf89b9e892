"""verifiers' own scoring: Rubric of its version 0.1, and the tasks of verifiers.v1, that for NeMo-Gym among them."""

from __future__ import annotations

import pytest

# The first test of a machine makes the environments.
pytestmark = pytest.mark.timeout(1800)


def scored(reward: float | str, metric: float | str, error: str = "NoneType") -> dict[str, object]:
    return {"reward": reward, "metrics": {"grader": metric}, "error": error}


@pytest.fixture(scope="module")
def rubric(old_verifiers_environment, service):
    return old_verifiers_environment.run("verifiers_rubric.py", URL=service.url)


@pytest.fixture(scope="module")
def lost_rubric(old_verifiers_environment, noop_service):
    return old_verifiers_environment.run("verifiers_rubric.py", URL=noop_service.url, ROWS="lost")


@pytest.fixture(scope="module")
def tasks(verifiers_environment, service):
    return verifiers_environment.run("verifiers_tasks.py", URL=service.url)


@pytest.fixture(scope="module")
def lost_tasks(verifiers_environment, noop_service):
    return verifiers_environment.run("verifiers_tasks.py", URL=noop_service.url, ROWS="lost")


def test_a_rubric(rubric):
    assert rubric["single"] == [scored(2.0, 1.0), scored(0.0, 0.0), scored(2.0, 1.0)]
    assert rubric["group"] == [scored(1.0, 1.0), scored(0.0, 0.0)]


def test_a_rubric_takes_exceptions_for_0_so_the_state_says_it(lost_rubric):
    assert lost_rubric["single"] == [scored(2.0, 1.0), scored("nan", "nan", "InfraError")]
    assert lost_rubric["group"] == [scored(1.0, 1.0), scored("nan", "nan", "InfraError")]
    assert lost_rubric["label"] == [scored("nan", "nan", "Error")]


def test_a_rollout_that_could_not_be_judged_is_run_again(lost_rubric):
    assert lost_rubric["attempts"] == 2
    assert lost_rubric["final"] == [scored(2.0, 1.0)]


def test_a_task_of_v1(tasks):
    assert {name: one["reward"] for name, one in tasks["task"].items()} == {"right": 1.0, "wrong": 0.0}
    assert tasks["task"]["wrong"]["info"] == {"grader": {"status": "wrong_answer", "flags": []}}


def test_a_task_of_v1_that_could_not_be_judged_has_failed(lost_tasks):
    name, said = lost_tasks["task"]["lost"]
    assert name == "TaskError"
    assert "could not be judged" in said


def test_nemo_gym(tasks):
    found = tasks["nemo gym"]
    assert {name: one["reward"] for name, one in found.items()} == {"right": 1.0, "wrong": 0.0}
    echoed = found["right"]["info"]["nemo_gym"]
    assert (echoed["_ng_task_index"], echoed["mask_sample"]) == (7, False)
    assert echoed["verifier_metadata"]["unit_tests"]["fn_name"] == "add"


def test_nemo_gym_when_a_sample_could_not_be_judged(lost_tasks):
    name, said = lost_tasks["nemo gym"]["lost"]
    assert name == "TaskError"
    assert "503" in said
