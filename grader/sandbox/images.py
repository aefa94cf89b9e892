"""The images of container cells, made without a registry from the same recipe as the embedded cell's root.

An image is a root (``grader.sandbox.rootfs``: interpreter, standard library, packages, bytecode) and the runner. Its
tag is a hash of both, so a grader asks for exactly the image that it was tested with and can never meet the runner of
another version. Where the interpreter comes from the official slim image, it is of this machine's exact version, which
a label holds it to. An image from Debian's packages has another interpreter and so another tag; it is used where it
is named, and nowhere else.
"""

from __future__ import annotations

import compileall
import fcntl
import io
import json
import os
import platform
import py_compile
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from grader import settings
from grader.errors import InputError, SandboxError
from grader.sandbox import debian_root, docker_engine, rootfs
from grader.sandbox.runner import launch

# Of the 2018 shared samples, 3 import numpy and none another package that is not in the standard library
# (docs/docker.md): so numpy it is.
PACKAGES: dict[str, tuple[str, ...]] = {"python": (), "python-scientific": rootfs.PACKAGES}
DEFAULT = "python-scientific"
# What the interpreter of an image that is made without a registry comes from.
SOURCES = ("machine", "debian")
LABEL, ROOT_LABEL, RUNNER_LABEL = "grader.sandbox", "grader.root", "grader.runner"
PYTHON_LABEL = "grader.python"  # the interpreter's version, where it is not this machine's own
_RUNNER = Path(__file__).parent / "runner"
_COMMAND = ["/python/bin/python3", "-P", "-s", "-S", "-B", "-X", "utf8", "/runner"]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is there. ``id`` is its digest: it decides what a program finds, so it belongs in cache keys.

    ``root_key`` names the interpreter and the packages in it, "" if that is not known.
    """

    reference: str
    id: str
    root_key: str


def reference(name: str = DEFAULT, source: str = "machine") -> str:
    """Return the name and tag of the image that this grader needs, or of that which ``source`` makes.

    Raises InputError for an unknown name or source, SandboxError for "debian" where this is no Debian.
    """
    packages = packages_of(name)
    if source not in SOURCES:
        raise InputError(f"images are not made from {source!r}; give one of {', '.join(SOURCES)}")
    root = rootfs.root_key(packages) if source == "machine" else debian_root.recipe_key(packages)
    return f"grader/{name}:{root}-{rootfs.runner_digest()[:12]}"


def packages_of(name: str) -> tuple[str, ...]:
    """Return what an image has installed. Raises InputError where there is no such image."""
    try:
        return PACKAGES[name]
    except KeyError:
        raise InputError(f"there is no image {name!r}; give one of {', '.join(PACKAGES)}") from None


def find(client: Any, wanted: str) -> Image:
    """Return a local image by name and tag, or by id. Raises SandboxError where it is missing."""
    import docker  # type: ignore[import-untyped,import-not-found,unused-ignore]

    try:
        with docker_engine.explained(f"cannot look for the image {wanted}"):
            found = client.inspect_image(wanted)
            labels = found["Config"].get("Labels") or {}
            image = Image(wanted, found["Id"], labels.get(ROOT_LABEL, ""))
    except SandboxError as error:
        if not isinstance(error.__cause__, docker.errors.NotFound):
            raise
    else:
        if labels.get(RUNNER_LABEL) != rootfs.runner_digest():
            raise SandboxError(
                f"the image {wanted} has the runner of another version of the grader, or is none of its images: make "
                "one that fits with `grader images build --offline`"
            )
        _check_interpreter(image, labels.get(PYTHON_LABEL, ""))
        return image
    name, _, tag = wanted.removeprefix("grader/").partition(":")
    if name not in PACKAGES or not wanted.startswith("grader/"):
        raise SandboxError(
            f"there is no image {wanted} here: leave --image out, or give a name that `grader images build` has printed"
        )
    command = f"grader images build {name} --offline"
    command += " --from debian" if tag.startswith("debian-") else ""
    raise SandboxError(
        f"the image {wanted} is missing: make it with `{command}`. (Its tag is a hash of "
        "the runner, the interpreter and the packages: an image of another version of the grader does not do.)"
    )


def _check_interpreter(image: Image, version: str) -> None:
    """Raise SandboxError where an image has the tag of this machine's interpreter, and one of another version in it."""
    ours = platform.python_version()
    if not image.root_key and version != ours and image.reference in map(reference, PACKAGES):
        raise SandboxError(
            f"the image {image.reference} has Python {version or 'of a version that it does not tell'} in it, and not "
            f"this machine's {ours}, so that verdicts could depend on it: docker image rm {image.reference}, and then "
            "grader images build --offline"
        )


def build(
    name: str = DEFAULT,
    *,
    offline: bool = True,
    source: str = "machine",
    on_progress: Callable[[str], None] = lambda _step: None,
) -> str:
    """Make an image, unless this very one is there, and return its id (``sha256:...``).

    ``offline`` makes it without a registry, with the interpreter of this machine or, where the ``source`` is "debian",
    of Debian's packages (``grader.sandbox.debian_root``: needs root and mmdebstrap). Otherwise Docker builds
    ``sandbox_images/NAME/Dockerfile``, in a checkout of the repository, on the official slim image of the same version.
    Raises InputError, SandboxError.
    """
    wanted = reference(name, source)
    if source != "machine" and not offline:
        raise InputError(f"an image from {source} is made without a registry: give --offline with it")
    client = docker_engine.connect()
    try:
        with _alone():
            try:
                return find(client, wanted).id
            except SandboxError:
                on_progress(f"making {wanted}")
            if not offline:
                _build_from_dockerfile(client, name, wanted)
            elif source == "debian":
                _build_from_debian(client, packages_of(name), wanted, on_progress)
            else:
                _build_from_machine(client, packages_of(name), wanted, on_progress)
            return find(client, wanted).id
    finally:
        client.close()


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for others of this user that make an image: it may be the same one."""
    cache = settings.cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_from_machine(
    client: Any, packages: tuple[str, ...], wanted: str, on_progress: Callable[[str], None]
) -> None:
    base = f"grader/root:{rootfs.root_key(packages)}"
    if not client.images(base):
        root = rootfs.prepare_root(
            settings.cache_dir(), packages, on_progress=lambda: on_progress("making the root folder")
        )
        on_progress(f"importing {base}")
        with tempfile.TemporaryFile(prefix="grader-image-") as packed:
            with (
                docker_engine.explained(f"cannot import {base}"),
                tarfile.open(fileobj=packed, mode="w") as archive,
            ):
                archive.add(root.resolve(), ".", filter=_owned_by_root)
            _import(client, packed, base, [])
    _add_runner(client, base, wanted)


def _build_from_debian(
    client: Any, packages: tuple[str, ...], wanted: str, on_progress: Callable[[str], None]
) -> None:
    on_progress("unpacking Debian's packages with mmdebstrap, and making the root in there")
    with debian_root.packed_root(packages, _RUNNER) as packed:
        # Not the recipe's key: expected answers rest on what has come of it.
        labels = _labels(debian_root.content_key(packed))
        on_progress("importing it")
        settings_of_labels = [f'LABEL {name}="{value}"' for name, value in labels.items()]
        _import(client, packed, wanted, [*_configuration(), *settings_of_labels])


def _import(client: Any, packed: IO[bytes], wanted: str, changes: list[str]) -> None:
    """Make an image of a tar archive, with lines as of a Dockerfile for how it is started."""
    repository, _, tag = wanted.partition(":")
    packed.seek(0)
    # A generator: of a file the SDK would send both a length and chunks, which the daemon refuses.
    pieces = iter(lambda: packed.read(1 << 20), b"")
    with docker_engine.explained(f"cannot import {wanted}"):
        answer = client.import_image_from_stream(pieces, repository=repository, tag=tag, changes=changes)
    _check(answer, f"cannot import {wanted}")


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _check(answer: str, doing: str) -> None:
    """The daemon reports the errors of a stream in the stream."""
    for line in answer.splitlines():
        message = json.loads(line) if line.strip() else {}
        if "error" in message:
            raise SandboxError(docker_engine.explain(doing, str(message["error"])))


def _configuration() -> list[str]:
    """How a container is started, in lines of a Dockerfile."""
    # PATH and the other variables of the interpreter are set per container: an image can be started with others.
    # As in the embedded cell: a program must not be able to tell the two apart.
    environment = (f'ENV {name}="{value}"' for name, value in launch.ENVIRONMENT.items())
    return ["USER 65534:65534", "WORKDIR /tmp", *environment, f"ENTRYPOINT {json.dumps(_COMMAND)}"]


def _labels(root_key: str) -> dict[str, str]:
    return {LABEL: "image", RUNNER_LABEL: rootfs.runner_digest(), ROOT_LABEL: root_key}


def _add_runner(client: Any, base: str, wanted: str) -> None:
    lines = [f"FROM {base}", "COPY runner /runner", *_configuration()]
    with _runner_alone() as runner:
        # Times change on the way into an image, so the bytecode must not depend on them.
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(runner, ddir="/runner", quiet=2, invalidation_mode=unchecked)
        with _context({"Dockerfile": "\n".join(lines).encode()}, {"runner": runner}) as context:
            _run_build(client, context, wanted, base.rpartition(":")[2])


def _build_from_dockerfile(client: Any, name: str, wanted: str) -> None:
    folder = Path(__file__).parents[2] / "sandbox_images" / name
    if not (folder / "Dockerfile").is_file():
        raise SandboxError(
            f"{folder / 'Dockerfile'} is missing: building from a Dockerfile needs a checkout of the repository; "
            f"`grader images build {name} --offline` does not"
        )
    with _runner_alone() as runner:
        sources = {
            "runner": runner,
            "rootfs.py": Path(rootfs.__file__),
            "errors.py": _RUNNER.parents[1] / "errors.py",
        }
        with _context({"Dockerfile": (folder / "Dockerfile").read_bytes()}, sources) as context:
            _run_build(client, context, wanted, root_key="", python=platform.python_version())


@contextmanager
def _runner_alone() -> Iterator[Path]:
    """Lend a copy of the runner without the bytecode of this machine's interpreter."""
    with tempfile.TemporaryDirectory(prefix="grader-image-") as staging:
        runner = Path(staging) / "runner"
        shutil.copytree(_RUNNER, runner, ignore=shutil.ignore_patterns("__pycache__"))
        yield runner


@contextmanager
def _context(files: dict[str, bytes], sources: dict[str, Path]) -> Iterator[Any]:
    """A build context: a tar archive with fixed times, so that the same content makes the same layer."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = 0
        member.mode = 0o755 if member.isdir() else 0o644
        return _owned_by_root(member)

    with tempfile.TemporaryFile(prefix="grader-image-") as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            for name, source in sources.items():
                archive.add(source, name, filter=plain)
        packed.seek(0)
        yield packed


def _run_build(client: Any, context: Any, wanted: str, root_key: str, python: str = "") -> None:
    """Build from a context; ``python`` is the version that the Dockerfile is to take, where it takes any."""
    doing = f"cannot build {wanted}"
    with docker_engine.explained(doing):
        labels = _labels(root_key) | ({PYTHON_LABEL: python} if python else {})
        steps = client.build(
            fileobj=context, custom_context=True, tag=wanted, rm=True, forcerm=True,
            decode=True, labels=labels, buildargs={"PYTHON": python} if python else None,
        )  # fmt: skip
        for step in steps:
            if "error" in step:
                raise SandboxError(docker_engine.explain(doing, str(step["error"])))


def audit(client: Any, image: str) -> list[str]:
    """Return the paths of all files of an image (never started), without a leading slash, sorted."""
    with docker_engine.explained(f"cannot look into {image}"):
        container = client.create_container(image, command=["none"], labels={LABEL: "audit"})["Id"]
        try:
            with tempfile.TemporaryFile() as packed:
                for chunk in client.export(container):
                    packed.write(chunk)
                packed.seek(0)
                with tarfile.open(fileobj=packed) as archive:
                    return sorted(os.path.normpath(member.name) for member in archive if not member.isdir())
        finally:
            client.remove_container(container, force=True, v=True)
