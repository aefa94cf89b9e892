"""What a Docker cell's container may have: everything that the engine is asked for, in one place."""

from __future__ import annotations

from typing import Any

from grader.limits import GIB, MIB, Limits
from grader.sandbox import cgroup, docker_seccomp
from grader.sandbox.runner import wire

# gVisor is a kernel of its own, in the container's memory, and with threads of its own beside those of the programs.
GVISOR_MEMORY = 512 * MIB
GVISOR_LEAST = 4 * GIB
GVISOR_PROCESSES = 2048
INODES = 4096
# To become a sample's user, and to end a sample, which is another user's process. None that reaches files.
BY_USER_CAPABILITIES = ("SETUID", "SETGID", "KILL")
_CPUS = 2  # one for the sample, one for the runner, which feeds and watches it
_OPEN_FILES = 1024
_LOCKED_BYTES = 8 * MIB  # what the kernel gives everybody since 5.16
_EMPTY = "ro,nosuid,nodev,noexec,size=4k,mode=0555"


def memory_bytes(sample_bytes: int, *, gvisor: bool) -> int:
    """Return the limit of a container whose samples may use ``sample_bytes``.

    With gVisor it is a backstop that has room for a reference solution: its samples are limited one by one, and its
    containers' limits cannot be changed afterwards.
    """
    return max(sample_bytes, GVISOR_LEAST) + GVISOR_MEMORY if gvisor else sample_bytes + cgroup.RUNNER_MEMORY


def host_config(
    client: Any,
    limits: Limits,
    *,
    runtime: str | None,
    gvisor: bool,
    processors: int,
    by_user: bool = False,
) -> dict[str, Any]:
    """Return the HostConfig of a cell's container.

    ``processors`` is how many the daemon's machine has: it refuses more. ``by_user``: samples are parted by user ids.
    """
    memory = memory_bytes(limits.memory_bytes, gvisor=gvisor)
    owner = f"uid={wire.CELL_USER},gid={wire.CELL_USER}"
    scratch = f"{owner},rw,nosuid,nodev,noexec,size={limits.tmp_bytes},nr_inodes={INODES},mode=0700"
    if by_user:  # for every user, each of whom can remove what is its own
        scratch = f"rw,nosuid,nodev,noexec,size={limits.tmp_bytes},nr_inodes={INODES},mode=1777"
    tmpfs = {wire.SCRATCH: scratch}
    if gvisor:
        # The runner cannot cover these from inside there, so they are empty from the start.
        tmpfs |= dict.fromkeys(("/proc", "/sys", "/dev/shm"), _EMPTY)  # noqa: S108 - made empty
    options: dict[str, Any] = client.create_host_config(
        network_mode="none",
        ipc_mode="none",
        cgroupns="private",
        read_only=True,
        tmpfs=tmpfs,
        cap_drop=["ALL"],
        cap_add=list(BY_USER_CAPABILITIES) if by_user else [],
        security_opt=["no-new-privileges:true", f"seccomp={docker_seccomp.text(by_user=by_user)}"],
        mem_limit=memory,
        memswap_limit=memory,
        pids_limit=limits.threads + cgroup.RUNNER_PROCESSES + (GVISOR_PROCESSES if gvisor else 0),
        nano_cpus=min(_CPUS, processors) * 1_000_000_000,
        ulimits=[
            {"Name": "nofile", "Soft": _OPEN_FILES, "Hard": _OPEN_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
            # For the runner's code; a sample's own limit is 0.
            {"Name": "memlock", "Soft": _LOCKED_BYTES, "Hard": _LOCKED_BYTES},
            {"Name": "msgqueue", "Soft": 0, "Hard": 0},
        ],
        log_config={"Type": "none", "Config": {}},
        restart_policy={"Name": "no"},
        oom_kill_disable=False,
        runtime=runtime,
    )
    return options
