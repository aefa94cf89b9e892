"""How a sample's process shuts the doors behind itself: one batch of system calls, prepared before the clone."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, NamedTuple

from . import container, kernel, landlock, uids, wire
from .batch import Batch

if TYPE_CHECKING:
    from .supervisor import Config

_STACK_BYTES = 64 << 20
_OPEN_FILES = 256
# Resources by the numbers of getrlimit(2): the module resource would be one more in every cell.
_FSIZE, _STACK, _CORE, _NPROC, _NOFILE, _MEMLOCK, _AS, _MSGQUEUE = 1, 3, 4, 6, 7, 8, 9, 12
_OPTIONS_BYTES = 64
_LAST_DESCRIPTOR = 0x7FFFFFFF
_STARTED = wire.frame(wire.STARTED, b"")


class Places(NamedTuple):
    """Descriptors that the zygote holds open, above those that samples get."""

    proc: int
    null: int
    readable: tuple[landlock.Readable, ...]


class Confinement:
    """The doors, for samples that get ``handles`` descriptors: 0, 1, 2 and so on.

    Everything from a descriptor above those on is closed at the end, so that the next one to be opened has that number.
    """

    def __init__(self, places: Places, config: Config, handles: int) -> None:
        self._free = handles
        self._limits = {number: kernel.Limit() for number in (_NPROC, _FSIZE, _AS)}
        self._options = ctypes.create_string_buffer(_OPTIONS_BYTES)
        self._space = kernel.hard_limit(_AS)
        self._set: tuple[int, int, int] | None = None
        self._batch = batch = Batch()
        self._proc, by_user = places.proc, config.users != (0, 0)
        self._own_namespaces = places.proc != container.NO_PROC and not by_user
        if self._own_namespaces:
            batch.add("setsid", kernel.SYS_SETSID, expected=1)  # see apply
            self._add_own_user(places.proc)
            self._add_own_files()
        batch.add("chdir", kernel.SYS_CHDIR, wire.SCRATCH.encode())
        self._add_limits(own_queues=places.proc != container.NO_PROC)
        # A new user namespace has them all again; who became another user is no longer allowed to give up more.
        for capability in range(0 if by_user else kernel.last_capability() + 1):
            batch.add("drop of a capability", kernel.SYS_PRCTL, kernel.PR_CAPBSET_DROP, capability)
        batch.add("capset", kernel.SYS_CAPSET, kernel.CAPABILITY_HEADER, kernel.NO_CAPABILITIES)
        batch.add("no_new_privs", kernel.SYS_PRCTL, kernel.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # A crash may neither write a core nor start the program that the host's core_pattern names.
        batch.add("dumpable", kernel.SYS_PRCTL, kernel.PR_SET_DUMPABLE, 0, 0, 0, 0)
        if config.landlock:
            landlock.add_to(batch, config.landlock, wire.SCRATCH, places.readable, places.null, self._free)
        batch.add("close of the payload", kernel.SYS_CLOSE, wire.PAYLOAD_FD)
        batch.add("close_range", kernel.SYS_CLOSE_RANGE, self._free, _LAST_DESCRIPTOR, 0)
        program = kernel.filter_program(config.seccomp[1])
        batch.add(
            "seccomp", kernel.SYS_PRCTL, kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER, program, 0, 0
        )
        batch.add("start", kernel.SYS_WRITE, wire.ANSWER_FD, _STARTED, len(_STARTED), expected=len(_STARTED))
        batch.seal()

    def _add_own_user(self, proc: int) -> None:
        mapping = f"{wire.CELL_USER} {wire.CELL_USER} 1".encode()
        for name, text in (
            (b"self/setgroups", b"deny"),
            (b"self/uid_map", mapping),
            (b"self/gid_map", mapping),
            (b"self/oom_score_adj", b"1000"),
        ):
            what = name.decode()
            self._batch.add(what, kernel.SYS_OPENAT, proc, name, os.O_WRONLY, 0, expected=self._free)
            self._batch.add(what, kernel.SYS_WRITE, self._free, text, len(text), expected=len(text))
            self._batch.add(what, kernel.SYS_CLOSE, self._free)

    def _add_own_files(self) -> None:
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        place = wire.SCRATCH.encode()
        self._batch.add("mount of /tmp", kernel.SYS_MOUNT, b"tmp", place, b"tmpfs", flags, self._options)

    def _add_limits(self, *, own_queues: bool) -> None:
        stack = min(kernel.hard_limit(_STACK), _STACK_BYTES)
        fixed = {_CORE: 0, _NOFILE: _OPEN_FILES, _MEMLOCK: 0, _STACK: stack}
        if own_queues:
            fixed[_MSGQUEUE] = 0  # message queues are files too; gVisor has none
        limits = self._limits | {number: kernel.Limit(value, value) for number, value in fixed.items()}
        for number, limit in limits.items():
            self._batch.add(f"limit {number}", kernel.SYS_PRLIMIT, 0, number, limit, 0)

    def apply(self, limits: dict[str, int], user: int) -> None:
        """Confine this process; ``limits`` has ``threads``, ``tmp_bytes`` and ``address_space`` (0: as it is).
        ``user`` is whom to become where samples are parted by user ids, else 0.

        Raises OSError, which names the door that does not shut.
        """
        self.expect(limits["threads"], limits["tmp_bytes"], limits["address_space"])
        if not self._own_namespaces:  # where setsid(2) returns another number; gVisor's returns 0
            # kill(0) reaches a process group, whatever the namespace: ours has the supervisor in it.
            os.setsid()
        if user:
            kernel.write_at(self._proc, "self/oom_score_adj", "1000")
            uids.become(user)
        self._batch.run()

    def expect(self, threads: int, tmp_bytes: int, space: int) -> None:
        """Make ready for these limits; samples that have them find it done."""
        wanted = threads, tmp_bytes, space
        if wanted == self._set:
            return
        self._set = wanted
        for number, value in ((_NPROC, threads), (_FSIZE, tmp_bytes), (_AS, space or self._space)):
            self._limits[number].soft = self._limits[number].hard = value
        self._options.value = f"size={tmp_bytes},nr_inodes=4096,mode=700".encode()
