"""The Docker cell: a long-lived container of a Docker daemon on this machine, with runc or gVisor as its runtime."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import time
from pathlib import Path

from grader.errors import CellLostError, SandboxError
from grader.limits import MIB, Limits
from grader.sandbox import cgroup, docker_engine, docker_options, docker_orphans, images, liveness, seccomp
from grader.sandbox.cell import Cell, Event
from grader.sandbox.docker_stream import Demultiplexer
from grader.sandbox.runner import threads, wire
from grader.sandbox.runner.container import UIDS
from grader.sandbox.runner.pace import EVERY_S, Pace
from grader.sandbox.runner.supervisor import ASK_KERNEL

_ADDRESS_SPACE_EXTRA = 256 * MIB  # what the interpreter maps before the program begins
_LAYERS = ("container", "userns", "pidns", "netns", "ipcns", "utsns", "cgroupns", "readonly_root", "no_capabilities",
           "no_new_privs", "seccomp", "rlimits")  # fmt: skip
# Without namespaces for each sample: samples are parted by user ids, and see the container's processes.
_LAYERS_BY_USER = ("container", "uids", "netns", "utsns", "cgroupns", "readonly_root",
                   "setuid_setgid_kill_capabilities", "no_new_privs", "seccomp", "rlimits")  # fmt: skip
_USERS = 32  # of a cell; each is used again when nothing of it is left
# What gVisor's own kernel has not: mounts and Landlock for a sample. Chosen with the runtime's name, and stamped.
_NOT_IN_GVISOR = ("mountns", "landlock")


_TICK_S = 0.05
_KILLED_STATUS = 128 + 9
_UNSEEN = (
    "the control group of the container's process {pid} cannot be seen from here, so that {what}: run the grader on "
    "the daemon's machine, outside of any container that has process ids of its own (docker run --pid=host)"
)


class DockerCell(Cell):
    """A cell in a container. ``image`` is a name and tag, or an id; None means the one that fits this grader.

    ``runtime`` is a runtime registered with the daemon; None means the daemon's default. Layers that are missing must
    be named in ``allow_missing``, except those that gVisor never has. ``isolation`` "uids" parts samples by user ids
    instead of namespaces. ``patience_s`` is how long to wait for a daemon
    that does not answer. Raises SandboxError, with the command that mends it, where the container cannot be made.
    """

    backend = "docker"

    def __init__(
        self,
        limits: Limits,
        *,
        image: str | None = None,
        runtime: str | None = None,
        allow_missing: tuple[str, ...] = (),
        isolation: str = "namespaces",
        patience_s: float = 0.0,
    ) -> None:
        self._by_user = isolation == "uids"
        self._client = docker_engine.connect(patience_s)
        self._container = ""
        self._pipe: socket.socket | None = None
        self._stream = Demultiplexer()
        self._group: cgroup.Group | None = None
        self._host_cpu = Path()
        self._next_tick = self._paced_at = 0.0
        self._slowness = 1.0
        self._stopped = False
        try:
            self.image = images.find(self._client, image or images.reference())
            self._gvisor = docker_engine.is_gvisor(self._client, runtime)
            if self._gvisor and self._by_user:
                raise SandboxError(
                    "the daemon's default runtime is gVisor, and the isolation uids is for runc: gVisor needs nothing "
                    "of the host, so leave --isolation out"
                )
            self.runtime = runtime
            self.exact_clocks = (
                not self._gvisor
            )  # gVisor's count the time that a process waits for a processor too
            self._threads = limits.threads
            self._limit_address_space(limits.memory_bytes)
            self._start(limits)
            self._configure(limits, allow_missing)
            docker_orphans.remove_left(self._client)
        except BaseException:
            self.close()
            raise

    def _start(self, limits: Limits) -> None:
        client = self._client
        with docker_engine.explained(f"cannot make a container of {self.image.reference}"):
            options = docker_options.host_config(
                client, limits, runtime=self.runtime, gvisor=self._gvisor, processors=client.info()["NCPU"],
                by_user=self._by_user,
            )  # fmt: skip
            # Named by us: where the daemon goes away before it has answered, the container is still found and removed.
            self._container = f"grader-{secrets.token_hex(16)}"
            self._container = client.create_container(
                self.image.id,
                name=self._container,
                host_config=options,
                hostname="cell",
                user="0:0" if self._by_user else f"{wire.CELL_USER}:{wire.CELL_USER}",
                command=[UIDS] if self._by_user else None,
                working_dir="/",
                stdin_open=True,
                labels=docker_orphans.own_labels(),
            )["Id"]
            # Attached before it starts, so that nothing of what it says is missed.
            self._pipe = docker_engine.attach(client, self._container)
            client.start(self._container)
            state = client.inspect_container(self._container)["State"]
        super().__init__(self._pipe.fileno(), self._pipe.fileno())
        self.first_process = state.get("Pid", 0)
        if self._gvisor:
            self._host_cpu = self._find_counter(state.get("Pid", 0))
            self.wake_s, self.exact_clocks = _TICK_S, False
            self._pace, self._computing = Pace(), list[int]()
        else:
            self._group = self._find_group(state.get("Pid", 0))

    def _configure(self, limits: Limits, allow_missing: tuple[str, ...]) -> None:
        try:
            self.configure(
                {
                    "seccomp": seccomp.sample_filters(),
                    "landlock": 0 if self._gvisor else ASK_KERNEL,
                    "limits": (limits.threads, limits.tmp_bytes, self.address_space),
                    "site_packages": wire.SITE_PACKAGES,
                    "users": _own_users() if self._by_user else (0, 0),
                }
            )
        except CellLostError as error:
            raise SandboxError(docker_engine.explain("the container does not start", str(error))) from error
        missing = [name for name, there in (("mountns", self.hello["own_mounts"]), ("landlock", self.hello["landlock"]))
                   if not there]  # fmt: skip
        if self._by_user:
            missing.remove("mountns")  # chosen with the isolation's name, and stamped
        refused = [name for name in missing if name not in allow_missing]
        if refused and not (self._gvisor and set(refused) <= set(_NOT_IN_GVISOR)):
            raise SandboxError(
                f"a container of the runtime {self.runtime or 'runc'} lacks {', '.join(refused)} here; `grader doctor` "
                "says what decides that; to grade without, name it with --allow-missing: it is stamped on every verdict"
            )
        self.layers = self._describe_layers()

    def _describe_layers(self) -> tuple[str, ...]:
        layers = [*(_LAYERS_BY_USER if self._by_user else _LAYERS)]
        if self._gvisor:
            layers.insert(1, "gvisor")
        if self.hello["own_mounts"]:
            layers.append("mountns")
        if self.hello["landlock"]:
            layers.append(f"landlock_abi{self.hello['landlock']}")
        memory = (
            (f"memory_cgroup_v{self._group.version}",) if self._group else ("memory_cgroup", "memory_rlimit")
        )
        pids = f"pids_cgroup_v{self._group.version}" if self._group else "pids_cgroup"
        return (*layers, *memory, pids)

    def _find_counter(self, pid: int) -> Path:
        """The host's count of the container's CPU time: gVisor's own clocks run while a program only waits."""
        counter = cgroup.cpu_counter_of(pid) if pid else None
        if counter is None or self._container[:12] not in str(counter):
            raise SandboxError(_UNSEEN.format(pid=pid, what="CPU time could not be told from waiting"))
        return counter

    def _find_group(self, pid: int) -> cgroup.Group:
        """The container's control group on this machine, for the kernel's count of kills."""
        group = cgroup.group_of(pid) if pid else None
        if group is None or self._container[:12] not in str(group.memory):
            raise SandboxError(_UNSEEN.format(pid=pid, what="memory limits could not be told from crashes"))
        return group

    def _limit_address_space(self, size: int) -> None:
        # In gVisor the kernel would kill the whole container: there the sample's own limit must come first.
        self.address_space = (
            size + _ADDRESS_SPACE_EXTRA if self._gvisor else cgroup.mapped_beside_group(size, self._threads)
        )

    def set_memory_limit(self, size: int) -> None:
        """Let the samples of this cell use ``size`` bytes."""
        self._limit_address_space(size)
        if self._gvisor:
            return  # each sample has a limit of its own, and runsc cannot change the container's
        memory = docker_options.memory_bytes(size, gvisor=False)
        with docker_engine.explained("cannot change the memory limit of a container"):
            self._client.update_container(self._container, mem_limit=memory, memswap_limit=memory)

    def memory_kills(self) -> int:
        """How many processes of this cell the kernel has killed for want of memory."""
        try:
            return self._group.out_of_memory_kills() if self._group else 0
        except OSError as error:
            raise self._lost() from error

    def why_it_ended(self) -> str:
        """The container's state, and what the supervisor wrote to standard error."""
        text = self._stream.errors.decode(errors="replace").strip()[-600:]
        try:
            with docker_engine.explained("cannot inspect the container"):
                state = self._client.inspect_container(self._container)["State"]
        except SandboxError as error:
            return f"{error}; {text or 'no message'}"
        killed = ", killed for want of memory" if state.get("OOMKilled") else ""
        reason = f", {state['Error']}" if state.get("Error") else ""
        return f"{state['Status']}, exit status {state['ExitCode']}{killed}{reason}; {text or 'no message'}"

    def ended_from_outside(self) -> bool:
        """Whether the container was killed, and not for want of memory, or still runs but is out of reach."""
        try:
            with docker_engine.explained("cannot inspect the container"):
                state = self._client.inspect_container(self._container)["State"]
        except SandboxError:
            return True
        # The engine remembers a kill of any process here: one that was told with its run does not count again.
        out_of_memory = state.get("OOMKilled") and not self._kills_seen
        return bool(state["Running"] or (state["ExitCode"] == _KILLED_STATUS and not out_of_memory))

    def _why_stopped(self) -> str:
        why = super()._why_stopped()
        if self._gvisor and not why:  # its engine pauses it without the host's kernel
            with contextlib.suppress(SandboxError), docker_engine.explained("cannot inspect the container"):
                if self._client.inspect_container(self._container)["State"]["Paused"]:
                    return "the engine has paused it"
        return why

    def receive(self, timeout_s: float | None) -> list[Event]:
        """Wait for events, as every cell does; with gVisor, tell the supervisor of the host's clock meanwhile."""
        if self.wake_s is not None and self.hello:
            self._tick()
            timeout_s = self.wake_s if timeout_s is None else min(timeout_s, self.wake_s)
        return super().receive(timeout_s)

    def _tick(self) -> None:
        now = time.monotonic()
        if now < self._next_tick or self.writers:
            return
        self._next_tick = now + _TICK_S / 2
        try:
            used = cgroup.read_cpu_s(self._host_cpu)
        except OSError as error:
            raise self._lost() from error
        if used - self._paced_at > EVERY_S:
            self._paced_at = used
            self._slowness = self._slowness_now() or self._slowness
        self._send(wire.TICK, wire.TICK_BODY.pack(used, self._slowness))

    def _slowness_now(self) -> float | None:
        """How slow the processor is on which the container computes; None where none of its threads does."""
        proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        try:
            processor = threads.processor_of(self._computing, proc)
            if processor is None:
                # The last first: those of the latest sample, and only then the threads of gVisor itself.
                self._computing = [*liveness.descendants(self.first_process)][::-1]
                processor = threads.processor_of(self._computing, proc)
        finally:
            os.close(proc)
        return None if processor is None else self._pace.slowness_of(processor)

    def _unwrap(self, data: bytes) -> bytes:
        return self._stream.feed(data)

    def close(self) -> None:
        """Kill and remove the container, and so everything in it."""
        if self._stopped and self.first_process:
            # The engine would ask a stopped gVisor to end itself, and wait two minutes for it.
            with contextlib.suppress(OSError):
                os.kill(self.first_process, signal.SIGKILL)
        if self._container:
            with contextlib.suppress(SandboxError), docker_engine.explained("cannot remove a container"):
                docker_orphans.remove(self._client, self._container)
            self._container = ""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        self._client.close()


def _own_users() -> tuple[int, int]:
    """User ids that no other cell has: the kernel counts the processes of a user on the whole machine."""
    return 0x40000000 + secrets.randbelow(1 << 24) * _USERS, _USERS
