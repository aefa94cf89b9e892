"""What container cells need of this machine's Docker daemon, and what each of its runtimes offers inside."""

from __future__ import annotations

from typing import Any

from grader.errors import GraderError, SandboxError
from grader.limits import Limits
from grader.sandbox import docker_engine, images
from grader.sandbox.preflight import Mechanism

_MEANING = {
    "mountns": "samples share /tmp, which is emptied and checked after each",
    "landlock": "files are kept from samples by the read-only root and by modes alone",
    "memory_cgroup": "a sample's memory is limited by RLIMIT_AS; the container's limit is a backstop",
}


def report() -> list[Mechanism]:
    """Try what ``--sandbox docker`` needs; nothing of it is required, since other sandboxes do without."""
    try:
        client = docker_engine.connect()
    except SandboxError as error:
        return [_mechanism("docker", str(error), "Needed for --sandbox docker alone.")]
    try:
        info = client.info()
        found = [_daemon(client, info), *_images(client)]
        if all(mechanism.ok for mechanism in found):
            found += [_cell(info, runtime) for runtime in _runtimes(client, info)]
            if not docker_engine.is_gvisor(client, None):
                found.append(_cell(info, None, "uids"))
        return found
    finally:
        client.close()


def _mechanism(name: str, problem: str, remedy: str = "", detail: str = "") -> Mechanism:
    return Mechanism(name, not problem, False, problem or detail, remedy)


def _daemon(client: Any, info: dict[str, Any]) -> Mechanism:
    runtimes = ", ".join(sorted(info.get("Runtimes") or {}))
    detail = (
        f"version {info['ServerVersion']}, API {client.api_version}, storage {info['Driver']}, "
        f"control groups version {info.get('CgroupVersion', '1')} by {info['CgroupDriver']}, runtimes {runtimes}"
    )
    needed = {
        "MemoryLimit": "a memory limit",
        "SwapLimit": "a swap limit",
        "PidsLimit": "a limit of processes",
    }
    lacks = [name for field, name in needed.items() if not info.get(field)]
    seccomp = any("seccomp" in option for option in info.get("SecurityOptions") or [])
    problem = (
        ""
        if seccomp and not lacks
        else f"it lacks {', '.join([*lacks, *([] if seccomp else ['seccomp'])])}; {detail}"
    )
    remedy = (
        "The memory and pids controllers, with swap accounting (boot parameter swapaccount=1), and seccomp."
    )
    return _mechanism("docker", problem, remedy, detail)


def _images(client: Any) -> list[Mechanism]:
    try:
        image = images.find(client, images.reference())
    except SandboxError as error:
        return [_mechanism("docker_image", str(error), "grader images build --offline")]
    return [_mechanism("docker_image", "", detail=f"{image.reference} ({image.id})")]


def _runtimes(client: Any, info: dict[str, Any]) -> list[str | None]:
    """The daemon's default runtime, and those that are gVisor."""
    default = info.get("DefaultRuntime")
    others = [name for name in sorted(info.get("Runtimes") or {}) if name != default]
    return [None, *(name for name in others if docker_engine.is_gvisor(client, name))]


def _cell(info: dict[str, Any], runtime: str | None, isolation: str = "namespaces") -> Mechanism:
    from grader.sandbox.docker import DockerCell

    name = f"docker_{runtime or info.get('DefaultRuntime', 'runc')}"
    name += "_uids" if isolation == "uids" else ""
    try:
        cell = DockerCell(Limits(), runtime=runtime, isolation=isolation)
    except GraderError as error:
        return _mechanism(name, str(error), "The text says what mends it; docs/docker.md has more.")
    try:
        layers = cell.layers
    finally:
        cell.close()
    detail = ", ".join(layers)
    parted = ("landlock",) if isolation == "uids" else ("mountns", "landlock")
    lacks = [part for part in parted if not any(layer.startswith(part) for layer in layers)]
    lacks += ["memory_cgroup"] if "memory_rlimit" in layers else []
    if isolation == "uids":
        detail += "; weaker, for hosts that forbid user namespaces, and only where --isolation uids names it"
    if lacks:
        detail += "; lacks for each sample: " + "; ".join(f"{part} ({_MEANING[part]})" for part in lacks)
    return _mechanism(name, "", detail=detail)
