"""One harness a backend and test process: the attacks of a run meet each other's traces, if there are any."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attack_harness import Harness

from grader import settings
from grader.sandbox import rootfs

BACKENDS = ("namespaces",)
"""A further kind of cell is one more word here."""


@pytest.fixture(scope="session")
def attack_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of its own, but for the sandbox's root, which takes a minute to make."""
    shared = settings.cache_dir()
    rootfs.prepare_root(shared)
    cache = tmp_path_factory.mktemp("attack-cache")
    (cache / "roots").symlink_to(shared / "roots")
    return cache


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of cell under attack."""
    return str(request.param)


@pytest.fixture(scope="session")
def harness(backend: str, attack_cache: Path) -> Iterator[Harness]:
    """An engine with one worker and one cell."""
    with Harness(backend, attack_cache) as made:
        yield made
