"""SandboxFusion's own client package against our endpoints."""

from __future__ import annotations

import pytest

from grader.suites import registry

# The first test of a machine makes the environments.
pytestmark = pytest.mark.timeout(1800)


def test_the_client_package(verl_environment, service):
    _, second, third, *_ = registry.load("starter").tasks.values()
    right = f"```python\n{second.reference}\n```"
    wrong = f"```python\ndef {second.entry_point}(*_):\n    return 'x'\n```"
    found = verl_environment.run("sandbox_fusion_package.py", URL=service.url, RIGHT=right, WRONG=wrong)
    assert found.pop("prompts") == [[1, second.prompt], [2, third.prompt]]
    assert found.pop("first") == second.prompt
    assert found.pop("submitted") == [
        [1, True, "fenced", [True] * len(second.groups)],
        [1, False, "fenced", [False]],
        [1, False, "empty", [False]],
    ]
    assert found == {
        "right": ["Success", "Finished", "hello\n", 0],
        "fails": ["Failed", 3, "x\n"],
        "slow": ["Failed", "TimeLimitExceeded"],
        "many": [f"{n}\n" for n in range(20)],
    }
