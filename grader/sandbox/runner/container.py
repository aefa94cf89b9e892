"""Make the inside of a container engine's container like an embedded cell, before any program is seen.

An engine mounts more than a sample may see: procfs, sysfs, control groups, message queues, its own files in /etc.
The supervisor covers them once, in a user and mount namespace of its own that every sample inherits: that costs a
sample nothing, and a sample cannot undo it, because the mounts of an outer user namespace are locked in an inner one
(mount_namespaces(7)).
"""

from __future__ import annotations

import os

from . import kernel
from .wire import CELL_USER, SCRATCH

_COVERED = ("/sys", "/etc", "/proc")  # procfs last: the devices are found through it
_DEVICES = ("null", "zero", "full", "random", "urandom")
_EMPTY = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
NO_PROC = -1
UIDS = "uids"  # the argument of a runner whose samples are parted by user ids


def enter() -> int:
    """Cover what the engine mounts; returns a descriptor of procfs.

    Returns ``NO_PROC`` where the engine shows no procfs at all: it is then told to because mounts cannot be had
    inside (gVisor), has covered everything itself, and the cell does without the layers that need either. Raises
    OSError where the engine's seccomp profile or the host forbids namespaces.
    """
    os.environ.pop("HOSTNAME", None)  # engines add it; the embedded cell has none
    if not os.path.exists("/proc/self"):  # noqa: PTH110 - pathlib costs 10 ms at each start
        return NO_PROC
    proc = os.open("/proc", os.O_PATH)
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    kernel.map_user(proc, CELL_USER, uid, gid)
    _replace_devices()
    for folder in _COVERED:
        if os.path.isdir(folder):  # noqa: PTH112
            kernel.mount(
                "covered", folder, "tmpfs", _EMPTY | kernel.MS_RDONLY, "size=4k,nr_inodes=2,mode=555"
            )
    kernel.drop_bounding_capabilities()
    kernel.drop_capabilities()
    return proc


def enter_as_is() -> int:
    """Let every user write to the scratch folder; returns a descriptor of procfs. Covering what the engine mounts would
    take namespaces."""
    os.environ.pop("HOSTNAME", None)
    os.chmod(SCRATCH, 0o1777)  # noqa: PTH101, S103 - the engine gives it the mode that it has in the image
    return os.open("/proc", os.O_PATH)


def _replace_devices() -> None:
    """Mount a folder over /dev that has the embedded cell's devices and no terminals, queues or shared memory."""
    handles = {name: os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES}
    kernel.mount("devices", "/dev", "tmpfs", _EMPTY, "size=4k,nr_inodes=8,mode=555")
    for name, handle in handles.items():
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o444))
        kernel.mount(f"/proc/self/fd/{handle}", f"/dev/{name}", None, kernel.MS_BIND)
        os.close(handle)
    # A sample is the owner of what is mounted here, in a user namespace of its own: modes would not hold it off.
    kernel.mount("devices", "/dev", None, kernel.MS_READ_ONLY_FROM_NOW | _EMPTY)
