"""The Docker daemon: how it is reached, and what its errors mean for the person who has to mend them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from grader.errors import SandboxError

# The first API version (Docker 20.10) that has everything a cell asks for: private control groups among it.
MINIMUM_API = (1, 41)
_START_HINT = "start it (systemctl start docker; in a development checkout, as root: scripts/start-docker.sh)"
_TIMEOUT_S = 120
_KNOCK_AGAIN_S = 0.2


class DaemonAwayError(SandboxError):
    """Nothing answers where the daemon was: it has ended, or is being restarted."""


def connect(patience_s: float = 0.0) -> Any:
    """Return a ``docker.APIClient`` of the daemon on this machine (``DOCKER_HOST``, or the usual socket).

    Waits up to ``patience_s`` seconds for one that does not answer, e.g. because it is being restarted.
    Raises SandboxError where there is no daemon, it is too old, or it is on another machine.
    """
    try:
        import docker  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise SandboxError(
            "the docker sandbox needs the Docker SDK for Python: pip install '.[docker]' in the grader's source folder"
        ) from error
    where = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not where.startswith("unix://"):
        raise SandboxError(
            f"DOCKER_HOST is {where}: cells need a daemon on this machine, reached by its socket (unix://...), because "
            "the kernel's counters of a container are read here; unset DOCKER_HOST, or run the grader over there"
        )
    try:
        _knock(where.removeprefix("unix://"), time.monotonic() + patience_s)
        client = docker.APIClient(base_url=where, version="auto", timeout=_TIMEOUT_S)
    except (docker.errors.DockerException, OSError) as error:
        raise DaemonAwayError(_unreachable(where, str(error))) from error
    version = tuple(int(part) for part in client.api_version.split("."))
    if version < MINIMUM_API:
        found = client.version().get("Version", "?")
        client.close()
        raise SandboxError(
            f"the Docker daemon at {where} is version {found} (API {'.'.join(map(str, version))}); cells need 20.10 "
            f"(API {'.'.join(map(str, MINIMUM_API))}) or newer: upgrade it (apt-get install docker.io, or docker-ce)"
        )
    return client


def _knock(path: str, deadline: float) -> None:
    """Raise OSError unless somebody listens: the SDK would do the same, and leave an open socket behind."""
    while True:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.connect(path)
                return
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() >= deadline:
                raise
            time.sleep(_KNOCK_AGAIN_S)


def _unreachable(where: str, error: str) -> str:
    if "Permission denied" in error:
        return (
            f"this user may not use the Docker daemon at {where}: add it to the daemon's group "
            "(sudo usermod -aG docker $USER, then log in again)"
        )
    return f"no Docker daemon answers at {where}: {_START_HINT}. ({error[:200]})"


# What the daemon says (a part of it, in lower case), what it means, and what mends it.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    # First: where there may be none at all, the kernel says that there is no space left for one.
    ("] unshare 0x", "the host forbids user namespaces in containers",
     "as root: sysctl -w user.max_user_namespaces=15000; on Debian also kernel.unprivileged_userns_clone=1, on Ubuntu "
     "kernel.apparmor_restrict_unprivileged_userns=0; or choose the weaker isolation that needs none: uids"),
    ("no such image", "the image is missing", "make it: grader images build --offline"),
    ("unknown or invalid runtime", "the runtime is not registered with the daemon",
     'add it to "runtimes" in /etc/docker/daemon.json and restart the daemon; docs/docker.md has the lines for runsc'),
    ("unknown runtime", "the runtime is not registered with the daemon",
     'add it to "runtimes" in /etc/docker/daemon.json and restart the daemon; docs/docker.md has the lines for runsc'),
    ("no space left on device", "the daemon's disk is full",
     "make room: docker system df shows what uses it, docker system prune removes what is unused"),
    ("seccomp", "the daemon refuses our seccomp profile",
     "docker info must list seccomp; the daemon needs libseccomp 2.4 or newer and a kernel with CONFIG_SECCOMP_FILTER"),
    ("cgroup", "a control group cannot be made",
     "docker info shows the cgroup driver; the memory and pids controllers must be mounted and delegated to it"),
    ("manifest unknown", "the registry has no base image of this machine's version of Python",
     "make the image from this machine's interpreter: grader images build --offline"),
    ("dial tcp", "the registry of the base image cannot be reached",
     "make the image from this machine's interpreter: grader images build --offline"),
    ("pids limit", "the daemon cannot limit processes", "mount the pids controller"),
    ("connection aborted", "the daemon went away", _START_HINT),
    ("connection refused", "the daemon went away", _START_HINT),
)  # fmt: skip


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn the SDK's errors inside the block into SandboxErrors that name the cause and what mends it.

    A daemon that went away is a DaemonAwayError.
    """
    import docker
    import requests  # type: ignore[import-untyped,import-not-found,unused-ignore]

    try:
        yield
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        away = isinstance(error, requests.exceptions.ConnectionError | ConnectionError | FileNotFoundError)
        text = explain(doing, str(getattr(error, "explanation", None) or error))
        raise (DaemonAwayError if away else SandboxError)(text) from error


def explain(doing: str, error: str) -> str:
    """Return the text for an error of the daemon, e.g. from starting a container."""
    said = error.lower()
    for part, cause, remedy in _CAUSES:
        if part in said:
            return f"{doing}: {cause}: {error.strip()[:400]}. To mend it: {remedy}"
    return f"{doing}: {error.strip()[:600]}"


def attach(client: Any, container: str) -> socket.socket:
    """Return the connection to a container's standard input and (multiplexed) output and error.

    Raises the SDK's errors, and ConnectionError where the daemon has closed the connection already.
    """
    try:
        attached = client.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    except AttributeError as error:  # the SDK reaches through an answer whose connection is gone
        raise ConnectionError("the daemon closed the connection to the container") from error
    raw: socket.socket = attached._sock
    pipe = raw.dup()
    # The SDK's objects around the connection keep each other alive, and close nothing by themselves.
    attached._response.close()
    attached.close()
    raw.close()
    return pipe


def ignoring_missing(action: Callable[[], object]) -> None:
    """Do something to a container or an image that may be gone already."""
    import docker

    try:
        action()
    except docker.errors.NotFound:
        pass
    except docker.errors.APIError as error:
        if error.status_code != 409:  # its removal is under way
            raise


def is_gvisor(client: Any, runtime: str | None) -> bool:
    """Whether a registered runtime is gVisor's, whatever name the operator gave it; None is the daemon's default.

    Raises SandboxError where it is not registered.
    """
    info = client.info()
    runtimes = info.get("Runtimes") or {}
    name = runtime or info.get("DefaultRuntime") or ""
    if runtime is not None and runtime not in runtimes:
        raise SandboxError(
            f"the runtime {runtime!r} is not registered with the Docker daemon (it has {', '.join(sorted(runtimes))}): "
            f'add it to "runtimes" in /etc/docker/daemon.json and restart the daemon; docs/docker.md has the lines'
        )
    found = runtimes.get(name) or {}
    path = found.get("path") or found.get("runtimeType") or ""
    return "runsc" in path.rpartition("/")[2]
