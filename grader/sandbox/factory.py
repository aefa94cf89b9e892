"""Make a cell by the name of its backend."""

from __future__ import annotations

from pathlib import Path

from grader.errors import InputError, SandboxError
from grader.limits import Limits
from grader.sandbox.cell import Cell

BACKENDS = ("namespaces", "docker")


def make_cell(
    backend: str,
    root: Path | None,
    limits: Limits,
    runtime: str | None = None,
    *,
    image: str | None = None,
    allow_missing: tuple[str, ...] = (),
) -> Cell:
    """Return a new cell.

    ``root`` is the root folder of a ``namespaces`` cell. ``runtime`` (a name registered with the daemon; None means
    its default) and ``image`` (None means the one that fits this grader) are for ``docker``.

    Raises InputError for an unknown backend or an option that it has not, SandboxError where the cell cannot be made.
    """
    if backend == "docker":
        # The Docker SDK is an extra, and its import takes as long as making the embedded cell.
        from grader.sandbox.docker import DockerCell

        return DockerCell(limits, image=image, runtime=runtime, allow_missing=allow_missing)
    if backend != "namespaces":
        raise InputError(f"there is no sandbox {backend!r}; give one of {', '.join(BACKENDS)}")
    if runtime is not None or image is not None:
        raise InputError("a runtime or an image is for the docker sandbox: add --sandbox docker")
    if root is None:
        raise SandboxError("the embedded sandbox needs its root folder (grader.sandbox.rootfs.prepare_root)")
    from grader.sandbox.namespaces import NamespaceCell

    return NamespaceCell(root, limits)


def environment_key(backend: str, root_key: str, image: str | None = None) -> str:
    """Return what decides which interpreter and packages a program finds, for the keys of caches.

    For ``namespaces`` that is the root's key; for ``docker`` the image's digest. Raises SandboxError where the image is
    missing.
    """
    if backend != "docker":
        return root_key
    from grader.sandbox import docker_engine, images

    client = docker_engine.connect()
    try:
        return images.find(client, image or images.reference()).id.removeprefix("sha256:")[:16]
    finally:
        client.close()


def reap_orphans(backend: str) -> int:
    """Remove what graders that crashed have left of this backend's cells; returns how many cells."""
    if backend != "docker":
        from grader.sandbox import cgroup

        return cgroup.remove_abandoned()
    from grader.sandbox import docker_engine, docker_orphans

    client = docker_engine.connect()
    try:
        return docker_orphans.reap(client)
    finally:
        client.close()
