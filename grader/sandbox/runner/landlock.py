"""Landlock: what a sample may open, decided by the kernel whatever the mounts say. See landlock(7)."""

from __future__ import annotations

import ctypes
import os

from .kernel import (
    SYS_LANDLOCK_ADD_RULE,
    SYS_LANDLOCK_CREATE_RULESET,
    SYS_LANDLOCK_RESTRICT_SELF,
    syscall,
)

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


def restrict(version: int, scratch: str, readable: tuple[str, ...] = ("/",)) -> None:
    """Let this process read below ``readable``, write below ``scratch`` and to /dev/null, and nothing else: no
    execution of files, no TCP, no abstract sockets, no signals outside. Needs no_new_privs. Raises OSError."""
    ruleset = _handled(version)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    handle = syscall(SYS_LANDLOCK_CREATE_RULESET, ruleset, size, 0)
    try:
        below_scratch = ruleset.files & ~(_EXECUTE | _DEVICES_AND_SOCKETS | _IOCTL_DEV)
        for place in readable:
            _allow(handle, place, _READ if os.path.isdir(place) else _READ_FILE)  # noqa: PTH112
        _allow(handle, scratch, below_scratch)
        _allow(handle, "/dev/null", _READ_FILE | _WRITE_FILE | (ruleset.files & _TRUNCATE))
        syscall(SYS_LANDLOCK_RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)


def _allow(ruleset: int, path: str, access: int) -> None:
    parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        syscall(SYS_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, _PathBeneath(access, parent), 0)
    finally:
        os.close(parent)
