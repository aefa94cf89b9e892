"""What is in the images: the runner, an interpreter, its packages, and nothing else."""

from __future__ import annotations

import os
import re

import pytest

from grader.sandbox import docker_engine, factory, images
from grader.sandbox.options import CellOptions

VERSION = r"python3\.\d+"
MODULE = r"[A-Za-z0-9_.+@-]+"
# Every file of an image must be one of these.
EXPECTED = re.compile(
    "|".join(
        (
            rf"python/bin/python3|python/lib/libpython3[^/]*|python/lib/{VERSION}/.+\.(py|pyc|txt|so)",
            rf"python/lib/{VERSION}/lib-dynload/{MODULE}\.so",
            r"(usr/lib|lib|lib64|usr/lib64)/(x86_64-linux-gnu/)?(lib|ld-linux)[^/]+\.so[.\d]*",
            r"python/lib/lib[^/]+\.so[.\d]*",
            r"runner/(__pycache__/)?[a-z_]+(\.cpython-\d+)?\.pyc?",
            r"dev/(null|zero|full|random|urandom)",
            # Made by the engine for every container.
            r"\.dockerenv|dev/console|etc/(hostname|hosts|mtab|resolv\.conf)",
        )
    )
)
PACKAGES = re.compile(r"python/site-packages/(numpy|numpy\.libs|numpy-[\d.]+\.dist-info)/.+")
UNWANTED = re.compile(
    r"(^|/)(gcc|g\+\+|cc|ld|as|make|apt|apt-get|dpkg|pip|pip3|sh|bash|dash|busybox|perl|curl|wget|git|setuptools|"
    r"ensurepip|idlelib|conftest\.py|\.env|\.git|id_rsa|credentials)(/|$)|(^|/)grader/|humaneval|mbpp|evalplus|"
    r"\.(jsonl|jsonl\.gz|key|pem)$",
    re.IGNORECASE,
)


MADE = [*((name, "machine") for name in sorted(images.PACKAGES)), (images.DEFAULT, "debian")]


@pytest.fixture(scope="module", params=MADE, ids="-from-".join)
def made(request: pytest.FixtureRequest) -> tuple[str, str]:
    """An image that is there: its name, and what its interpreter comes from."""
    name, source = request.param
    missing = factory.unavailable_reason(CellOptions(sandbox="docker"))
    if missing:
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    if source == "debian":
        request.getfixturevalue("debian_packages")
    images.build(name, source=source)
    return name, source


@pytest.fixture(scope="module")
def files(made: tuple[str, str]) -> list[str]:
    client = docker_engine.connect()
    try:
        return images.audit(client, images.reference(*made))
    finally:
        client.close()


def test_nothing_unexpected_is_inside(made, files):
    packages = PACKAGES if images.PACKAGES[made[0]] else re.compile("(?!)")
    assert [file for file in files if not EXPECTED.fullmatch(file) and not packages.fullmatch(file)] == []


def test_no_tool_data_set_grader_or_secret_is_inside(files):
    assert [file for file in files if UNWANTED.search(file)] == []


def test_there_is_bytecode_for_everything_that_is_imported(files):
    bytecode = {
        re.sub(r"__pycache__/(.+)\.cpython-\d+\.pyc", r"\1.py", file)
        for file in files
        if file.endswith(".pyc")
    }
    sources = {file for file in files if file.endswith(".py")}
    assert len(sources - bytecode) <= 5, sources - bytecode  # Python's own templates that are not Python 3


def test_building_again_changes_nothing(made):
    name, source = made
    client = docker_engine.connect()
    try:
        found = images.find(client, images.reference(name, source)).id
    finally:
        client.close()
    assert images.build(name, source=source) == found
