"""The kernel's interfaces that Python does not offer, one thin function each. x86-64 Linux."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PARENT_SETTID = 0x00100000  # the new process's id is written to an address of the old one
SIBLING = 0x00008000 | 17  # CLONE_PARENT, and SIGCHLD for the parent at its end

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MS_READ_ONLY_FROM_NOW = 0x1 | 0x20 | MS_BIND  # MS_REMOUNT: of this mount, not of its file system
MNT_DETACH = 0x2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8

READ, WRITE, EXECUTE = 0x1, 0x2, 0x4  # PROT_*; the module mmap would be one more in every cell
_PRIVATE_ANONYMOUS = 0x22
MREMAP_HERE = 0x1 | 0x2  # MREMAP_MAYMOVE and MREMAP_FIXED
MADV_COLLAPSE = 25

_F_SETPIPE_SZ = 1031

_PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
_PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
UNLIMITED = (1 << 64) - 1
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000

SYS_WRITE, SYS_CLOSE, SYS_CHDIR, SYS_SETSID = 1, 3, 80, 112
SYS_MPROTECT, SYS_PREAD, SYS_MREMAP, SYS_SENDTO, SYS_RECVMSG, SYS_CLONE = 10, 17, 25, 44, 47, 56
SYS_PRCTL, SYS_MOUNT, SYS_OPENAT, SYS_PRLIMIT = 157, 165, 257, 302
SYS_CAPSET = 126
_SYS_PIVOT_ROOT = 155
_SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 430, 431, 432
SYS_CLOSE_RANGE = 436
_SYS_MOUNT_SETATTR = 442
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446

# PyDLL keeps the interpreter lock during a call: a clone must not let another thread run half-way through.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_MAP_FAILED = ctypes.c_void_p(-1).value


def check_machine() -> None:
    """Raise OSError on a machine whose system call numbers are not the ones in this file."""
    if os.uname().machine != "x86_64":
        raise OSError(f"the sandbox knows the system calls of x86_64 only, this is {os.uname().machine}")


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | ctypes.Structure | None) -> int:
    """Make a system call. Raises OSError with the kernel's error number."""
    result = int(_libc.syscall(ctypes.c_long(number), *map(_register, arguments)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _register(argument: object) -> object:
    if isinstance(argument, int):
        return ctypes.c_ulong(argument & 0xFFFFFFFFFFFFFFFF)
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else argument


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def clone_sibling() -> int:
    """Clone this process as a sibling, a child of its parent; returns as os.fork does.

    Only for processes that have one thread, and whose locks are free. What Python does around a fork (PyOS_BeforeFork,
    PyOS_AfterFork_Child) is for others: it makes locks anew, and would cost more than the clone.
    """
    return syscall(SYS_CLONE, SIBLING, 0, 0, 0, 0)


def unshare(namespaces: int) -> None:
    """Move this process (for a PID namespace: its future children) into new namespaces."""
    _checked(_libc.unshare(namespaces), f"unshare {namespaces:#x}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a file system or, with MS_BIND, a folder or file of another one."""
    encoded = kind.encode() if kind else None
    _checked(
        _libc.mount(source.encode(), target.encode(), encoded, ctypes.c_ulong(flags), data.encode()),
        f"mount {target}",
    )


def unmount(target: str) -> None:
    """Detach a mount; it disappears when its last user is gone."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def restrict_mount(target: str, attributes: int, *, recursive: bool = False) -> None:
    """Add MOUNT_ATTR_* restrictions to a mount, keeping those it has."""
    wanted = _MountAttributes(attributes, 0, 0, 0)
    path = ctypes.create_string_buffer(target.encode())
    flags = _AT_RECURSIVE if recursive else 0
    syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path, flags, wanted, ctypes.sizeof(wanted))


def pivot_root_here() -> None:
    """Make the current folder, a mount point, the root, and let go of the old root."""
    here = ctypes.create_string_buffer(b".")
    syscall(_SYS_PIVOT_ROOT, here, here)
    unmount(".")
    os.chdir("/")


def open_detached_proc() -> int:
    """Return a descriptor of a new procfs for this PID namespace that is mounted nowhere."""
    context = syscall(_SYS_FSOPEN, ctypes.create_string_buffer(b"proc"), 1)
    try:
        syscall(_SYS_FSCONFIG, context, 6, None, None, 0)  # 6 is FSCONFIG_CMD_CREATE
        return syscall(_SYS_FSMOUNT, context, 1, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
    finally:
        os.close(context)


def map_user(proc: int, inside: int, outside_uid: int, outside_gid: int) -> None:
    """Map one user and one group of this process's new user namespace; ``proc`` is a procfs descriptor."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside} {outside_uid} 1"),
        ("gid_map", f"{inside} {outside_gid} 1"),
    ):
        write_at(proc, f"self/{name}", text)


def write_at(folder: int, name: str, text: str) -> None:
    """Write a kernel file below an open folder."""
    handle = os.open(name, os.O_WRONLY, dir_fd=folder)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def set_host_name(name: str) -> None:
    """Name this UTS namespace."""
    _checked(_libc.sethostname(name.encode(), len(name)), "sethostname")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that made it ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl")


def set_dumpable() -> None:
    """Own our /proc/self files again after a change of user, as the user maps need it."""
    _checked(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")


def last_capability() -> int:
    """Return the number of the last capability that this kernel knows."""
    return next(number for number in range(64) if _libc.prctl(_PR_CAPBSET_READ, number + 1, 0, 0, 0) < 0)


def drop_bounding_capabilities() -> None:
    """Empty the capability bounding set: no program started from here can gain one."""
    for capability in range(last_capability() + 1):
        _checked(_libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl")


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


CAPABILITY_HEADER = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
NO_CAPABILITIES = (ctypes.c_char * 24)()


def drop_capabilities() -> None:
    """Give up every capability and the way to new ones (no_new_privs)."""
    syscall(SYS_CAPSET, CAPABILITY_HEADER, NO_CAPABILITIES)
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def filter_program(instructions: bytes) -> ctypes.Structure:
    """Return a classic BPF program, 8 bytes an instruction, as the kernel takes it: struct sock_fprog."""
    return _FilterProgram(len(instructions) // 8, instructions)


def install_seccomp_filter(instructions: bytes) -> None:
    """Put a classic BPF program before every later system call of this process; sets no_new_privs first."""
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    program = ctypes.byref(filter_program(instructions))
    _checked(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "prctl")


def widen_pipe(handle: int, size: int) -> None:
    """Let a pipe hold so many bytes. Raises OSError where the user's pipes may not."""
    if _libc.fcntl(handle, _F_SETPIPE_SZ, size) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"pipe of {size} bytes: {os.strerror(number)}")


class Limit(ctypes.Structure):
    """struct rlimit64."""

    _fields_ = [("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64)]


def hard_limit(number: int) -> int:
    """Return this process's hard limit of a resource; UNLIMITED where it has none."""
    limit = Limit()
    syscall(SYS_PRLIMIT, 0, number, None, limit)
    return int(limit.hard)


def lock_code(proc: int) -> None:
    """Keep the code that this process has mapped from files in memory, as far as the limit of locked memory goes.

    Where a control group is at its limit, the kernel first takes back what it can read again from files. That is the
    interpreter's code, where it was this group that had it read: all processes of the cell then spend seconds on having
    it read again and again, before the one that allocates too much is killed. Others map the same pages.
    """
    handle = os.open("self/maps", os.O_RDONLY, dir_fd=proc)
    with os.fdopen(handle, "rb") as maps:
        lines = [line.split() for line in maps]
    found = [
        (int(start, 16), int(end, 16))
        for line in lines
        if len(line) > 5 and line[5].startswith(b"/") and line[1][1:2] == b"-"
        for start, _, end in [line[0].partition(b"-")]
    ]
    for start, end in sorted(found, key=lambda each: each[0] - each[1]):
        _libc.mlock(ctypes.c_void_p(start), ctypes.c_size_t(end - start))


def map_memory(size: int, protection: int = READ | WRITE) -> int:
    """Return the address of ``size`` bytes of new memory, all zeroes."""
    address = _libc.mmap(None, size, protection, _PRIVATE_ANONYMOUS, -1, 0)
    if address is None or address == _MAP_FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap of {size} bytes: {os.strerror(number)}")
    return int(address)


def unmap_memory(address: int, size: int) -> None:
    """Let go of whole pages, as far as they are mapped."""
    _checked(_libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size)), "munmap")


def protect_memory(address: int, size: int, protection: int) -> None:
    """Allow of whole pages what ``protection`` says, and no more."""
    _checked(_libc.mprotect(address, size, protection), f"mprotect to {protection:#x}")


def advise_memory(address: int, size: int, advice: int) -> None:
    """Make a wish about whole pages (madvise(2)). Raises OSError where the kernel does not grant it."""
    _checked(_libc.madvise(address, size, advice), f"madvise {advice}")


def process_clock(pid: int) -> int:
    """Return the id of a process's CPU clock, for time.clock_gettime (clock_getcpuclockid(3))."""
    return (~pid << 3) | 2
