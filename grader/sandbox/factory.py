"""Make cells by the name of their backend: once per engine what they are made from, then a cell per worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from grader.errors import InputError, SandboxError
from grader.limits import Limits
from grader.sandbox import pool
from grader.sandbox.cell import Cell
from grader.sandbox.pool import Renewal

BACKENDS = ("namespaces", "docker")
# What may be missing where --allow-missing names it; nothing else can be done without.
OPTIONAL_LAYERS = {"namespaces": frozenset({"landlock"}), "docker": frozenset({"landlock", "mountns"})}
ISOLATIONS = ("namespaces", "uids")
DEFAULT_BACKEND = "namespaces"
_RESTART_S = 60.0


@dataclass(frozen=True, slots=True)
class CellSource:
    """What an engine's cells are made from; it travels to the workers.

    ``key`` names the interpreter and packages that programs find, for caches of what they answer. ``digest`` names
    everything in the cell, the runner included (a container's image by its digest), for caches of verdicts. With a
    ``renewal``, the cells of a worker come from a warm pool; without, a cell lives as long as its worker.
    """

    backend: str
    key: str
    digest: str
    root: Path | None = None
    runtime: str | None = None
    image: str | None = None
    allow_missing: tuple[str, ...] = ()
    renewal: Renewal | None = None
    starts: Path | None = None
    isolation: str = "namespaces"

    def make(self, limits: Limits) -> Cell:
        """Return a new cell. Raises SandboxError where it cannot be made."""
        if self.backend != "docker":
            return make_cell(self.backend, self.root, limits)
        if self.renewal is None:
            return self._container(limits, _RESTART_S)
        make = partial(self._container, limits, 0.0)  # the pool is patient itself
        return pool.PooledCell(pool.entered((self, limits), make, self.renewal, _RESTART_S))

    def _container(self, limits: Limits, patience_s: float) -> Cell:
        from grader.sandbox import docker_starts

        make = partial(
            make_cell,
            "docker",
            None,
            limits,
            self.runtime,
            image=self.image,
            allow_missing=self.allow_missing,
            isolation=self.isolation,
        )
        # The daemon has answered when this was made: if it does not now, it is being restarted.
        return docker_starts.patiently(make, self.starts, patience_s)


def prepare(
    sandbox: str,
    cache: Path,
    *,
    runtime: str | None = None,
    image: str | None = None,
    allow_missing: tuple[str, ...] = (),
    renewal: Renewal | None = None,
    isolation: str = "namespaces",
    on_progress: Callable[[], None] = lambda: None,
) -> CellSource:
    """Check that cells can be made, remove those of graders that crashed, and make what cells are made from.

    ``sandbox`` is a backend or ``auto``, which means ``namespaces``: never something weaker because that is missing.
    ``renewal`` is for ``docker``: when a container is replaced by a fresh one from a warm pool. So is the ``isolation``
    "uids": samples are parted by user ids, for hosts that forbid user namespaces.
    Raises InputError for options that do not go together, SandboxError with the remedy for what is missing.
    """
    backend = checked_backend(sandbox, runtime, image)
    unknown = sorted(set(allow_missing) - OPTIONAL_LAYERS[backend])
    if unknown:
        choices = ", ".join(sorted(OPTIONAL_LAYERS[backend]))
        raise InputError(
            f"the {backend} sandbox is never made without {', '.join(unknown)}; what may be missing: {choices}"
        )
    if backend == "docker":
        source = _prepare_docker(cache, runtime, image, allow_missing, renewal)
        return replace(source, isolation=checked_isolation(isolation, backend, runtime))
    checked_isolation(isolation, backend, runtime)
    if renewal is not None:
        raise InputError(
            "a warm pool, and with it --one-shot, is for the docker sandbox; give --sandbox docker with it"
        )
    from grader.sandbox import preflight, rootfs

    preflight.require(allow_missing)
    reap_orphans(backend)
    root = rootfs.prepare_root(cache, on_progress=on_progress)
    digest = f"{root.name}-{rootfs.runner_digest()[:12]}"
    return CellSource(backend, rootfs.root_key(), digest, root=root, allow_missing=allow_missing)


def _prepare_docker(
    cache: Path,
    runtime: str | None,
    image: str | None,
    allow_missing: tuple[str, ...],
    renewal: Renewal | None,
) -> CellSource:
    # The Docker SDK is an extra, and its import takes as long as making the embedded cell.
    from grader.sandbox import docker_engine, docker_orphans, images

    client = docker_engine.connect()
    try:
        if runtime is not None:
            docker_engine.is_gvisor(client, runtime)
        docker_orphans.reap(client)
        found = images.find(client, image or images.reference())
    finally:
        client.close()
    key = found.root_key or found.id.removeprefix("sha256:")[:16]
    return CellSource(
        "docker",
        key,
        found.id,
        runtime=runtime,
        image=found.id,
        allow_missing=allow_missing,
        renewal=renewal,
        starts=cache / "docker-starts",
    )


def make_cell(
    backend: str,
    root: Path | None,
    limits: Limits,
    runtime: str | None = None,
    *,
    image: str | None = None,
    allow_missing: tuple[str, ...] = (),
    isolation: str = "namespaces",
) -> Cell:
    """Return a new cell.

    ``root`` is the root folder of a ``namespaces`` cell. ``runtime`` (a name registered with the daemon; None means
    its default) and ``image`` (None means the one that fits this grader) are for ``docker``.

    Raises InputError for an unknown backend or an option that it has not, SandboxError where the cell cannot be made.
    """
    if checked_backend(backend, runtime, image) == "docker":
        from grader.sandbox.docker import DockerCell

        return DockerCell(
            limits,
            image=image,
            runtime=runtime,
            allow_missing=allow_missing,
            isolation=checked_isolation(isolation, backend, runtime),
        )
    if root is None:
        raise SandboxError("the embedded sandbox needs its root folder (grader.sandbox.rootfs.prepare_root)")
    from grader.sandbox.namespaces import NamespaceCell

    return NamespaceCell(root, limits)


def checked_backend(sandbox: str, runtime: str | None = None, image: str | None = None) -> str:
    """Return the backend that a ``--sandbox`` means. Raises InputError where the options do not go together."""
    backend = DEFAULT_BACKEND if sandbox == "auto" else sandbox
    if backend not in BACKENDS:
        raise InputError(f"there is no sandbox {sandbox!r}; give auto or one of {', '.join(BACKENDS)}")
    if backend != "docker" and (runtime is not None or image is not None):
        raise InputError("a runtime or an image is for the docker sandbox; give --sandbox docker with it")
    return backend


def checked_isolation(isolation: str, backend: str, runtime: str | None = None) -> str:
    """Return an ``--isolation``, what parts one sample from the next. Raises InputError where it cannot be had."""
    if isolation not in ISOLATIONS:
        raise InputError(f"there is no isolation {isolation!r}; give one of {', '.join(ISOLATIONS)}")
    if isolation != "namespaces" and (backend != "docker" or runtime is not None):
        raise InputError(
            f"the isolation {isolation} is for the docker sandbox with the daemon's own runtime; give --sandbox docker "
            "with it, and no --runtime"
        )
    return isolation


def unavailable_reason(sandbox: str, runtime: str | None = None) -> str:
    """Say why cells cannot be made here, with the remedy; "" if nothing is known to be missing.

    A missing image does not count: it can be made (``grader.sandbox.images.build``). Raises InputError.
    """
    try:
        if checked_backend(sandbox, runtime) == "docker":
            from grader.sandbox import docker_engine

            client = docker_engine.connect()
            try:
                if runtime is not None:
                    docker_engine.is_gvisor(client, runtime)
            finally:
                client.close()
        else:
            from grader.sandbox import preflight

            preflight.require()
    except SandboxError as error:
        return str(error)
    return ""


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
