"""Which isolation mechanisms this machine has, what decides each, and how to turn it on."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.errors import SandboxError
from grader.limits import MIB, Limits
from grader.sandbox import cgroup
from grader.sandbox.runner import landlock

# What is tried in a user namespace, and cannot be had without one.
_IN_USERNS = frozenset({"mountns", "pidns", "netns", "ipcns", "utsns", "cgroupns", "no_capabilities"})
_OPEN_FILES = 256  # of a sample: runner/confine.py
_ADDRESS_SPACE_EXTRA = 256 * MIB
_BECOME_NOBODY = """
if os.geteuid() == 0 and open("/proc/self/uid_map").read().split() == ["0", "0", "4294967295"]:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
"""


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
    return [
        _machine(),
        _user_namespaces(),
        *_namespaces(),
        _capabilities(),
        _no_new_privileges(),
        _resource_limits(),
        _seccomp(),
        _landlock(),
        *_control_groups(),
        _schedstat(),
    ]


def require(allow_missing: Sequence[str] = ()) -> None:
    """Raise SandboxError, with the remedies, unless every required mechanism works or is allowed to be missing."""
    missing = [mechanism for mechanism in _quick_report() if mechanism.required and not mechanism.ok]
    missing = [mechanism for mechanism in missing if mechanism.name not in allow_missing]
    if missing:
        raise SandboxError("the embedded sandbox cannot be made here:" + _listed(missing))


def diagnosis() -> str:
    """Say which required mechanisms are missing, with the remedies: to be put after what the kernel has refused."""
    missing = [mechanism for mechanism in report() if mechanism.required and not mechanism.ok]
    if any(mechanism.name == "userns" for mechanism in missing):
        missing = [mechanism for mechanism in missing if mechanism.name not in _IN_USERNS]
    if missing:
        return "; required, and missing here:" + _listed(missing)
    return "; no required mechanism is missing, as far as `grader doctor` can tell"


def _listed(missing: Sequence[Mechanism]) -> str:
    return "".join(f"\n  {mechanism.name}: {mechanism.detail}. {mechanism.remedy}" for mechanism in missing)


def _quick_report() -> list[Mechanism]:
    """What can be told without starting a process; making the first cell tries the rest (see ``diagnosis``)."""
    return [_machine(), _resource_limits(), _landlock()]


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


def _try(namespaces: str, then: str = "") -> str:
    """Make namespaces in a process of its own, and do something in them; returns "" or the error."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from runner import kernel\n"
        "flags = kernel.CLONE_NEWUSER\n"
        "for name in sys.argv[2].split(): flags |= getattr(kernel, name)\n"
        f"{_BECOME_NOBODY}kernel.unshare(flags)\n{then}"
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


def _capabilities() -> Mechanism:
    """A sample has user, but no capability, in its namespace; tried in one, where a process has them all at first."""
    error = _try("", "kernel.drop_bounding_capabilities()\nkernel.drop_capabilities()\n")
    return Mechanism(
        "no_capabilities",
        not error,
        True,
        error or f"{_setting('/proc/sys/kernel/cap_last_cap')}; all can be given up",
        "They are given up in a user namespace: mend userns, if that is missing; in a container, its seccomp profile "
        "must allow prctl and capset.",
    )


def _no_new_privileges() -> Mechanism:
    lines = Path("/proc/self/status").read_text().splitlines()
    here = next((line for line in lines if line.startswith("NoNewPrivs:")), "")
    return Mechanism(
        "no_new_privs",
        bool(here),
        True,
        "the kernel has it" if here else "/proc/self/status has no line NoNewPrivs",
        "The kernel needs version 4.10 or newer, and /proc must be mounted.",
    )


def _resource_limits() -> Mechanism:
    """A sample's limits are hard ones, and nobody without privileges may have them above those that there are."""
    limits = Limits()
    needed = {
        "NOFILE": ("n", _OPEN_FILES),
        "NPROC": ("u", limits.threads),
        "FSIZE": ("f", limits.tmp_bytes),
        "AS": ("v", _address_space(limits)),
    }
    hard = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] for name in needed}
    low = [
        name
        for name, (_, least) in needed.items()
        if hard[name] != resource.RLIM_INFINITY and hard[name] < least
    ]
    detail = ", ".join(f"RLIMIT_{name} is {hard[name]}, and samples get {needed[name][1]}" for name in low)
    switches = ", ".join(f"ulimit -H{needed[name][0]}" for name in low)
    return Mechanism(
        "rlimits",
        not low,
        True,
        detail or "the hard limits of this user are above those of a sample",
        f"Raise this user's hard limits ({switches}): in /etc/security/limits.conf, in the unit of systemd "
        "(LimitNOFILE= and others), or with docker run --ulimit.",
    )


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


def _address_space(limits: Limits) -> int:
    if cgroup.unavailable_reason():
        return limits.memory_bytes + _ADDRESS_SPACE_EXTRA
    return cgroup.mapped_beside_group(limits.memory_bytes, limits.threads)


def _schedstat() -> Mechanism:
    path = Path("/proc/self/schedstat")
    text = path.read_text().strip() if path.exists() else ""
    counts = bool(text) and text.split()[0] != "0"
    return Mechanism(
        "schedstat",
        counts,
        False,
        f"{path} {'counts' if counts else 'does not exist' if not text else 'counts nothing'}",
        "The kernel needs CONFIG_SCHED_INFO; without it a program's waiting for a processor counts as idle time, so "
        "that on a loaded machine a time limit may come early: give fewer workers than processors.",
    )
