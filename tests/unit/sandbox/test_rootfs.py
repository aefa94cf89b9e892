"""What is said where the root folder cannot be made."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

import pytest

from grader.errors import SandboxError
from grader.sandbox import rootfs

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "error", [FULL, shutil.Error([("a", "b", f"{FULL}: 'a' -> 'b'"), ("c", "d", f"{FULL}: 'c' -> 'd'")])]
)
def test_a_full_disk_is_named_and_nothing_half_made_is_left(tmp_path, monkeypatch, error):
    def fill(_root, _packages):
        raise error

    monkeypatch.setattr(rootfs, "_fill", fill)
    with pytest.raises(SandboxError) as raised:
        rootfs.prepare_root(tmp_path)
    assert str(raised.value) == (
        f"the cache folder {tmp_path} cannot be written to (No space left on device); "
        "make room there, or set GRADER_CACHE_DIR to one that can be"
    )
    assert [path.name for path in (tmp_path / "roots").iterdir()] == ["lock"]


def test_a_full_disk_under_pip_is_not_called_a_missing_index(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: [Errno 28] No space left on device: 'x' -> 'y'")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(rootfs, "_fill", lambda root, packages: rootfs._install(packages, root))
    with pytest.raises(SandboxError, match=r"cannot be written to \(No space left on device\)"):
        rootfs.prepare_root(tmp_path)
