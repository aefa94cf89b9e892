"""Make the embedded cell's namespaces and root around this process, then become the supervisor.

Runs outside the sandbox, on the host's interpreter, as root or as an ordinary user. Its arguments are the root folder,
the size of /tmp in bytes, and the control groups to enter.
"""

from __future__ import annotations

import os
import sys

from . import kernel
from .wire import CELL_USER, SCRATCH

_DEVICES = ("null", "zero", "full", "random", "urandom")
_PYTHON = "/python/bin/python3"
# As `python /runner` does, but for the modules with which the interpreter would find out what that is.
_START = "import sys; sys.path.insert(0, '/'); import runner.__main__"

# All that a program finds in os.environ, but for LD_BIND_NOW.
ENVIRONMENT = {
    "PATH": "",
    "LD_LIBRARY_PATH": "/python/lib",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HOME": SCRATCH,
    "TMPDIR": SCRATCH,
    "TZ": "UTC",
    "LD_BIND_NOW": "1",  # else each sample looks up anew what it is the first to call
}


def main() -> None:
    """Build the cell and start the supervisor in it; pass its exit status on."""
    try:
        _launch()
    except OSError as error:
        sys.exit(f"the kernel refused a part of the cell: {error}")


def _launch() -> None:
    kernel.check_machine()
    kernel.die_with_parent()
    root, tmp_bytes, *groups = sys.argv[1:]
    for folder in groups:
        _write(os.path.join(folder, "cgroup.procs"), "0")  # noqa: PTH118 - pathlib costs 10 ms at each start
    if os.geteuid() != 0:
        _enter_user_namespace(0)
    kernel.unshare(
        kernel.CLONE_NEWNS
        | kernel.CLONE_NEWPID
        | kernel.CLONE_NEWNET
        | kernel.CLONE_NEWIPC
        | kernel.CLONE_NEWUTS
        | kernel.CLONE_NEWCGROUP
    )
    child = os.fork()
    if child == 0:
        try:
            _become_supervisor(root, int(tmp_bytes))
        except OSError as error:
            os.write(2, f"the kernel refused a part of the cell: {error}\n".encode())
            os._exit(1)
    os.closerange(0, 2)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY)
    os.write(handle, text.encode())
    os.close(handle)


def _enter_user_namespace(inside: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    proc = os.open("/proc", os.O_PATH)
    kernel.map_user(proc, inside, uid, gid)
    os.close(proc)


def _become_supervisor(root: str, tmp_bytes: int) -> None:
    kernel.die_with_parent()
    kernel.set_host_name("cell")
    proc = kernel.open_detached_proc()
    _build_root(root, tmp_bytes)
    if os.geteuid() == 0 and _is_initial_user_namespace(proc):
        os.setgroups([])
        os.setresgid(CELL_USER, CELL_USER, CELL_USER)
        os.setresuid(CELL_USER, CELL_USER, CELL_USER)
        kernel.set_dumpable()
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    kernel.map_user(proc, CELL_USER, uid, gid)
    kernel.drop_bounding_capabilities()
    kernel.drop_capabilities()
    kernel.die_with_parent()  # a change of credentials clears it
    os.set_inheritable(proc, True)
    # -I would ignore PYTHONHASHSEED; -P -s -S leave out what matters of it, and the environment is ours.
    command = [_PYTHON, "-P", "-s", "-S", "-B", "-X", "utf8", "-c", _START, str(proc)]
    os.execve(_PYTHON, command, ENVIRONMENT)  # noqa: S606


def _is_initial_user_namespace(proc: int) -> bool:
    handle = os.open("self/uid_map", os.O_RDONLY, dir_fd=proc)
    try:
        return os.read(handle, 100).split() == [b"0", b"0", b"4294967295"]
    finally:
        os.close(handle)


def _build_root(tree: str, tmp_bytes: int) -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    # Opened before the stage is mounted, which may cover them.
    root, runner = os.open(tree, os.O_PATH), os.open(os.path.dirname(__file__), os.O_PATH)  # noqa: PTH120
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES}
    stage = "/tmp"  # noqa: S108 - any folder will do: it is covered in this mount namespace alone
    kernel.mount("cell", stage, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=4k,mode=755")
    os.mkdir(f"{stage}/root")  # noqa: PTH102
    base = f"{stage}/root"
    kernel.mount(f"/proc/self/fd/{root}", base, None, kernel.MS_BIND)
    closed = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID
    kernel.restrict_mount(base, closed | kernel.MOUNT_ATTR_NODEV)
    kernel.mount(f"/proc/self/fd/{runner}", f"{base}/runner", None, kernel.MS_BIND)
    kernel.restrict_mount(f"{base}/runner", closed | kernel.MOUNT_ATTR_NODEV | kernel.MOUNT_ATTR_NOEXEC)
    for name, handle in devices.items():
        kernel.mount(f"/proc/self/fd/{handle}", f"{base}/dev/{name}", None, kernel.MS_BIND)
        kernel.restrict_mount(f"{base}/dev/{name}", kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NOEXEC)
        os.close(handle)
    # Only the supervisor sees this one, read-only: every sample mounts its own over it.
    kernel.mount("cell", base + SCRATCH, "tmpfs", closed | kernel.MS_NODEV, f"size={tmp_bytes},mode=555")
    os.chdir(base)
    kernel.pivot_root_here()
    os.close(root)
    os.close(runner)
