"""tinker-cookbook's own grading of code, which sends LiveCodeBench's runner along as files of a program."""

from __future__ import annotations

import pytest

# The first test of a machine makes the environments.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def found(tinker_environment, service):
    return tinker_environment.run("tinker_sandbox.py", SANDBOX_URL=f"{service.url}/run_code")


@pytest.mark.parametrize(
    ("name", "passed", "said"),
    [
        ("lines", True, ""),
        ("lines, wrong", False, "Wrong Answer"),
        ("calls", True, ""),
        ("calls, wrong", False, "Wrong Answer"),
        ("raises", False, "Runtime Error"),
        ("endless", False, "Time Limit Exceeded"),
    ],
)
def test_checks(found, name, passed, said):
    assert found[name][:3] == [passed, "Success" if passed else "Failed", None]
    assert said in found[name][3]


def test_many_at_once(found):
    assert found["many"] == [True] * 32


def test_an_exit_status_of_0_is_enough_there(found):
    """Known of this contract: its tests are files of the program, and its exit status is the verdict."""
    assert found["exits"][0] is True
