"""SkyRL-gym's registry and AReaL's wrapper of reward functions with our environment and function."""

from __future__ import annotations

import pytest

# The first test of a machine makes the environments.
pytestmark = pytest.mark.timeout(1800)


def test_skyrl_gym(verl_environment, service):
    found = verl_environment.run("skyrl_env.py", URL=service.url)
    prompt = [[{"role": "user", "content": "Add!"}], {}]
    for (begun, step, metrics), status in zip(found, ["passed", "wrong_answer", "no_code"], strict=True):
        reward = float(status == "passed")
        assert begun == prompt
        assert step == {
            "observations": [],
            "reward": reward,
            "done": True,
            "metadata": {"status": status, "infrastructure_error": False, "flags": []},
        }
        assert metrics == {"passed": reward, "infrastructure_error": 0.0, "flagged": 0.0}


def test_areal(verl_environment, service):
    right, wrong, other, no_column, bad_tests = verl_environment.run(
        "areal_reward.py", GRADER_URL=service.url
    )
    assert (right, wrong, other) == (1.0, 0.0, 0.0)
    assert no_column[0] == "InputError"
    assert bad_tests[0] == "RequestRefused"


def test_areal_is_told_of_what_could_not_be_judged(verl_environment, noop_service):
    found = verl_environment.run("areal_reward.py", GRADER_URL=noop_service.url)
    assert found[0] == 1.0
    assert found[2][0] == "NotJudgedError"
