"""The seccomp profile of a Docker cell: an allow-list of our own, in Docker's JSON.

It is what the supervisor and the zygote need: every call of a sample's filter, and the few with which they make
namespaces, cover folders and put a sample's filter on. A sample never runs under this profile alone: its own,
stricter filter is on before its program is compiled.

``python -m grader.sandbox.docker_seccomp`` prints the profile; ``sandbox_images/seccomp.json`` is its output, for
people who start containers themselves.
"""

from __future__ import annotations

import errno
import json
from typing import Any

from grader.sandbox import seccomp
from grader.sandbox.runner import kernel

# Beside the calls of a sample: how the engine's own start code begins a process, and how the runner confines one.
_TO_START = ("execve",)  # fmt: skip
_TO_CONFINE = ("socket", "sendmsg", "setsid", "fcntl", "futex", "memfd_create", "mlock", "capset", "seccomp",
               "sched_setaffinity",  # to time a loop where a sample computes: runner.pace
               "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")  # fmt: skip
_TO_CHANGE_USER = ("setgroups", "setresgid", "setresuid")
_NAMESPACES = kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC
_OTHER_NAMESPACES = (
    kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP | 0x80
)  # 0x80: CLONE_NEWTIME
_NO_FILE_SYSTEM_RIGHTS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_PRCTL_NAMES = (1, 3, 4, 8, 15, 16, 21, 22, 23, 24, 36, 38, 39)
_AF_UNIX = 1


def profile(*, by_user: bool = False) -> dict[str, Any]:
    """Return the profile: what is not named fails with EPERM.

    ``by_user``: for cells that part samples by user ids. They may change users, and make no namespace and no mount.
    """
    plain = {*seccomp.allowed_names(), *_TO_START, *_TO_CONFINE, *(_TO_CHANGE_USER if by_user else ())}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []}],
        "syscalls": [
            _allow(sorted(plain - {"socket"})),
            *(_PROCESSES_ALONE if by_user else _PROCESSES_IN_NAMESPACES),
            _allow(["socket", "socketpair"], [_argument(0, "SCMP_CMP_EQ", _AF_UNIX)]),
            *(_allow(["prctl"], [_argument(0, "SCMP_CMP_EQ", number)]) for number in _PRCTL_NAMES),
            *(_allow(["ioctl"], [_argument(1, "SCMP_CMP_EQ", number)]) for number in seccomp.HARMLESS_IOCTLS),
            # Its flags are in memory, where a filter cannot look; glibc then uses clone.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS, "args": []},
        ],
    }


def text(*, by_user: bool = False) -> str:
    """Return the profile as JSON; the usual one is in ``sandbox_images/seccomp.json``."""
    return json.dumps(profile(by_user=by_user), indent=2) + "\n"


def _allow(names: list[str], arguments: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ALLOW", "args": arguments or []}


def _argument(index: int, comparison: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": second, "op": comparison}


_PROCESSES_IN_NAMESPACES = (
    # A process or a thread, in new namespaces of the four kinds that a sample gets, or in none.
    _allow(["clone", "unshare"], [_argument(0, "SCMP_CMP_MASKED_EQ", _OTHER_NAMESPACES, 0)]),
    # A new file system without devices, set-user-id and execution; one file over another, to make a
    # /dev of five files; a mount made read-only; no move, nothing recursive.
    _allow(["mount"], [_argument(3, "SCMP_CMP_EQ", _NO_FILE_SYSTEM_RIGHTS)]),
    _allow(["mount"], [_argument(3, "SCMP_CMP_EQ", _NO_FILE_SYSTEM_RIGHTS | kernel.MS_RDONLY)]),
    _allow(["mount"], [_argument(3, "SCMP_CMP_EQ", kernel.MS_BIND)]),
    _allow(["mount"], [_argument(3, "SCMP_CMP_EQ", kernel.MS_READ_ONLY_FROM_NOW | _NO_FILE_SYSTEM_RIGHTS)]),
)
_PROCESSES_ALONE = (
    _allow(["clone"], [_argument(0, "SCMP_CMP_MASKED_EQ", _NAMESPACES | _OTHER_NAMESPACES, 0)]),
)


if __name__ == "__main__":
    print(text(), end="")
