"""Roots from Debian's packages: what is refused, with which words, and what names their content."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from grader.errors import InputError, SandboxError
from grader.sandbox import debian_root, images, rootfs

NOBODY_LISTENS = "deb http://127.0.0.1:9/debian bookworm main"


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Temporary files go into a folder of this test's own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def make(sources=None):
    with debian_root.packed_root((), rootfs._RUNNER, sources):
        pytest.fail("a root was made of nothing")


def test_a_mirror_that_does_not_answer_is_named_with_a_remedy(debian_packages, scratch):
    with pytest.raises(SandboxError) as found:
        make([NOBODY_LISTENS])
    for part in ("mmdebstrap cannot unpack", "127.0.0.1:9", "Connection refused", "apt-get update"):
        assert part in str(found.value)
    assert list(scratch.iterdir()) == []


def test_without_mmdebstrap_it_says_how_to_install_it(debian_packages, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SandboxError, match="mmdebstrap is missing: apt-get install mmdebstrap"):
        make()


def test_a_full_disk_is_found_before_the_work(debian_packages, scratch, monkeypatch):
    monkeypatch.setattr(debian_root, "_NEEDED_BYTES", 1 << 60)
    with pytest.raises(SandboxError, match=rf"the disk of {scratch} is full: .*TMPDIR="):
        make()


@pytest.mark.parametrize(
    ("step", "said", "told"),
    [
        ("bootstrap", "E: Failed to fetch x  Write error - write (28: No space left on device)", "is full"),
        ("bootstrap", "W: GPG error: NO_PUBKEY 0E98404D386FA1D9\nE: Failed to fetch", "keyring"),
        ("bootstrap", "mount: permission denied: Operation not permitted", "CAP_SYS_ADMIN"),
        ("download", "ERROR: No matching distribution found for numpy<2.5,>=2.4", "PIP_INDEX_URL"),
        ("download", "/usr/bin/python3: No module named pip", "ensurepip"),
    ],
)
def test_an_error_has_its_cause_and_its_remedy(step, said, told):
    explained = debian_root._explain(step, f"I: using a folder\n{said}\nE: mmdebstrap failed to run")
    assert explained.startswith(debian_root._DOING[step])
    assert said in explained
    assert told in explained
    assert "I: " not in explained


def test_only_root_can(monkeypatch):
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "x"})
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match="sudo grader images build --offline --from debian"):
        make()


def test_another_system_s_sources_are_not_debian_s(monkeypatch):
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "arch", "PRETTY_NAME": "Arch"})
    with pytest.raises(SandboxError, match="this machine is Arch: "):
        images.reference("python", "debian")


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match="give one of machine, debian"):
        images.reference("python", "ubuntu")
    with pytest.raises(InputError, match="give --offline"):
        images.build("python", source="debian", offline=False)


def packed(**changes):
    contents = {"python/a.py": b"a", "python/__pycache__/a.pyc": b"1", "runner/wire.py": b"w"} | changes
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"./{name}")
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return debian_root.content_key(stream)


def test_the_key_is_of_what_programs_find_and_of_nothing_else():
    usual = packed()
    for same in ({"python/__pycache__/a.pyc": b"2"}, {"runner/wire.py": b"v"}):
        assert packed(**same) == usual
    keys = {usual, packed(**{"python/a.py": b"b"}), packed(**{"python/b.py": b""})}
    keys |= {packed(**{"python/b.py": "a.py"}), packed(**{"python/b.py": "c.py"})}
    assert len(keys) == 5
