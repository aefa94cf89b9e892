"""What cells are made from: decided once, so that a later cell is not another kind of cell."""

from __future__ import annotations

import pytest

from grader.errors import SandboxError
from grader.limits import Limits
from grader.sandbox import cgroup, factory, preflight, rootfs
from grader.sandbox.options import CellOptions


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    monkeypatch.setattr(preflight, "require", lambda _allowed: None)
    monkeypatch.setattr(rootfs, "prepare_root", lambda *_, **__: tmp_path / "root")
    monkeypatch.setattr(rootfs, "prepare_runner", lambda _cache: tmp_path / "runner")
    return lambda: factory.prepare(CellOptions(), tmp_path)


def test_where_control_groups_worked_no_cell_is_made_without(prepared, monkeypatch):
    monkeypatch.setattr(cgroup, "unavailable_reason", lambda: "")
    source = prepared()

    def refuse(*_):
        raise SandboxError("cannot make a group below /somewhere: No space left on device")

    monkeypatch.setattr(cgroup, "make_group", refuse)
    with pytest.raises(SandboxError, match=r"no longer.*No space left.*grader doctor"):
        source.make(Limits())


def test_where_they_never_worked_none_is_asked_for(prepared, monkeypatch):
    monkeypatch.setattr(cgroup, "unavailable_reason", lambda: "no permission")
    monkeypatch.setattr(cgroup, "make_group", lambda *_: pytest.fail("asked for"))
    source = prepared()
    assert not source.groups
    with pytest.raises(SandboxError):  # the root is made up
        source.make(Limits())


def test_what_is_in_the_cells_can_be_named_before_they_are_made(prepared, monkeypatch):
    before = factory.digest_of(CellOptions())
    assert prepared().digest == before
    monkeypatch.setattr(rootfs, "runner_digest", lambda: "0" * 64)
    assert prepared().digest == factory.digest_of(CellOptions()) != before
