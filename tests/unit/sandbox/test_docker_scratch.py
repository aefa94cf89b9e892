"""The folder that samples share where they cannot have one each must be empty between two of them."""

import os
import socket
from pathlib import Path

import pytest

from grader.sandbox.runner import scratch


def test_files_folders_links_and_sockets_are_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    folder = tmp_path / "scratch"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_text("x")
    (folder / ".hidden").write_text("x")
    (folder / "link").symlink_to(outside)
    (folder / "a" / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket"))
    scratch.empty(str(folder))
    assert list(folder.iterdir()) == []
    assert (outside / "kept").read_text() == "kept"


def test_a_nest_deeper_than_a_path_can_be_long_is_removed(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3000):
        os.mkdir("d" * 50, dir_fd=handle)
        inner = os.open("d" * 50, os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    scratch.empty(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_more_than_a_sample_may_have_is_not_removed_but_told(tmp_path: Path) -> None:
    for number in range(scratch.MOST_ENTRIES + 1):
        (tmp_path / str(number)).touch()
    with pytest.raises(scratch.TooMuchError):
        scratch.empty(str(tmp_path))


def test_modes_do_not_keep_a_folder(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut" / "file").write_text("x")
    (tmp_path / "shut").chmod(0)
    tmp_path.chmod(0)
    scratch.empty(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_what_cannot_be_removed_is_an_error() -> None:
    with pytest.raises(OSError, match=r"."):
        scratch.empty("/proc/self/fdinfo")
