"""Make cells by the name of their backend: once per engine what they are made from, then a cell per worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from grader.errors import SandboxError
from grader.limits import Limits
from grader.sandbox.cell import Cell
from grader.sandbox.options import CellOptions

_RESTART_S = 60.0


@dataclass(frozen=True, slots=True)
class CellSource:
    """What an engine's cells are made from; it travels to the workers.

    ``key`` names the interpreter and packages that programs find, for caches of what they answer. ``digest`` names
    everything in the cell, the runner included (a container's image by its digest), for caches of verdicts. ``groups``
    says whether control groups limit embedded cells: found out once, so that no later cell is a weaker one. Where the
    options have a ``renewal``, the cells of a worker come from a warm pool; else a cell lives as long as its worker.
    """

    options: CellOptions
    key: str
    digest: str
    root: Path | None = None
    runner: Path | None = None
    groups: bool = False
    image: str | None = None
    starts: Path | None = None

    def make(self, limits: Limits) -> Cell:
        """Return a new cell. Raises SandboxError where it cannot be made."""
        if self.options.backend != "docker":
            return self._embedded(limits)
        if self.options.renewal is None:
            return self._container(limits, _RESTART_S)
        from grader.sandbox.pool import entered
        from grader.sandbox.pooled_cell import PooledCell

        make = partial(self._container, limits, 0.0)  # the pool is patient itself
        return PooledCell(entered((self, limits), make, self.options.renewal, _RESTART_S))

    def _embedded(self, limits: Limits) -> Cell:
        if self.root is None:
            raise SandboxError(
                "the embedded sandbox needs its root folder (grader.sandbox.rootfs.prepare_root)"
            )
        from grader.sandbox.namespaces import NamespaceCell

        return NamespaceCell(self.root, limits, groups=self.groups, runner=self.runner)

    def _container(self, limits: Limits, patience_s: float) -> Cell:
        from grader.sandbox import docker_starts
        from grader.sandbox.docker import DockerCell

        options = self.options
        make = partial(
            DockerCell,
            limits,
            image=self.image,
            runtime=options.runtime,
            allow_missing=options.allow_missing,
            isolation=options.isolation,
        )
        # The daemon has answered when this was made: if it does not now, it is being restarted.
        return docker_starts.patiently(make, self.starts, patience_s)


def prepare(
    options: CellOptions, cache: Path, *, on_progress: Callable[[], None] = lambda: None
) -> CellSource:
    """Check that cells can be made, remove those of graders that crashed, and make what cells are made from.

    Raises SandboxError with the remedy for what is missing.
    """
    if options.backend == "docker":
        return _prepare_docker(options, cache)
    from grader.sandbox import cgroup, preflight, rootfs

    preflight.require(options.allow_missing)
    reap_orphans(options.backend)
    root = rootfs.prepare_root(cache, on_progress=on_progress)
    runner = rootfs.prepare_runner(cache)
    groups = not cgroup.unavailable_reason()
    return CellSource(options, rootfs.root_key(), _embedded_digest(), root=root, runner=runner, groups=groups)


def _prepare_docker(options: CellOptions, cache: Path) -> CellSource:
    # The Docker SDK is an extra, and its import takes as long as making the embedded cell.
    from grader.sandbox import docker_engine, docker_orphans, images

    client = docker_engine.connect()
    try:
        if options.runtime is not None:
            docker_engine.is_gvisor(client, options.runtime)
        docker_orphans.reap(client)
        found = images.find(client, options.image or images.reference())
    finally:
        client.close()
    key = found.root_key or found.id.removeprefix("sha256:")[:16]
    return CellSource(options, key, found.id, image=found.id, starts=cache / "docker-starts")


def digest_of(options: CellOptions) -> str:
    """Return the ``digest`` of the cells that ``prepare`` would have made here; makes nothing.

    Raises SandboxError where there is no daemon, or the image is missing.
    """
    if options.backend != "docker":
        return _embedded_digest()
    from grader.sandbox import docker_engine, images

    client = docker_engine.connect()
    try:
        return images.find(client, options.image or images.reference()).id
    finally:
        client.close()


def _embedded_digest() -> str:
    from grader.sandbox import rootfs

    return f"{rootfs.root_key()}-{rootfs.runner_digest()[:12]}"


def unavailable_reason(options: CellOptions) -> str:
    """Say why cells cannot be made here, with the remedy; "" if nothing is known to be missing.

    A missing image does not count: it can be made (``grader.sandbox.images.build``).
    """
    try:
        if options.backend == "docker":
            from grader.sandbox import docker_engine

            client = docker_engine.connect()
            try:
                if options.runtime is not None:
                    docker_engine.is_gvisor(client, options.runtime)
            finally:
                client.close()
        else:
            from grader.sandbox import preflight

            preflight.require(options.allow_missing)
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
