"""Landlock: what a sample may open, decided by the kernel whatever the mounts say. See landlock(7)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .kernel import (
    SYS_LANDLOCK_ADD_RULE,
    SYS_LANDLOCK_CREATE_RULESET,
    SYS_LANDLOCK_RESTRICT_SELF,
    SYS_OPENAT,
    syscall,
)

if TYPE_CHECKING:
    from .batch import Batch

_RULE_PATH_BENEATH = 1
_CREATE_RULESET_VERSION = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_DEVICES_AND_SOCKETS = 1 << 6 | 1 << 9 | 1 << 11  # make character device, socket, block device
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_READ = _READ_FILE | _READ_DIR
_EXECUTE = 1
INTERPRETER = ("/python", "/runner", "/usr", "/lib64",
               "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")  # fmt: skip


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def abi_version() -> int:
    """Return the kernel's Landlock version, 0 where it has none or it is switched off."""
    try:
        return syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def _handled(version: int) -> _Ruleset:
    """Everything that this version of the kernel can restrict."""
    files = (1 << 13) - 1
    files |= 1 << 13 if version >= 2 else 0
    files |= _TRUNCATE if version >= 3 else 0
    files |= _IOCTL_DEV if version >= 5 else 0
    network = 0b11 if version >= 4 else 0
    scoped = 0b11 if version >= 6 else 0
    return _Ruleset(files, network, scoped)


class Readable(NamedTuple):
    """An open file or folder, for reading it and what is below it."""

    handle: int
    is_folder: bool


def add_to(
    batch: Batch, version: int, scratch: str, readable: Sequence[Readable], null: int, free: int
) -> None:
    """Add the calls that let a process read below ``readable``, write below ``scratch`` and to /dev/null, and nothing
    else: no execution of files, no TCP, no abstract sockets, no signals outside. It needs no_new_privs.

    ``null`` is an open descriptor of /dev/null; ``free`` is the lowest that is free, and it and the next one are left
    open.
    """
    ruleset = _handled(version)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    below_scratch = ruleset.files & ~(_EXECUTE | _DEVICES_AND_SOCKETS | _IOCTL_DEV)
    batch.add("landlock", SYS_LANDLOCK_CREATE_RULESET, ruleset, size, 0, expected=free)
    batch.add("landlock", SYS_OPENAT, 0, scratch.encode(), os.O_PATH, 0, expected=free + 1)
    for parent, access in (
        *((place.handle, _READ if place.is_folder else _READ_FILE) for place in readable),
        (free + 1, below_scratch),
        (null, _READ_FILE | _WRITE_FILE | (ruleset.files & _TRUNCATE)),
    ):
        rule = _PathBeneath(access, parent)
        batch.add("landlock", SYS_LANDLOCK_ADD_RULE, free, _RULE_PATH_BENEATH, rule, 0)
    batch.add("landlock", SYS_LANDLOCK_RESTRICT_SELF, free, 0)
