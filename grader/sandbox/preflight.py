"""Which isolation mechanisms this machine has, what decides each, and how to turn it on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.errors import SandboxError
from grader.sandbox import cgroup
from grader.sandbox.runner import landlock


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One mechanism: whether it works here, the setting that decides it, and the remedy where it does not."""

    name: str
    ok: bool
    required: bool
    detail: str
    remedy: str


def report() -> list[Mechanism]:
    """Try every mechanism of the embedded sandbox, and say what was found."""
    return [_machine(), _user_namespaces(), *_namespaces(), _seccomp(), _landlock(), *_control_groups()]


def require(allow_missing: Sequence[str] = ()) -> None:
    """Raise SandboxError, with the remedies, unless every required mechanism works or is allowed to be missing."""
    missing = [mechanism for mechanism in _quick_report() if mechanism.required and not mechanism.ok]
    missing = [mechanism for mechanism in missing if mechanism.name not in allow_missing]
    if missing:
        lines = [f"{mechanism.name}: {mechanism.detail}. {mechanism.remedy}" for mechanism in missing]
        raise SandboxError("the embedded sandbox cannot be made here:\n  " + "\n  ".join(lines))


def _quick_report() -> list[Mechanism]:
    """What can be told without starting a process; making the first cell tries the rest."""
    return [_machine(), _landlock()]


def _machine() -> Mechanism:
    machine, system = platform.machine(), platform.system()
    return Mechanism(
        "x86_64_linux",
        machine == "x86_64" and system == "Linux",
        True,
        f"{system} {platform.release()} on {machine}",
        "The embedded sandbox knows the system calls of x86-64 Linux only.",
    )


def _setting(path: str) -> str:
    try:
        return f"{path} is {Path(path).read_text().strip()}"
    except OSError:
        return f"{path} does not exist"


def _try(namespaces: str) -> str:
    """Make namespaces in a process of its own; returns "" or the error."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from runner import kernel\n"
        "flags = kernel.CLONE_NEWUSER\n"
        "for name in sys.argv[2].split(): flags |= getattr(kernel, name)\n"
        "uid = 65534 if os.geteuid() == 0 else os.geteuid()\n"
        "os.geteuid() == 0 and (os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid))\n"
        "kernel.unshare(flags)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(Path(__file__).parent), namespaces]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if run.returncode == 0 else run.stderr.strip().rpartition("\n")[2]


def _user_namespaces() -> Mechanism:
    error = _try("")
    settings = [_setting("/proc/sys/user/max_user_namespaces")]
    for path in (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    ):
        if Path(path).exists():
            settings.append(_setting(path))
    return Mechanism(
        "userns",
        not error,
        True,
        "; ".join([*settings, error] if error else settings),
        "As root: sysctl -w user.max_user_namespaces=15000; on Debian also kernel.unprivileged_userns_clone=1, on "
        "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in Docker a seccomp profile that allows unshare.",
    )


def _namespaces() -> list[Mechanism]:
    names = {"mountns": "CLONE_NEWNS", "pidns": "CLONE_NEWPID", "netns": "CLONE_NEWNET", "ipcns": "CLONE_NEWIPC",
             "utsns": "CLONE_NEWUTS", "cgroupns": "CLONE_NEWCGROUP"}  # fmt: skip
    mechanisms = []
    for name, flag in names.items():
        error = _try(flag)
        kind = {"mountns": "mnt"}.get(name, name.removesuffix("ns"))
        detail = _setting(f"/proc/sys/user/max_{kind}_namespaces") + (f"; {error}" if error else "")
        remedy = (
            f"As root: sysctl -w user.max_{kind}_namespaces=15000; the kernel needs CONFIG_{kind.upper()}_NS."
        )
        mechanisms.append(Mechanism(name, not error, True, detail, remedy))
    return mechanisms


def _seccomp() -> Mechanism:
    path = Path("/proc/sys/kernel/seccomp/actions_avail")
    actions = path.read_text().split() if path.exists() else []
    return Mechanism(
        "seccomp",
        {"kill_process", "errno", "allow"} <= set(actions),
        True,
        f"{path}: {' '.join(actions) or 'does not exist'}",
        "The kernel needs CONFIG_SECCOMP_FILTER and version 4.14 or newer.",
    )


def _landlock() -> Mechanism:
    version = landlock.abi_version()
    return Mechanism(
        "landlock",
        version >= 1,
        True,
        f"ABI {version}" if version else "the kernel has it not, or it is switched off",
        "Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK, and landlock in the boot parameter lsm=; or run with "
        "--allow-missing landlock, which is stamped on every verdict.",
    )


def _control_groups() -> list[Mechanism]:
    reason = cgroup.unavailable_reason()
    found = cgroup.find_hierarchies()
    detail = reason or ", ".join(
        f"{name}: version {at.version}, {at.parent}" for name, at in sorted(found.items())
    )
    remedy = (
        "Run as root, or in a cgroup delegated to you: systemd-run --user --scope -p Delegate=yes grader ...; "
        "without it memory is limited by RLIMIT_AS."
    )
    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    return [Mechanism("cgroup", not reason, False, f"as {who}: {detail}", remedy)]
