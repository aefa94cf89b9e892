"""What is in an image that is made from Debian's packages: Debian's interpreter, by the recipe of every other root.

mmdebstrap unpacks Debian's packages into a folder that it removes again. In there runs ``grader.sandbox.rootfs``, as in
the Dockerfiles, and only what that makes is taken out: so no package manager, shell or tool has to be left behind.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from grader.errors import SandboxError
from grader.sandbox import rootfs

# The first for /proc, in which the recipe reads what libraries are loaded.
_DEBIAN_PACKAGES = ("base-files", "python3", "python3-pip")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_NEEDED_BYTES = 800 << 20  # with numpy: 380 MB of Debian and image, 110 MB of archive, and room
_COMMAND = "grader images build --offline --from debian"
# How the host reaches its mirrors; the rest of its apt's configuration is its own business.
_APT_OPTIONS = ("Acquire::http", "Acquire::Retries", "Acquire::ForceIPv", "Acquire::Check-")

# Arguments: the folder with Debian's packages, a working folder outside, the grader's interpreter, packages. Those come
# from the index that the host's pip knows, in the version for Debian's Python: inside, no index need be known.
_MAKE_ROOT = """
set -eu
root=$1 work=$2 python=$3
shift 3
inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root PYTHONPATH=/recipe PIP_NO_INDEX=1 \
        PIP_FIND_LINKS=/recipe/wheels PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore chroot "$root" python3 "$@"
}
echo recipe >"$work/step"
cp -R "$work/recipe" "$root/recipe"
version=$(inside -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ $# -gt 0 ]; then
    echo download >"$work/step"
    TMPDIR=$work "$python" -P -m pip download --quiet --disable-pip-version-check --no-input --only-binary :all: \
        --python-version "$version" --dest "$root/recipe/wheels" "$@"
    echo recipe >"$work/step"
fi
inside -m grader.sandbox.rootfs /image "$@"
cp -R "$work/recipe/runner/." "$root/image/runner"
chmod -R a+rX,go-w "$root/image/runner"
inside -m compileall -q --invalidation-mode unchecked-hash -s /image -p / /image/runner
echo pack >"$work/step"
tar -C "$root/image" --sort=name --owner=0 --group=0 --numeric-owner -cf "$work/root.tar" .
"""

_DOING = {
    "bootstrap": "mmdebstrap cannot unpack Debian's packages",
    "download": "pip cannot download the packages for Debian's Python",
    "recipe": "the recipe fails in the folder with Debian's packages",
    "pack": "the root cannot be packed",
}
# What mmdebstrap, apt, or the step says (a part of it, in lower case), what it means, and what mends it.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    ("no space left on device", "the disk of {temporary} is full",
     "make room there, or name another folder: TMPDIR=..."),
    ("no_pubkey", "a mirror is not signed by Debian", "as root: apt-get install --reinstall debian-archive-keyring"),
    ("is not signed", "a mirror is not signed by Debian", "as root: apt-get install debian-archive-keyring"),
    ("failed to fetch", "a mirror of this machine's apt sources cannot be used",
     "see that `apt-get update` works, as root, and then try again"),
    ("unable to locate package", "the mirror lacks packages", "see what `apt-get update` says, as root"),
    ("operation not permitted", "root may not mount or make devices here",
     "run it on the machine itself, or in a container that has CAP_SYS_ADMIN and CAP_MKNOD (docker run --privileged)"),
    ("no module named pip", "this Python has no pip", "python -m ensurepip"),
    ("no matching distribution", "the index has none that fits",
     "name an index that has it, e.g. PIP_INDEX_URL=..., so that `pip download --only-binary :all: "
     "--python-version ...` finds it for Debian's Python"),
)  # fmt: skip


def recipe_key(packages: tuple[str, ...]) -> str:
    """Return the name of the recipe: Debian's release and a hash of what is done. Raises SandboxError elsewhere.

    What comes of it depends on Debian's mirror and the package index of the day as well: ``content_key``.
    """
    sources = [Path(rootfs.__file__).read_bytes(), _MAKE_ROOT.encode(), *(name.encode() for name in packages)]
    digest = hashlib.sha256("\0".join(_DEBIAN_PACKAGES).encode())
    for source in sources:
        digest.update(f"{len(source)}\0".encode() + source)
    return f"debian-{_codename()}-{digest.hexdigest()[:12]}"


def content_key(packed: BinaryIO) -> str:
    """Return a hash of what programs find in a packed root, of 16 hexadecimal digits.

    Bytecode is left out, since the time when its source was unpacked is in it; so is the runner, which programs do
    not find: what they answer may be kept when it changes.
    """
    digest = hashlib.sha256()
    with tarfile.open(fileobj=packed) as archive:
        for member in archive:
            name = os.path.normpath(member.name)
            if member.isdir() or name.endswith(".pyc") or name.startswith("runner/"):
                continue
            digest.update(f"{name}\0{member.linkname}\0{member.size}\0".encode())
            content = archive.extractfile(member) if member.isfile() else None
            while content and (piece := content.read(1 << 20)):
                digest.update(piece)
    return digest.hexdigest()[:16]


@contextmanager
def packed_root(
    packages: tuple[str, ...], runner: Path, sources: Sequence[str] | None = None
) -> Iterator[BinaryIO]:
    """Make a root with the runner in it, and lend it as an open tar archive of about 110 MB.

    ``sources`` are lines as in apt's ``sources.list``; by default those of this machine that are Debian's. Takes half
    a minute and 800 MB of ``TMPDIR``, which are free afterwards. Raises SandboxError with the cause and the remedy.
    """
    require()
    lines = _debian_sources() if sources is None else sources
    with tempfile.TemporaryDirectory(prefix="grader-debian-") as folder:
        work = Path(folder)
        _lay_out(work, runner)
        _bootstrap(work, packages, lines)
        with (work / "root.tar").open("rb") as packed:
            yield packed


def require() -> None:
    """Raise SandboxError, with the remedy, where something is missing for making a root from Debian's packages."""
    _codename()
    if os.geteuid() != 0:
        raise SandboxError(
            f"only root can make a root from Debian's packages (chroot, mounts): sudo {_COMMAND}"
        )
    if shutil.which("mmdebstrap") is None:
        raise SandboxError("mmdebstrap is missing: apt-get install mmdebstrap")
    if not _KEYRING.exists():
        raise SandboxError(f"{_KEYRING} is missing: apt-get install debian-archive-keyring")
    temporary = tempfile.gettempdir()
    free = shutil.disk_usage(temporary).free
    if free < _NEEDED_BYTES:
        raise SandboxError(
            f"the disk of {temporary} is full: {free >> 20} MB are free there, and Debian's packages need "
            f"{_NEEDED_BYTES >> 20}: make room, or name another folder: TMPDIR=... {_COMMAND}"
        )


def _codename() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    if release.get("ID") != "debian" or "VERSION_CODENAME" not in release:
        raise SandboxError(
            f"this machine is {release.get('PRETTY_NAME', 'no Debian')}: an image from Debian's packages is made with "
            "the apt sources of a Debian release; make it on Debian, or from this machine's interpreter: "
            "grader images build --offline"
        )
    return release["VERSION_CODENAME"]


def _debian_sources() -> list[str]:
    """This machine's apt sources, in one line each, that are of its own Debian release and signed as Debian's."""
    codename = _codename()
    wanted = {codename, f"{codename}-updates", f"{codename}-security"}
    fields = ("ORIGIN", "CODENAME", "COMPONENT", "REPO_URI", "RELEASE")
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "\t".join(f"$({field})" for field in fields), "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = [line.split("\t") for line in listed.stdout.splitlines()]
    found = {
        f"deb [signed-by={_KEYRING}] {uri} {release} {component}"
        for origin, name, component, uri, release in rows
        if origin == "Debian" and name in wanted and component == "main"
    }
    if not found:
        raise SandboxError(
            f"apt knows no mirror of Debian {codename} {listed.stderr.strip()[-300:]}: /etc/apt/sources.list or a "
            "file in /etc/apt/sources.list.d must name one, and its lists must be there: as root, apt-get update"
        )
    return sorted(found)


def _lay_out(work: Path, runner: Path) -> None:
    """Put the recipe and the runner in a folder, with as much of the package ``grader`` as the recipe imports."""
    package = work / "recipe" / "grader"
    (package / "sandbox").mkdir(parents=True)
    for folder in (package, package / "sandbox"):
        (folder / "__init__.py").touch()
    recipe = Path(rootfs.__file__)
    shutil.copyfile(recipe, package / "sandbox" / recipe.name)
    shutil.copyfile(recipe.parents[1] / "errors.py", package / "errors.py")
    shutil.copytree(runner, work / "recipe" / "runner", ignore=shutil.ignore_patterns("__pycache__"))
    (work / "make-root").write_text(_MAKE_ROOT)
    (work / "step").write_text("bootstrap")


def _bootstrap(work: Path, packages: Sequence[str], sources: Sequence[str]) -> None:
    script = shlex.join([str(work / "make-root"), "CHROOT", str(work), sys.executable, *packages])
    # Packages are unpacked and not set up: no script of theirs runs, and it takes a seventh of the time.
    command = [
        "mmdebstrap", "--mode=root", "--variant=extract", "--format=null", f"--include={','.join(_DEBIAN_PACKAGES)}",
        *(f"--aptopt={option}" for option in _apt_options()),
        "--extract-hook=sh " + script.replace("CHROOT", '"$1"', 1), _codename(), "/dev/null", *sources,
    ]  # fmt: skip
    environment = os.environ | {"TMPDIR": tempfile.gettempdir(), "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", env=environment,
    )  # fmt: skip
    with process:
        try:
            said, _ = process.communicate()
        except BaseException:
            process.terminate()  # not kill: it has mounts and a folder to remove
            process.communicate()
            raise
    if process.returncode != 0:
        raise SandboxError(_explain((work / "step").read_text().strip(), said))


def _apt_options() -> list[str]:
    dumped = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False)
    return [line for line in dumped.stdout.splitlines() if line.startswith(_APT_OPTIONS)]


def _explain(step: str, said: str) -> str:
    chatter = ("I: ", "Ign:", "Get:", "Hit:", "Reading ", "E: mmdebstrap failed", "E: setup failed")
    told = "\n".join(line for line in said.splitlines() if not line.startswith(chatter)).strip()[-600:]
    for part, cause, remedy in _CAUSES:
        if part in told.lower():
            meaning = cause.format(temporary=tempfile.gettempdir())
            return f"{_DOING[step]}: {meaning}: {told}\nTo mend it: {remedy}"
    return f"{_DOING[step]}: {told}"
