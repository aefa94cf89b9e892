"""Programs that have files written to the disk, where theirs are in memory."""

from __future__ import annotations

FLUSHES = """
import mmap, os
def f():
    with open("/tmp/written", "w+b") as file:
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
        with mmap.mmap(file.fileno(), 4096) as mapped:
            mapped[0] = ord("y")
            mapped.flush()
    os.sync()
    with open("/tmp/written") as file:
        return file.read(2)
"""
# A pipe cannot be flushed, which the kernel says of it where it is asked.
ASKS_THE_KERNEL = """
import os
def f():
    os.fsync(os.pipe()[1])
    os.fdatasync(os.pipe()[1])
    return "not asked"
"""


def test_an_honest_program_that_flushes_its_files_goes_on(user):
    (run,) = user.run({"source": FLUSHES, "entry_point": "f"})["runs"]
    assert run["answers"] == ["yx"]


def test_the_kernel_is_not_asked_to_flush_anything(user):
    """A file of the root is on the host's disk."""
    (run,) = user.run({"source": ASKS_THE_KERNEL, "entry_point": "f"})["runs"]
    assert run["answers"] == ["not asked"]
