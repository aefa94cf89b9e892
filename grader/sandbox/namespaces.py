"""The embedded cell: namespaces on this machine, made without a container engine, by root or an ordinary user."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from grader.errors import CellLostError, SandboxError
from grader.limits import MIB, Limits
from grader.sandbox import cgroup, preflight, seccomp
from grader.sandbox.cell import Cell
from grader.sandbox.runner import landlock, wire

_RUNNER = Path(__file__).parent / "runner"
_END_S = 2.0
# The launcher passes the supervisor's end on as an exit status: less the signal's number, in 8 bits.
_SENT_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_ADDRESS_SPACE_EXTRA = 256 * MIB  # what the interpreter maps before the program begins
_LAYERS = ("userns", "mountns", "pidns", "netns", "ipcns", "utsns", "cgroupns", "readonly_root", "no_capabilities",
           "no_new_privs", "seccomp", "rlimits")  # fmt: skip

# The cell's interpreter must not see the grader's modules or its environment: it gets the runner's folder alone.
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from runner.launch import main; main()"


class NamespaceCell(Cell):
    """A cell in namespaces of this machine. Raises SandboxError where one cannot be made.

    ``groups`` says whether control groups limit it, else ``RLIMIT_AS`` does. Where they are to, and none can be made,
    there is no cell: it would be a weaker one than its verdicts say. ``runner`` is the runner's folder; None is the
    package's own.
    """

    backend = "namespaces"

    def __init__(self, root: Path, limits: Limits, *, groups: bool, runner: Path | None = None) -> None:
        self._group = _made_group(limits) if groups else None
        self._landlock = landlock.abi_version()
        self._threads = limits.threads
        self._limit_address_space(limits.memory_bytes)
        self.layers = self._describe_layers()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the cell
        try:
            self._process = self._launch(root, limits, runner or _RUNNER)
        except BaseException:
            self._remove_group()
            raise
        assert self._process.stdin
        assert self._process.stdout
        super().__init__(self._process.stdout.fileno(), self._process.stdin.fileno())
        self.first_process = self._process.pid
        try:
            self.configure(
                {
                    "seccomp": seccomp.sample_filters(),
                    "landlock": self._landlock,
                    "limits": (limits.threads, limits.tmp_bytes, self.address_space),
                    "site_packages": wire.SITE_PACKAGES,
                }
            )
        except CellLostError as error:
            self.close()
            raise SandboxError(f"{error}{preflight.diagnosis()}") from error
        except BaseException:
            self.close()
            raise

    def _launch(self, root: Path, limits: Limits, runner: Path) -> subprocess.Popen[bytes]:
        groups = self._group.folders if self._group else ()
        options = [str(root), str(limits.tmp_bytes), *map(str, groups)]
        python = getattr(sys, "_base_executable", sys.executable)
        return subprocess.Popen(
            [python, "-I", "-S", "-c", _START, str(runner.parent), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={"PATH": os.environ.get("PATH", "")},
            bufsize=0,
        )

    def _describe_layers(self) -> tuple[str, ...]:
        group = self._group
        memory = (
            (f"memory_cgroup_v{group.version}", f"pids_cgroup_v{group.version}")
            if group
            else ("memory_rlimit",)
        )
        lock = (f"landlock_abi{self._landlock}",) if self._landlock else ()
        return (*_LAYERS, *lock, *memory)

    def set_memory_limit(self, size: int) -> None:
        """Let the samples of this cell use ``size`` bytes."""
        if self._group:
            self._group.limit_memory(size + cgroup.RUNNER_MEMORY)
        self._limit_address_space(size)

    def _limit_address_space(self, size: int) -> None:
        self.address_space = (
            cgroup.mapped_beside_group(size, self._threads) if self._group else size + _ADDRESS_SPACE_EXTRA
        )

    def memory_kills(self) -> int:
        """How many processes of this cell the kernel has killed for want of memory."""
        try:
            return self._group.out_of_memory_kills() if self._group else 0
        except OSError as error:
            raise self._lost() from error

    def why_it_ended(self) -> str:
        """The launcher's exit status and what it and the supervisor wrote to standard error."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        return f"exit status {self._process.returncode}; {text[-600:] or 'no message'}"

    def ended_from_outside(self) -> bool:
        """Whether the launcher or the supervisor was ended by a signal that is sent, and not for want of memory."""
        status = self._process.poll()
        if status is None:
            return True
        sent = any(status in (-number, -number & 0xFF) for number in _SENT_SIGNALS)
        return sent and not self._memory_killed_since()

    def close(self) -> None:
        """End the cell and everything in it, and remove its control groups."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        if not self._ended_within(
            0.0 if self._stopped else _END_S
        ):  # the supervisor ends when its input does
            self._process.kill()
            self._ended_within(_END_S)  # what a freezer holds ends when it is let go
        self._errors.close()
        self._remove_group()

    def _ended_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _remove_group(self) -> None:
        if self._group:
            self._group.remove()
            self._group = None


def _made_group(limits: Limits) -> cgroup.Group:
    memory, processes = limits.memory_bytes + cgroup.RUNNER_MEMORY, limits.threads + cgroup.RUNNER_PROCESSES
    try:
        return cgroup.make_group(memory, processes)
    except SandboxError as error:
        raise SandboxError(
            f"a control group that could be made when the grader started can no longer be: {error}. "
            "`grader doctor` says what decides that; started again, the grader uses what there is then"
        ) from error
