"""The filter before every system call of a sample: an allow-list, compiled to classic BPF.

Three answers: *allow*; *refuse* with an error number that a program meets as an ordinary OSError, for calls that
honest programs try (``fork``, ``socket``, ``execve``); and *kill* for calls that only an attack makes, which becomes
the status ``security_violation``. What is not named is refused. Numbers are those of x86-64.

It comes in two parts, because the kernel compiles a filter whenever it is installed. The large part is installed once,
in the zygote, and samples inherit it; it lets through the few calls with which a sample is confined. The small
one is installed in every sample, and rules on those. Of two answers the kernel takes the stricter one (seccomp(2)).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping

_AUDIT_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000

_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_ERRNO = 0x00050000

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

_ALLOWED = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "pipe": 22,
    "select": 23, "sched_yield": 24, "mremap": 25, "msync": 26, "mincore": 27, "madvise": 28, "dup": 32, "dup2": 33,
    "pause": 34, "nanosleep": 35, "getitimer": 36, "alarm": 37, "setitimer": 38, "getpid": 39, "sendfile": 40,
    "sendto": 44, "recvfrom": 45, "recvmsg": 47, "shutdown": 48, "getsockname": 51,
    "getpeername": 52, "setsockopt": 54, "getsockopt": 55, "exit": 60, "wait4": 61, "kill": 62, "uname": 63,
    "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "getdents": 78,
    "getcwd": 79, "chdir": 80, "fchdir": 81, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86,
    "unlink": 87, "symlink": 88, "readlink": 89, "chmod": 90, "fchmod": 91, "umask": 95, "gettimeofday": 96,
    "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107,
    "getegid": 108, "getppid": 110, "getpgrp": 111, "getgroups": 115, "getresuid": 118, "getresgid": 120,
    "getpgid": 121, "getsid": 124, "rt_sigpending": 127, "rt_sigtimedwait": 128, "rt_sigsuspend": 130,
    "sigaltstack": 131, "utime": 132, "statfs": 137, "fstatfs": 138, "getpriority": 140, "sched_getparam": 143,
    "sched_getscheduler": 145, "sched_get_priority_max": 146, "sched_get_priority_min": 147, "setrlimit": 160,
    "arch_prctl": 158, "gettid": 186, "tkill": 200, "time": 201, "sched_getaffinity": 204,
    "epoll_create": 213, "getdents64": 217, "set_tid_address": 218, "fadvise64": 221,
    "clock_gettime": 228,
    "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233,
    "tgkill": 234, "utimes": 235, "get_mempolicy": 239, "waitid": 247, "openat": 257, "mkdirat": 258,
    "futimesat": 261, "newfstatat": 262, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
    "readlinkat": 267, "fchmodat": 268, "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273,
    "get_robust_list": 274, "utimensat": 280, "epoll_pwait": 281, "eventfd": 284,
    "fallocate": 285, "signalfd4": 289, "eventfd2": 290,
    "epoll_create1": 291, "dup3": 292, "pipe2": 293, "preadv": 295, "pwritev": 296, "prlimit64": 302,
    # The kernel has a process call this one when it goes on after a stop in the middle of a sleep.
    "restart_syscall": 219,
    "getcpu": 309, "renameat2": 316, "getrandom": 318, "membarrier": 324, "copy_file_range": 326, "preadv2": 327,
    "pwritev2": 328, "statx": 332, "rseq": 334, "close_range": 436, "faccessat2": 439, "epoll_pwait2": 441,
}  # fmt: skip

# Not among them: timers (timer_create, timerfd_create). Python has its own ways to wait, and thousands of timers that
# fire all the time keep gVisor's kernel busy at nobody's expense, beside which no limit is held.

_KILLED = {
    "ptrace": 101, "syslog": 103, "modify_ldt": 154, "pivot_root": 155, "adjtimex": 159, "chroot": 161,
    "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169,
    "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "create_module": 174,
    "init_module": 175, "delete_module": 176, "quotactl": 179, "nfsservctl": 180, "lookup_dcookie": 212,
    "clock_settime": 227, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272,
    "migrate_pages": 256, "move_pages": 279, "perf_event_open": 298, "open_by_handle_at": 304,
    "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425,
    "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "process_madvise": 440,
    "mount_setattr": 442, "quotactl_fd": 443, "process_mrelease": 448, "lsm_set_self_attr": 460,
}  # fmt: skip

# glibc and Python fall back from these where the kernel says that it has no such call.
_NO_SUCH_CALL = {"clone3": 435, "memfd_create": 319, "pidfd_open": 434, "openat2": 437}

_IOCTL, _SOCKETPAIR, _CLONE, _FCNTL, _PRCTL, _SETRLIMIT, _PRLIMIT, _FUTEX = 16, 53, 56, 72, 157, 160, 302, 202
# Locks, leases and notices are on the file, and every cell has the same read-only files: they would reach across.
_SHARED_FCNTLS = (
    5,
    6,
    7,
    36,
    37,
    38,
    1024,
    1025,
    1026,
)  # F_(GET|SET)LK(W), F_OFD_*, F_(SET|GET)LEASE, F_NOTIFY
# What all pipes of a user may hold has one limit, and the samples of all cells are of one user outside.
_F_SETPIPE_SZ = 1031
# From a pipe in packet mode the supervisor would have to read each byte by itself that is written by itself; and a file
# of the root that is read past the kernel's cache keeps the host's disk busy.
_F_SETFL, _O_DIRECT = 4, 0x4000
_FLAGS_ARGUMENT = {2: 1, 257: 2, 293: 1}  # of open, openat, pipe2
# Files of the root are on the host's disk, and to flush one has it write, for which no limit of a sample counts. What a
# sample can write to is memory, where there is nothing to flush: it is told that this is done.
_FLUSHING = {"fsync": 74, "fdatasync": 75}
_MSYNC, _MS_SYNC = 26, 4
_DONE = _ERRNO  # error number 0: none
HARMLESS_IOCTLS = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIO(N)CLEX
# Nor waits on a futex in a page of such a file, which are on the file too. What only wakes wakes nobody then.
_FUTEX_PRIVATE = 128
_WAKING = (1, 3, 4, 5, 7, 10)  # WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, UNLOCK_PI, WAKE_BITSET
_AF_UNIX = 1
_RLIMIT_CPU = 0  # the kernel kills for it, with the signal that else only somebody outside can send
_CLONE_THREAD = 0x00010000
_NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag
_PRCTL_NAMES = (15, 16)  # PR_SET_NAME, PR_GET_NAME
_LAST_CALL = 0x3FFFFFFF


def allowed_names() -> tuple[str, ...]:
    """Return the names of the calls that a sample may make whatever the arguments."""
    return tuple(_ALLOWED)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value & 0xFFFFFFFF)


def _return(action: int) -> bytes:
    return _instruction(_RETURN, action)


def _refuse(number: int) -> int:
    return _ERRNO | number


def _load_argument(index: int, half: int = 0) -> bytes:
    return _instruction(_LOAD, _ARGUMENTS + 8 * index + 4 * half)


def _one_of(index: int, values: Iterable[int], otherwise: int) -> bytes:
    """Allow where an argument's low 32 bits are one of ``values``: all that the kernel looks at in these calls."""
    code = _load_argument(index)
    for value in values:
        code += _instruction(_JUMP_EQUAL, value, 0, 1) + _return(_ALLOW)
    return code + _return(otherwise)


def _none_of(index: int, answers: Mapping[int, int]) -> bytes:
    """Allow unless an argument's low 32 bits are one of those in ``answers``, which has what is answered to each."""
    code = _load_argument(index)
    for value, answer in answers.items():
        code += _instruction(_JUMP_EQUAL, value, 0, 1) + _return(answer)
    return code + _return(_ALLOW)


def _unless_set(index: int, flag: int, answer: int) -> bytes:
    """Allow unless an argument's low 32 bits have a flag."""
    return _load_argument(index) + _instruction(_JUMP_SET, flag, 0, 1) + _return(answer) + _return(_ALLOW)


def _unshared_commands() -> bytes:
    """Allow fcntl(descriptor, command, argument) where it touches nothing but this process."""
    shared = dict.fromkeys(_SHARED_FCNTLS, _refuse(errno.ENOLCK))
    set_flags = _unless_set(2, _O_DIRECT, _refuse(errno.EINVAL))
    return (
        _load_argument(1)
        + _instruction(_JUMP_EQUAL, _F_SETFL, 0, len(set_flags) // 8)
        + set_flags
        + _none_of(1, shared | {_F_SETPIPE_SZ: _refuse(errno.EPERM)})
    )


def _threads_only() -> bytes:
    """Allow clone for a thread of this process; kill for new namespaces, refuse new processes."""
    return (
        _load_argument(0)
        + _instruction(_JUMP_SET, _NEW_NAMESPACES, 0, 1)
        + _return(_KILL)
        + _instruction(_JUMP_SET, _CLONE_THREAD, 0, 1)
        + _return(_ALLOW)
        + _return(_refuse(errno.EPERM))
    )


def _private_waits_only() -> bytes:
    """Allow futex to wait for threads of this process alone. To another wait is said that there was no need for it:
    pthread_join, the one honest call that makes such, looks again then."""
    return (
        _load_argument(1)
        + _instruction(_JUMP_SET, _FUTEX_PRIVATE, 0, 1)
        + _return(_ALLOW)
        + _one_of(1, _WAKING, _refuse(errno.EAGAIN))
    )


# What the zygote and a sample's process need before its program runs, and the program must not have.
_CONFINING = {"clone": 56, "setsid": 112, "setgroups": 116, "setresuid": 117, "setresgid": 119, "capset": 126,
              "prctl": 157, "mount": 165, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
              "landlock_restrict_self": 446}  # fmt: skip


def _any_limit_but_cpu() -> bytes:
    """Allow prlimit64(process, resource, new, old), but for a new limit of CPU time."""
    return (
        _load_argument(1)
        + _instruction(_JUMP_EQUAL, _RLIMIT_CPU, 1, 0)
        + _return(_ALLOW)
        + _load_argument(2)
        + _instruction(_JUMP_EQUAL, 0, 0, 3)
        + _load_argument(2, half=1)
        + _instruction(_JUMP_EQUAL, 0, 0, 1)
        + _return(_ALLOW)
        + _return(_refuse(errno.EPERM))
    )


def _rules() -> dict[int, bytes]:
    """Return the code that decides each call that is not just refused, by the call's number."""
    rules = {number: _return(_ALLOW) for number in _ALLOWED.values()}
    rules |= {number: _return(_KILL) for number in _KILLED.values()}
    rules |= {number: _return(_refuse(errno.ENOSYS)) for number in _NO_SUCH_CALL.values()}
    rules[_IOCTL] = _one_of(1, HARMLESS_IOCTLS, _refuse(errno.ENOTTY))
    rules[_SOCKETPAIR] = _one_of(0, (_AF_UNIX,), _refuse(errno.EACCES))
    rules[_FCNTL] = _unshared_commands()
    for number, index in _FLAGS_ARGUMENT.items():
        rules[number] = _unless_set(index, _O_DIRECT, _refuse(errno.EINVAL))
    rules |= dict.fromkeys(_FLUSHING.values(), _return(_DONE))
    rules[_MSYNC] = _unless_set(2, _MS_SYNC, _DONE)
    rules[_PRCTL] = _one_of(0, _PRCTL_NAMES, _refuse(errno.EPERM))
    rules[_CLONE] = _threads_only()
    rules[_FUTEX] = _private_waits_only()
    rules[_SETRLIMIT] = _none_of(0, {_RLIMIT_CPU: _refuse(errno.EPERM)})
    rules[_PRLIMIT] = _any_limit_but_cpu()
    return rules


def _ranges(rules: dict[int, bytes], otherwise: bytes) -> list[tuple[int, bytes]]:
    """Return (first call number, code) of runs of calls that are decided alike, from 0 up without a gap."""
    ranges: list[tuple[int, bytes]] = []
    following = 0
    for number, code in sorted(rules.items()):
        if number > following:
            ranges.append((following, otherwise))
        ranges.append((number, code))
        following = number + 1
    ranges.append((following, otherwise))
    return [item for index, item in enumerate(ranges) if index == 0 or item[1] != ranges[index - 1][1]]


def _search(ranges: list[tuple[int, bytes]]) -> bytes:
    """Code that finds the call's range by bisection: the kernel runs the filter once for every call number when it
    is installed, so its depth is part of the cost of a sample."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    distance = len(low) // 8
    if distance <= 255:
        return _instruction(_JUMP_AT_LEAST, ranges[middle][0], distance, 0) + low + high
    jump = _instruction(0x05, distance)  # jump always: a conditional one reaches 255 instructions
    return _instruction(_JUMP_AT_LEAST, ranges[middle][0], 0, 1) + jump + low + high


def sample_filters() -> tuple[bytes, bytes]:
    """Return the BPF programs (8 bytes an instruction) for a zygote, and for a sample process on top of that."""
    rules, allow, refuse = _rules(), _return(_ALLOW), _return(_refuse(errno.EPERM))
    confining = _CONFINING.values()
    inherited = (
        _instruction(_LOAD, _ARCHITECTURE)
        + _instruction(_JUMP_EQUAL, _AUDIT_ARCH_X86_64, 1, 0)
        + _return(_KILL)
        + _instruction(_LOAD, _NUMBER)
        + _instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1)
        + _return(_KILL)
        + _search(_ranges(rules | dict.fromkeys(confining, allow), refuse))
    )
    own = {number: rules.get(number, refuse) for number in confining}
    return inherited, _instruction(_LOAD, _NUMBER) + _search(_ranges(own, allow))
