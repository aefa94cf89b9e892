"""A package that root has installed with umask 077: nobody, as whom root's cells run, may not read it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import grader

GRADE = """
import json, os, sys
from pathlib import Path
from grader.limits import Limits
from grader.sandbox import factory, rootfs
from grader.sandbox.options import CellOptions
os.umask(0o077)
for _ in range(2):  # the second finds what the first has made
    source = factory.prepare(CellOptions(), Path(sys.argv[1]))
    assert source.runner != Path(rootfs.__file__).parent / "runner", source
    cell = source.make(Limits())
    cell.check_alive()
    cell.close()
print(len(list(source.runner.glob("__pycache__/*.pyc"))))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's cells run as that user, who can read them")
def test_cells_start_from_a_copy_that_they_can_read(sandbox_root, tmp_path):
    package = tmp_path / "library" / "grader"
    shutil.copytree(Path(grader.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (package, *package.rglob("*")):
        file.chmod(0o700 if file.is_dir() else 0o600)
    cache = tmp_path / "cache"
    (cache / "roots").mkdir(parents=True)
    (cache / "roots" / sandbox_root.name).symlink_to(sandbox_root.resolve())
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", GRADE, str(cache)],
        env=environment, cwd="/", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 20  # or every cell would compile them again


def test_the_packages_own_is_used_where_cells_can_read_it(tmp_path):
    from grader.sandbox import rootfs

    rootfs.prepare_runner(tmp_path)
    if rootfs._is_readable(rootfs._RUNNER):
        assert rootfs.prepare_runner(tmp_path) == rootfs._RUNNER
        assert list(tmp_path.iterdir()) == []
