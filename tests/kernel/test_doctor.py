"""What is said of mechanisms that are missing, where they really are, and of those that a Docker daemon really has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from grader.limits import Limits
from grader.sandbox import docker_preflight, factory, images, preflight
from grader.sandbox.options import CellOptions

MAKE_A_CELL = """
from grader import settings
from grader.errors import SandboxError
from grader.limits import Limits
from grader.sandbox import factory
from grader.sandbox.options import CellOptions
try:
    factory.prepare(CellOptions(), settings.cache_dir()).make(Limits()).close()
except SandboxError as error:
    print(error)
"""
WITHOUT_USER_NAMESPACES = """
import os
from pathlib import Path
from grader.sandbox.runner import kernel
uid, gid = os.geteuid(), os.getegid()
kernel.unshare(kernel.CLONE_NEWUSER)
kernel.map_user(os.open("/proc", os.O_PATH), 0, uid, gid)
Path("/proc/sys/user/max_user_namespaces").write_text("0")  # in this one alone
"""
WITH_FEW_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"


def said_after(preparation: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-P", "-c", preparation + MAKE_A_CELL],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_where_a_cell_can_be_made_nothing_is_said(sandbox_root):
    assert said_after("") == ""


def test_without_user_namespaces_the_error_names_them_and_the_remedy(sandbox_root):
    error = said_after(WITHOUT_USER_NAMESPACES)
    assert "unshare" in error
    assert "userns: /proc/sys/user/max_user_namespaces is 0" in error
    assert "sysctl -w user.max_user_namespaces" in error
    assert "netns" not in error  # it cannot be had without, and the remedy is the same


def test_limits_below_those_of_a_sample_are_refused_at_the_start(sandbox_root):
    error = said_after(WITH_FEW_FILES)
    assert "rlimits: RLIMIT_NOFILE is 200, and samples get 256" in error
    assert "ulimit -Hn" in error


def test_every_layer_of_a_stamp_has_a_row(sandbox_root):
    rows = {mechanism.name for mechanism in preflight.report()}
    assert {"rlimits", "no_new_privs", "no_capabilities", "schedstat", "userns", "cgroup"} <= rows
    cell = factory.prepare(CellOptions(), sandbox_root.parent.parent).make(Limits())
    layers = set(cell.layers)
    cell.close()
    known = {"readonly_root"}  # made by mounts, and so by mountns
    prefixes = ("landlock_", "memory_", "pids_cgroup")
    assert {layer for layer in layers - rows - known if not layer.startswith(prefixes)} == set()


def test_the_daemon_its_image_and_each_runtime_have_a_row():
    missing = factory.unavailable_reason(CellOptions(sandbox="docker"))
    if missing:
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    images.build("python-scientific")
    found = {mechanism.name: mechanism for mechanism in docker_preflight.report()}
    assert {"docker", "docker_image", "docker_runc", "docker_runc_uids"} <= set(found)
    assert [mechanism.detail for mechanism in found.values() if not mechanism.ok] == []
    assert not any(mechanism.required for mechanism in found.values())
    assert "memory_cgroup_v" in found["docker_runc"].detail
    assert "lacks" not in found["docker_runc"].detail
    assert "setuid_setgid_kill_capabilities" in found["docker_runc_uids"].detail
    if "docker_runsc" in found:
        assert "gvisor" in found["docker_runsc"].detail
        assert "samples share /tmp" in found["docker_runsc"].detail


def test_without_a_daemon_one_row_says_so(monkeypatch):
    pytest.importorskip("docker")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    (row,) = docker_preflight.report()
    assert (row.name, row.ok, row.required) == ("docker", False, False)
    assert "start it" in row.detail
