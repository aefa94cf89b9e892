"""To start a Ray cluster of our own, to join one that is there, and to leave without a trace."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grader.errors import InfrastructureError, InputError
from grader.sandbox.liveness import descendants

RESOURCE = "sandbox"
# A node that died is noticed within about 2 s; with Ray's own settings it takes 14 s.
HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
_OBJECT_STORE_BYTES = 128 << 20  # expected answers do not go through it on one machine
_CONNECT_S = 10.0
_OLDEST = (2, 59)  # from here on, a local cluster demands a token by default
_END_S = 10.0
_PREFIX = "grader-ray-"
_FOLDER = "GRADER_RAY_FOLDER"  # in the environment of all that a cluster of our own has started
_Process = tuple[int, str]  # its id and start time: ids are used again
# Ray keeps the first token that it sees for as long as the process lives.
_TOKEN = secrets.token_hex(32)


def checked_address(address: str | None) -> str | None:
    """Return the address of a cluster to join; None for none. Raises InputError for one that cannot be used."""
    if not address:
        return None
    if address.startswith("ray://"):
        raise InputError(
            f"{address} names Ray's client proxy, which makes each call slower by milliseconds and has no streams; "
            "run the grader on a node of the cluster (ray start --address=HEAD:6379) and give HEAD:6379 or 'auto'"
        )
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and port.isdecimal() and int(port) < 1 << 16):
        raise InputError(
            f"the Ray address {address!r} is not one; give HOST:PORT of the head node, or 'auto'"
        )
    return address


class Cluster:
    """This process as a driver of a Ray cluster; at most one at a time in a process.

    ``started``: the cluster is ours, and ends with us. ``borrowed``: the process had joined one before we came.
    """

    def __init__(self, address: str | None, slots: int) -> None:
        """Join the cluster at ``address``, or start one of this machine alone with ``slots`` workers' places.

        Blocks for seconds. Raises InfrastructureError where that fails, with what Ray says.
        """
        if address is not None and (
            os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
        ):
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # is read when Ray is imported
        _check_installed()
        import ray

        self._asked_for = 0
        self._folder: Path | None = None
        self.borrowed = ray.is_initialized()
        self.started = not self.borrowed and address is None
        try:
            if self.started:
                self._start(slots)
            elif address is not None and not self.borrowed:
                _join(address)
            if not self.borrowed:
                _keep_off_standard_output()
        except BaseException:
            self.leave()
            raise

    def _start(self, slots: int) -> None:
        import ray

        _remove_what_the_dead_left()
        # Ray's sockets are in it, and their paths must be short.
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        environment = _secured() | {_FOLDER: str(self._folder)}
        with _environment(environment), _said_by_ray("a local Ray cannot be started"):
            ray.init(
                address="local",
                num_cpus=0,  # workers take a place each, and no CPU of Ray's: nothing else is started in advance
                num_gpus=0,
                resources={RESOURCE: slots},
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                _temp_dir=str(self._folder),
                _system_config=dict(HEALTH_CHECKS),
                **_QUIET,
            )

    def places(self) -> int:
        """Return how many workers the nodes that are alive have room for. Blocks; raises what Ray raises."""
        import ray

        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return int(resources.get(RESOURCE, 0))

    def ask_for(self, places: int) -> None:
        """Have an autoscaler, if there is one, provide room for so many workers in all. Blocks."""
        if self.started or places == self._asked_for:
            return
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=[{RESOURCE: 1}] * places)
        self._asked_for = places

    def leave(self) -> None:
        """Leave the cluster; one that is ours has ended, and left nothing, when this returns. Blocks."""
        import ray

        if self._asked_for:
            with contextlib.suppress(Exception):  # the head may be down
                self.ask_for(0)
        if self.borrowed:
            return
        folder = self._folder
        # Cells too, which say nothing of where they came from: they end with what is above them.
        ours = (
            {_identified(pid) for top in _started_in(folder) for pid in descendants(top)} if folder else set()
        )
        ray.shutdown()
        _wait_for(ours)
        if folder:
            _kill_all_of(folder)
            shutil.rmtree(folder, ignore_errors=True)


def take_back_signals() -> None:
    """Have Python handle SIGTERM again, where it is this thread's to say.

    Ray's own handler dumps a stack, passes the signal on, and aborts the process 3 s later, in the middle of a drain.
    """
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


_QUIET: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}


def _check_installed() -> None:
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"the engine 'ray' needs Ray ({error}); install it with: pip install '.[ray]' in the grader's source folder"
        ) from error
    if tuple(map(int, ray.__version__.split(".")[:2])) < _OLDEST:
        raise InputError(
            f"Ray {ray.__version__} starts clusters that do what anyone tells them; "
            f"install {'.'.join(map(str, _OLDEST))} or later"
        )


def _join(address: str) -> None:
    import ray

    if address != "auto":
        host, _, port = address.rpartition(":")
        try:  # where nobody listens, Ray's own attempt ends the process
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
        except OSError as error:
            raise InfrastructureError(
                f"no Ray cluster answers at {address}: {error}; give the address of its head, "
                "or start one (ray start --head)"
            ) from error
    advice = (
        "this machine must be a node of it (ray start --address=HEAD:PORT --num-cpus=0), with the same versions of "
        "Ray and Python; where it demands a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    )
    with (
        _environment({"RAY_USAGE_STATS_ENABLED": "0"}),
        _said_by_ray(f"the Ray cluster at {address} cannot be joined", advice),
    ):
        ray.init(address=address, namespace="grader", **_QUIET)


def _keep_off_standard_output() -> None:
    """End the thread in which Ray prints what raylets remark, where our own results go. It has no setting for that."""
    from ray._private.worker import global_worker

    subscriber = getattr(global_worker, "gcs_error_subscriber", None)
    if subscriber is not None:
        global_worker.threads_stopped.set()
        subscriber.close()


def _secured() -> dict[str, str]:
    """The environment of a cluster of our own: it answers only those who know its token.

    Ray asks for one in local clusters by itself, unless RAY_AUTH_MODE says otherwise, but it would write it to the
    user's home folder.
    """
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if not (os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")):
        wanted["RAY_AUTH_TOKEN"] = _TOKEN
    return wanted


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _said_by_ray(what: str, advice: str = "") -> Iterator[None]:
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:  # Ray has no base for all that it raises here
        said = " ".join(str(error).split())[:600]
        raise InfrastructureError(
            f"{what}: {said or type(error).__name__}{advice and '; ' + advice}"
        ) from error
    finally:
        logger.setLevel(level)


def _started_in(folder: Path) -> set[int]:
    """The processes of the cluster with this folder that are alive, whoever is their parent now.

    Ray's agents write their title over the arguments and a part of the environment; they keep their logs in the folder
    open. Their output is no mark: it goes through a pipe. Who else has a log open, as tail does, is none of them.
    """
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            named = f"{_FOLDER}={folder}".encode() in (process / "environ").read_bytes().split(b"\0")
            titled = (process / "cmdline").read_bytes().startswith(b"ray::")
            if named or (titled and _has_open(process, f"{folder}/")):
                found.add(int(process.name))
    return found


def _has_open(process: Path, prefix: str) -> bool:
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if str(descriptor.readlink()).startswith(prefix):
                return True
    return False


def _kill_all_of(folder: Path) -> None:
    """Kill the processes of the cluster with this folder, until none is left that could have started another."""
    until = time.monotonic() + _END_S
    while (alive := _started_in(folder)) and time.monotonic() < until:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _wait_for(processes: set[_Process]) -> None:
    """Wait until processes are gone; kill those that take too long."""
    until = time.monotonic() + _END_S
    while alive := [process for process in processes if _is_alive(process)]:
        if time.monotonic() > until:
            for pid, _ in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)


def _identified(pid: int) -> _Process:
    return pid, _stat(pid)[1]


def _is_alive(process: _Process) -> bool:
    state, started = _stat(process[0])
    return state not in ("", "Z") and started == process[1]


def _stat(pid: int) -> tuple[str, str]:
    """A process's state and start time (proc_pid_stat(5), fields 3 and 22); empty where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _remove_what_the_dead_left() -> None:
    """End clusters, and remove their folders, whose process was killed. Most of Ray's processes notice that by
    themselves; on a busy machine not all do.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            _kill_all_of(folder)
            shutil.rmtree(folder, ignore_errors=True)
