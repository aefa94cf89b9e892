"""verl's own scoring by SandboxFusion, with our URL in the place of its service's."""

from __future__ import annotations

import pytest

# The first test of a machine makes the environments.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def found(verl_environment, service):
    return verl_environment.run("verl_sandbox.py", URL=service.url)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("right", [1.0, ["success"] * 2]),
        ("wrong", [0.0, ["wrong_answer"] * 2]),
        ("echo", [1.0, ["success"] * 2]),
        ("half", [0.5, ["success", "wrong_answer"]]),
        ("asserted", [1.0, ["success"] * 2]),
        ("raises", [0.0, ["runtime_error"] * 2]),
        ("broken", [0.0, ["runtime_error"] * 2]),
        ("endless", [0.0, ["timeout"]]),
        ("noisy", [1.0, ["success"]]),
        ("many", [1.0, ["success"] * 100]),
    ],
)
def test_scores(found, name, expected):
    assert found[name] == expected


def test_an_exit_status_of_0_is_enough_for_assertions_there(found):
    """Known of this contract, and the reason for compute_score: it has no expected output to be wrong about."""
    assert found["exit 0"] == [1.0, ["success"] * 2]
