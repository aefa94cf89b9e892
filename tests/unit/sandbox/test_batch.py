"""Batches of system calls, made for real: in their order, each once, up to the first that goes wrong."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from pathlib import Path

import pytest

from grader.sandbox.runner import kernel
from grader.sandbox.runner.batch import POSITIVE, Batch


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def writing(pipe, *texts):
    batch = Batch()
    for text in texts:
        batch.add(f"write {text!r}", kernel.SYS_WRITE, pipe[1], text, len(text), expected=len(text))
    return batch


def test_calls_are_made_in_their_order_and_as_often_as_it_is_run(pipe):
    batch = writing(pipe, *(b"%d," % number for number in range(50)))
    batch.seal()
    once = b"".join(b"%d," % number for number in range(50))
    for _ in range(3):
        batch.run()
        assert os.read(pipe[0], 1 << 16) == once


def test_a_batch_without_calls_does_nothing():
    batch = Batch()
    batch.seal()
    batch.run()


def test_the_first_call_that_fails_ends_it_and_is_named(pipe):
    batch = writing(pipe, b"before")
    batch.add("close of nothing", kernel.SYS_CLOSE, -1)
    batch.add("write", kernel.SYS_WRITE, pipe[1], b"after", 5, expected=5)
    batch.seal()
    with pytest.raises(OSError, match="close of nothing") as failed:
        batch.run()
    assert failed.value.errno == errno.EBADF
    assert os.read(pipe[0], 100) == b"before"


def test_another_result_than_the_expected_one_is_a_failure_too(pipe):
    batch = Batch()
    batch.add("half a write", kernel.SYS_WRITE, pipe[1], b"text", 4, expected=2)
    batch.add("write", kernel.SYS_WRITE, pipe[1], b"after", 5, expected=5)
    batch.seal()
    with pytest.raises(OSError, match="half a write: it returned 4"):
        batch.run()
    assert os.read(pipe[0], 100) == b"text"


def test_all_six_arguments_arrive(tmp_path):
    """copy_file_range(2) has six: from, offset, to, offset, length, flags."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"0123456789")
    target.write_bytes(b"..........")
    with source.open("rb") as read, target.open("r+b") as written:
        offsets = (2).to_bytes(8, "little"), (5).to_bytes(8, "little")
        batch = Batch()
        batch.add("copy", 326, read.fileno(), offsets[0], written.fileno(), offsets[1], 3, 0, expected=3)
        batch.add("copy with an unknown flag", 326, read.fileno(), 0, written.fileno(), 0, 3, 1)
        batch.seal()
        with pytest.raises(OSError, match="copy with an unknown flag") as failed:
            batch.run()
    assert failed.value.errno == errno.EINVAL
    assert target.read_bytes() == b".....234.."


def test_structures_are_passed_by_address_and_may_change_until_it_is_run():
    limit = kernel.Limit()
    batch = Batch()
    batch.add("prlimit", kernel.SYS_PRLIMIT, 0, resource.RLIMIT_NOFILE, 0, limit)
    batch.seal()
    batch.run()
    assert (limit.soft, limit.hard) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert kernel.hard_limit(resource.RLIMIT_NOFILE) == limit.hard


def test_no_memory_that_can_be_run_can_be_written_to():
    lines = Path("/proc/self/maps").read_text().splitlines()
    assert [line for line in lines if line.split()[1].startswith("rwx")] == []


def test_any_result_above_0_can_be_what_is_expected(pipe):
    batch = Batch()
    batch.add("write", kernel.SYS_WRITE, pipe[1], b"text", 4, expected=POSITIVE)
    batch.add("write of nothing", kernel.SYS_WRITE, pipe[1], b"", 0, expected=POSITIVE)
    batch.seal()
    with pytest.raises(OSError, match="write of nothing: it returned 0"):
        batch.run()
    assert os.read(pipe[0], 100) == b"text"


def test_an_error_is_not_above_0():
    batch = Batch()
    batch.add("close of nothing", kernel.SYS_CLOSE, -1, expected=POSITIVE)
    batch.seal()
    with pytest.raises(OSError, match="close of nothing") as failed:
        batch.run()
    assert failed.value.errno == errno.EBADF


def test_memory_is_copied_in_its_turn(pipe):
    text = ctypes.create_string_buffer(b"before", 6)
    batch = Batch()
    batch.add("write", kernel.SYS_WRITE, pipe[1], text, 6, expected=6)
    batch.add_copy(text, b"behind", 6)
    batch.add("write", kernel.SYS_WRITE, pipe[1], text, 6, expected=6)
    batch.seal()
    batch.run()
    assert os.read(pipe[0], 100) == b"beforebehind"


def test_an_endless_batch_begins_again_until_a_call_fails(pipe):
    batch = Batch()
    batch.add("write", kernel.SYS_WRITE, pipe[1], b"1" * 4096, 4096, expected=4096)
    os.set_blocking(pipe[1], False)
    batch.seal(endless=True)
    run, *where = batch.way_to_run()
    assert run(*where) == -errno.EAGAIN
    assert batch.failed() == "write"
    assert set(os.read(pipe[0], 1 << 20)) == {ord("1")}


def test_a_batch_whose_calls_all_did_has_none_that_failed(pipe):
    batch = writing(pipe, b"text")
    batch.seal()
    batch.run()
    assert batch.failed() == ""
