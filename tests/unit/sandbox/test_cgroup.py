"""Control groups, on a made-up tree: what is found, what is made, and what is taken for abandoned."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from grader.errors import SandboxError
from grader.sandbox import cgroup
from grader.sandbox.runner import zygote


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A made-up machine; ``boot(cgroup_file, mounts)`` writes its two files of /proc."""

    def boot(own: str, mounts: list[tuple[Path, str, str]]) -> None:
        (tmp_path / "cgroup").write_text(own)
        lines = [f"none {mount} {kind} {options} 0 0" for mount, kind, options in mounts]
        lines.insert(0, "proc /proc proc rw,nosuid 0 0")
        (tmp_path / "mounts").write_text("\n".join(lines) + "\n")

    real = Path

    class Redirected(type(Path())):
        def __new__(cls, *parts):
            named = str(real(*parts))
            places = {"/proc/self/cgroup": tmp_path / "cgroup", "/proc/self/mounts": tmp_path / "mounts"}
            return real(places.get(named, named))

    monkeypatch.setattr(cgroup, "Path", Redirected)
    return boot


def version_1(tmp_path):
    for name in ("memory", "pids", "cpu"):
        (tmp_path / name / "mine").mkdir(parents=True)
    return [(tmp_path / name, "cgroup", f"rw,relatime,{name}") for name in ("memory", "pids", "cpu")]


def version_2(tmp_path, path="user/session", delegated=("",), enabled=()):
    tree = tmp_path / "unified"
    (tree / path).mkdir(parents=True)
    folder = tree / path
    while folder != tmp_path:
        relative = str(folder.relative_to(tree)).removeprefix(".")
        (folder / "cgroup.controllers").write_text("memory pids\n" if relative in delegated else "\n")
        (folder / "cgroup.subtree_control").write_text("memory pids\n" if relative in enabled else "\n")
        folder = folder.parent
    return [(tree, "cgroup2", "rw,nosuid")]


def test_version_1_has_a_tree_for_each_controller(tmp_path, machine):
    machine("4:memory:/mine\n8:pids:/mine\n1:cpu:/\n0::/\n", version_1(tmp_path))
    found = cgroup.find_hierarchies()
    assert found == {
        "memory": cgroup.Hierarchy(1, tmp_path / "memory/mine"),
        "pids": cgroup.Hierarchy(1, tmp_path / "pids/mine"),
    }


def test_controllers_may_share_a_tree(tmp_path, machine):
    (tmp_path / "both").mkdir()
    machine("3:memory,pids:/\n", [(tmp_path / "both", "cgroup", "rw,memory,pids")])
    assert set(cgroup.find_hierarchies().values()) == {cgroup.Hierarchy(1, tmp_path / "both")}


def test_in_a_container_that_shows_a_part_of_the_tree_the_mount_is_ours(tmp_path, machine):
    machine("4:memory:/docker/0123\n8:pids:/docker/0123\n", version_1(tmp_path))
    assert cgroup.find_hierarchies()["memory"].parent == tmp_path / "memory"


def test_version_2_takes_the_nearest_group_that_gives_both_controllers(tmp_path, machine):
    machine("0::/user/session\n", version_2(tmp_path, delegated=("user",)))
    assert cgroup.find_hierarchies()["pids"] == cgroup.Hierarchy(2, tmp_path / "unified/user")
    assert (tmp_path / "unified/user/cgroup.subtree_control").read_text() == "+memory +pids"


def test_version_2_without_delegation_has_nothing(tmp_path, machine):
    machine("0::/user/session\n", version_2(tmp_path, delegated=()))
    assert cgroup.find_hierarchies() == {}


def test_version_1_goes_first_where_a_machine_has_both(tmp_path, machine):
    mounts = [*version_2(tmp_path, enabled=("",)), *version_1(tmp_path)]
    machine("4:memory:/\n8:pids:/\n0::/user/session\n", mounts)
    assert {at.version for at in cgroup.find_hierarchies().values()} == {1}


def test_a_machine_without_control_groups_has_none_and_says_so(tmp_path, machine):
    machine("0::/\n", [])
    assert cgroup.find_hierarchies() == {}
    assert "memory or pids" in cgroup.unavailable_reason()
    with pytest.raises(SandboxError, match="memory or pids"):
        cgroup.make_group(1 << 30, 64)


def test_a_group_that_cannot_be_made_leaves_nothing_and_says_why(tmp_path, machine):
    machine("4:memory:/mine\n8:pids:/mine\n", version_1(tmp_path))
    (tmp_path / "pids/mine").rmdir()
    (tmp_path / "pids/mine").write_text("no folder")
    (tmp_path / "pids").chmod(0o755)
    mounts = [(tmp_path / "memory", "cgroup", "rw,memory"), (tmp_path / "pids/mine", "cgroup", "rw,pids")]
    machine("4:memory:/mine\n8:pids:/\n", mounts)
    with pytest.raises(SandboxError, match=r"cannot make a group below .*pids/mine: Not a directory"):
        cgroup.make_group(1 << 30, 64)
    assert list((tmp_path / "memory/mine").iterdir()) == []


class TestVersion2Group:
    @pytest.fixture
    def group(self, tmp_path):
        for name in ("memory.max", "memory.swap.max", "memory.events"):
            (tmp_path / name).write_text("")
        return cgroup.Group(2, tmp_path, (tmp_path,))

    def test_memory_is_limited_without_swap(self, group, tmp_path):
        group.limit_memory(12345)
        assert (tmp_path / "memory.max").read_text() == "12345"
        assert (tmp_path / "memory.swap.max").read_text() == "0"

    def test_kills_are_counted(self, group, tmp_path):
        assert group.out_of_memory_kills() == 0
        (tmp_path / "memory.events").write_text("low 0\nhigh 2\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n")
        assert group.out_of_memory_kills() == 3


class TestVersion1Group:
    @pytest.fixture
    def group(self, tmp_path):
        for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"):
            (tmp_path / name).write_text("")
        return cgroup.Group(1, tmp_path, (tmp_path,))

    def test_memory_is_limited_with_and_without_swap(self, group, tmp_path):
        group.limit_memory(777)
        assert (tmp_path / "memory.limit_in_bytes").read_text() == "777"
        assert (tmp_path / "memory.memsw.limit_in_bytes").read_text() == "777"

    def test_without_swap_accounting_nothing_is_swapped(self, group, tmp_path):
        (tmp_path / "memory.memsw.limit_in_bytes").unlink()
        (tmp_path / "memory.swappiness").write_text("60")
        group.limit_memory(777)
        assert (tmp_path / "memory.limit_in_bytes").read_text() == "777"
        assert (tmp_path / "memory.swappiness").read_text() == "0"

    def test_a_kernel_without_swap_will_do(self, group, tmp_path):
        (tmp_path / "memory.memsw.limit_in_bytes").unlink()
        group.limit_memory(777)
        assert not (tmp_path / "memory.swappiness").exists()

    def test_kills_are_counted(self, group, tmp_path):
        (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 1\noom_kill 5\n")
        assert group.out_of_memory_kills() == 5


def test_a_limit_that_cannot_be_set_is_our_error(tmp_path):
    with pytest.raises(SandboxError, match=r"memory\.max"):
        cgroup.Group(2, tmp_path / "gone", ()).limit_memory(1)


def test_groups_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path, machine):
    machine("4:memory:/mine\n8:pids:/mine\n", version_1(tmp_path))
    mine, started, namespace = os.getpid(), cgroup._start_time(os.getpid()), cgroup._pid_namespace()
    living = tmp_path / f"memory/mine/grader-{namespace}-{mine}-{started}-0"
    abandoned = [
        # The process number was given out again since.
        tmp_path / f"memory/mine/grader-{namespace}-{mine}-{int(started) - 1}-0",
        tmp_path / f"pids/mine/grader-{namespace}-999999999-1-3",
    ]
    foreign = [tmp_path / "memory/mine/grader-notes", tmp_path / "pids/mine/other-1-2-3-4"]
    for folder in (living, *abandoned, *foreign):
        folder.mkdir()
    assert cgroup.remove_abandoned() == 2
    assert living.is_dir()
    assert all(folder.is_dir() for folder in foreign)
    assert not any(folder.exists() for folder in abandoned)


def test_a_group_of_another_pid_namespace_is_left_alone_until_it_is_old(tmp_path, machine):
    machine("4:memory:/mine\n8:pids:/mine\n", version_1(tmp_path))
    young, old = (tmp_path / f"memory/mine/grader-1-{number}-1-0" for number in (4, 5))
    for folder in (young, old):
        folder.mkdir()
    os.utime(old, (0, 0))
    assert cgroup.remove_abandoned() == 1
    assert young.is_dir()


def test_a_process_that_is_not_there_has_no_start_time():
    assert cgroup._start_time(os.getpid()).isdigit()
    assert cgroup._start_time(999999999) == ""


def test_a_foreign_group_with_a_name_like_ours_is_left_alone(tmp_path, machine):
    machine("4:memory:/mine\n8:pids:/mine\n", version_1(tmp_path))
    foreign = tmp_path / "memory/mine/grader-my-own-group"
    foreign.mkdir()
    assert cgroup.remove_abandoned() == 0
    assert foreign.is_dir()


def test_a_real_group_can_be_made_limited_and_removed():
    reason = cgroup.unavailable_reason()
    if reason:
        with pytest.raises(SandboxError, match=re.escape(reason)):
            cgroup.make_group(1 << 28, 32)
        return
    group = cgroup.make_group(1 << 28, 32)
    try:
        for size in ((1 << 27), (1 << 29)):  # down and up: on version 1 the order of writing differs
            group.limit_memory(size)
            name = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
            assert int((group.memory / name).read_text()) == size
        assert int((group.folders[-1] / "pids.max").read_text()) == 32
        assert group.out_of_memory_kills() == 0
    finally:
        group.remove()
    assert not any(folder.exists() for folder in group.folders)


def test_there_is_room_for_every_process_of_the_runner_beside_all_threads_of_a_sample():
    """Else an assertion test's program has one thread less in a cell that has started every zygote, and can keep its
    driver from being forked."""
    zygotes = 2 * len({"plain", *zygote.MODULES})  # each for samples alone, and for a sample and its driver
    assert zygotes + len(("launcher", "supervisor", "driver")) == cgroup.RUNNER_PROCESSES
