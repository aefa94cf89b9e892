"""One harness a backend and test process: the attacks of a run meet each other's traces, if there are any."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attack_backends import BACKENDS, Backend
from attack_harness import Harness

from grader import settings
from grader.sandbox import factory, images, rootfs


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the attacks that a backend is not tried with (``Backend.attacks``), and other tests for variants."""
    tried = {name: {attack.name for attack in backend.attacks()} for name, backend in BACKENDS.items()}
    if os.environ.get("GRADER_ATTACKS") not in ("all", "variants"):
        tried = {name: set() if BACKENDS[name].variant else names for name, names in tried.items()}
    kept, left_out = [], []
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        attack, backend = parameters.get("attack"), parameters.get("backend")
        wanted = backend not in tried or (
            attack.name in tried[backend] if attack else not BACKENDS[backend].variant
        )
        (kept if wanted else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture(scope="session")
def attack_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of its own, but for the sandbox's root, which takes a minute to make."""
    shared = settings.cache_dir()
    rootfs.prepare_root(shared)
    cache = tmp_path_factory.mktemp("attack-cache")
    (cache / "roots").symlink_to(shared / "roots")
    return cache


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """The kind of cell under attack; skipped where it cannot be made, but in CI failed."""
    chosen = BACKENDS[request.param]
    missing = factory.unavailable_reason(chosen.cells)
    if missing:
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    if chosen.sandbox == "docker":
        images.build()
    return chosen


@pytest.fixture(scope="session")
def harness(backend: Backend, attack_cache: Path) -> Iterator[Harness]:
    """An engine with one worker and one cell."""
    with Harness(backend, attack_cache) as made:
        yield made
