"""Cells for the kernel tests, made by this user and, where this is root, by an ordinary user too."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import grader

IS_ROOT = os.geteuid() == 0
ORDINARY = 12345  # a user without name, group, or any file
SCRIPT = Path(__file__).with_name("in_a_cell.py")
LIMITS = {"time_floor_s": 20.0, "idle_s": 60.0}


@dataclass(frozen=True)
class User:
    """Somebody who makes cells: with what interpreter, root folder and environment."""

    name: str
    python: str
    root: Path
    environment: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, *runs: dict[str, Any], control_groups: bool = True, **limits: Any) -> dict[str, Any]:
        """Run programs in one cell, one after the other; see ``in_a_cell.py``."""
        job = {
            "root": str(self.root),
            "limits": LIMITS | limits,
            "control_groups": control_groups,
            "runs": runs,
        }
        ended = self.command([str(self.environment["SCRIPT"])], input=json.dumps(job))
        assert ended.returncode == 0, ended.stderr
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    def command(self, arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run this user's interpreter."""
        return subprocess.run(
            [self.python, "-P", *arguments], env=self.environment, capture_output=True, text=True, timeout=300,
            check=False, **self.options, **options,
        )  # fmt: skip


@pytest.fixture(scope="session")
def this_user(sandbox_root: Path) -> User:
    package = str(Path(grader.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": package, "SCRIPT": str(SCRIPT)}
    return User("root" if IS_ROOT else "ordinary", sys.executable, sandbox_root.resolve(), environment)


@pytest.fixture(scope="session")
def ordinary_user(sandbox_root: Path, this_user: User) -> Iterator[User]:
    """An ordinary user: this one, or where this is root, another that has a copy of everything in a folder of its
    own, since root's files may lie where nobody else may look."""
    if not IS_ROOT:
        yield this_user
        return
    place = Path(tempfile.mkdtemp(prefix="ordinary-", dir=Path(os.environ["GRADER_CACHE_DIR"]).parent))
    try:
        place.chmod(0o755)
        yield _moved_in(place, sandbox_root.resolve())
    finally:
        shutil.rmtree(place)


def _moved_in(place: Path, root: Path) -> User:
    """Give the ordinary user the package, its dependencies, a home, and the root under its interpreter's name."""
    library = place / "library"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(grader.__file__).parent, library / "grader", ignore=ignored)
    for file in _files_of_dependencies("grader"):
        target = library / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file.locate(), target)
    shutil.copy2(SCRIPT, library)
    home = place / "home"
    environment = {
        "PATH": os.environ.get("PATH", ""), "HOME": str(home), "PYTHONPATH": str(library),
        "GRADER_CACHE_DIR": str(home / "cache"), "SCRIPT": str(library / SCRIPT.name), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    options = {"user": ORDINARY, "group": ORDINARY, "extra_groups": [], "cwd": "/"}
    user = User("ordinary", _readable_python(options), Path(), environment, options)
    key = user.command(["-c", "from grader.sandbox.rootfs import root_key; print(root_key())"]).stdout.strip()
    own_root = home / "cache" / "roots" / key
    shutil.copytree(root, own_root, copy_function=_link_or_copy, symlinks=True)
    for folder in (home, home / "cache", home / "cache" / "roots"):
        os.chown(folder, ORDINARY, ORDINARY)
    return User("ordinary", user.python, own_root, environment, options)


def _readable_python(options: dict[str, Any]) -> str:
    """An interpreter of this version that anybody may run: ours may lie in root's home."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    check = "import sys; sys.exit(sys.version_info[:2] != tuple(map(int, sys.argv[1:])))"
    for found in (os.path.realpath(sys.executable), f"/usr/local/bin/{version}", f"/usr/bin/{version}"):
        command = [found, "-I", "-c", check, *map(str, sys.version_info[:2])]
        try:
            if subprocess.run(command, check=False, **options).returncode == 0:
                return found
        except OSError:
            continue
    reason = f"needs a {version} that an ordinary user may run, e.g. in /usr/bin"
    pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


def _files_of_dependencies(name: str) -> Iterator[importlib.metadata.PackagePath]:
    waiting, seen = [name], set()
    while waiting:
        distribution = importlib.metadata.distribution(waiting.pop())
        if distribution.name in seen:
            continue
        seen.add(distribution.name)
        for requirement in distribution.requires or ():
            if ";" not in requirement:
                waiting.append(_name_in(requirement))
        if distribution.name != name:
            yield from (file for file in distribution.files or () if ".." not in file.parts)


def _name_in(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return found[0]


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="session", params=["root", "ordinary"] if IS_ROOT else ["ordinary"])
def user(request: pytest.FixtureRequest, this_user: User) -> User:
    """Each kind of user that this machine can be tried as."""
    if request.param == this_user.name:
        return this_user
    found: User = request.getfixturevalue("ordinary_user")
    return found
