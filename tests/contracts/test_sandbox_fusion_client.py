"""SandboxFusion's own client package against our endpoints."""

from __future__ import annotations

import pytest

# The first test of a machine makes the environments.
pytestmark = pytest.mark.timeout(1800)


def test_the_client_package(verl_environment, service):
    found = verl_environment.run("sandbox_fusion_package.py", URL=service.url)
    assert found == {
        "right": ["Success", "Finished", "hello\n", 0],
        "fails": ["Failed", 3, "x\n"],
        "slow": ["Failed", "TimeLimitExceeded"],
        "many": [f"{n}\n" for n in range(20)],
    }
