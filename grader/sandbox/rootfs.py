"""The root folder of the embedded cell: the interpreter, its standard library, and a few packages; nothing else.

A copy, made once in the cache folder, so that a cell needs one mount, sees no path of the host, and does not change
when the host's interpreter is upgraded under it. Its name is a hash of everything that decides its content, and is
part of what a verdict rests on.
"""

from __future__ import annotations

import compileall
import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from grader.errors import SandboxError

PACKAGES = ("numpy>=2.4,<2.5",)
_FORMAT = "8"
_LEFT_OUT = ("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip",
             "lib2to3", "pydoc_data", "__pycache__", "config-*", "sitecustomize.py", "usercustomize.py",
             "EXTERNALLY-MANAGED", "*.a", "_tkinter*", "_test*", "_ctypes_test*", "xxlimited*",
             "venv", "macholib", "README*", "*.rst", "*_template")  # fmt: skip
# What a package brings for its own tests, and for compilers of other packages.
_LEFT_OUT_OF_PACKAGES = ("tests", "conftest.py", "*.pyi", "*.pxd", "*.pyx", "*.h", "*.c", "*.a", "*.ini")

_RUNNER = Path(__file__).parent / "runner"
_DEVICES = ("null", "zero", "full", "random", "urandom")

# Imports the extension modules below the given folders and prints the files that the loader has mapped.
_LIST_LIBRARIES = """
import importlib, os, sys
dynamic = [p for p in sys.path if p.endswith("lib-dynload")]
for base in dynamic + sys.argv[1:]:
    sys.path.append(base)
    for folder, _, files in os.walk(base):
        package = os.path.relpath(folder, base).replace(os.sep, ".").lstrip(".")
        for name in files:
            if name.endswith(".so") and not name.startswith(("_tkinter", "_test", "_ctypes_test", "xxlimited")):
                try:
                    importlib.import_module(f"{package}.{name.split('.')[0]}".lstrip("."))
                except BaseException:
                    pass
print("\\n".join(sorted({l.split()[-1] for l in open("/proc/self/maps") if ".so" in l})))
"""
_NO_SPACE = os.strerror(errno.ENOSPC)
_STANDARD_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")


def root_key(packages: tuple[str, ...] = PACKAGES) -> str:
    """Return the name of the root that this interpreter and these packages make."""
    binary = _interpreter().stat()
    parts = (_FORMAT, sys.version, sysconfig.get_paths()["stdlib"], str(binary.st_size), *packages)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def runner_digest() -> str:
    """Return a hash of the runner's source, as hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted(_RUNNER.glob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def prepare_root(
    cache: Path, packages: tuple[str, ...] = PACKAGES, on_progress: Callable[[], None] = lambda: None
) -> Path:
    """Return the root folder, making it if the cache has none; ``on_progress`` is called if it must be made.

    Raises SandboxError, e.g. where pip cannot install the packages.
    """
    final = cache / "roots" / root_key(packages)

    def fill(staging: Path) -> None:
        on_progress()
        _fill(staging, packages)

    return _made_once(cache, final, fill)


def prepare_runner(cache: Path) -> Path:
    """Return the runner's folder: the package's own, or where cells could not read that, a copy in the cache.

    Root's cells run as nobody: a package that root has installed with umask 077 is closed to them. Raises SandboxError.
    """
    # As for an installed package, where nothing is left to do. A cell could not, and would compile at every start.
    _compile_runner(_RUNNER)
    if os.geteuid() != 0 or _is_readable(_RUNNER):
        return _RUNNER

    def fill(staging: Path) -> None:
        copy = staging / _RUNNER.name
        shutil.copytree(_RUNNER, copy, ignore=shutil.ignore_patterns("__pycache__"))
        _compile_runner(copy)
        _make_readable(staging)

    return _made_once(cache, cache / "runners" / runner_digest()[:16], fill) / _RUNNER.name


def _compile_runner(folder: Path) -> None:
    compileall.compile_dir(folder, maxlevels=0, quiet=2, stripdir=str(folder.parent), prependdir="/")


def _is_readable(folder: Path) -> bool:
    """Whether others may read a folder and everything in it."""
    return all(
        file.stat().st_mode & wanted == wanted
        for file in (folder, *folder.rglob("*"))
        for wanted in (0o005 if file.is_dir() else 0o004,)
    )


def _made_once(cache: Path, final: Path, fill: Callable[[Path], None]) -> Path:
    """Return a folder of the cache that ``fill`` makes if it is not there; others see it whole or not at all."""
    if final.is_dir():
        return final
    try:
        return _made_under_lock(final, fill)
    except OSError as error:
        reason = _reason(error)
        room = "make room there, or " if reason == _NO_SPACE else ""
        raise SandboxError(
            f"the cache folder {cache} cannot be written to ({reason}); {room}set GRADER_CACHE_DIR to one that can be"
        ) from error


def _reason(error: OSError) -> str:
    """The first of the reasons that shutil collects by the hundred, or the only one."""
    first = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
    return _NO_SPACE if _NO_SPACE in str(first) else str(first)


def _made_under_lock(final: Path, fill: Callable[[Path], None]) -> Path:
    final.parent.mkdir(parents=True, exist_ok=True)
    with _locked(final.parent / "lock"):
        if final.is_dir():
            return final
        staging = Path(tempfile.mkdtemp(prefix=".making-", dir=final.parent))
        try:
            fill(staging)
            staging.chmod(0o755)
            staging.rename(final)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    return final


def _fill(root: Path, packages: tuple[str, ...]) -> None:
    for folder in ("dev", "tmp", "runner", "python/bin", "python/site-packages"):
        (root / folder).mkdir(parents=True)
    for name in _DEVICES:
        (root / "dev" / name).touch()
    binary = _interpreter()
    shutil.copy2(binary, root / "python/bin/python3")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = root / "python/lib" / version
    shutil.copytree(
        Path(sysconfig.get_paths()["stdlib"]), library, ignore=shutil.ignore_patterns(*_LEFT_OUT),
        ignore_dangling_symlinks=True,
    )  # fmt: skip
    site_packages = root / "python/site-packages"
    if packages:
        _install(packages, site_packages)
    for file in _shared_libraries(binary, site_packages):
        standard = str(file).startswith(_STANDARD_FOLDERS)
        target = root / str(file).lstrip("/") if standard else root / "python/lib" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    quiet = {"quiet": 2, "force": True, "workers": 1}
    compileall.compile_dir(library, stripdir=str(root), **quiet)  # type: ignore[arg-type]
    compileall.compile_dir(site_packages, stripdir=str(root), **quiet)  # type: ignore[arg-type]
    _make_readable(root)


def _interpreter() -> Path:
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


def _shared_libraries(binary: Path, site_packages: Path) -> Iterator[Path]:
    """The host's shared objects that the interpreter and all extension modules load, and the loader itself."""
    command = [str(binary), "-I", "-S", "-c", _LIST_LIBRARIES, str(site_packages)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise SandboxError(f"{binary} cannot list its shared libraries: {run.stderr[-300:]}")
    for name in run.stdout.split("\n"):
        file = Path(name)
        if file.is_absolute() and not file.is_relative_to(site_packages) and "lib-dynload" not in file.parts:
            yield file
            yield from _links_to(file)
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    if loader.exists():
        yield loader


def _links_to(file: Path) -> Iterator[Path]:
    """Other names of a library beside it: programs ask for libz.so.1, the file is libz.so.1.2.13."""
    stem = file.name.split(".so")[0]
    for other in file.parent.glob(f"{stem}.so*"):
        if other != file and other.is_symlink() and other.resolve() == file.resolve():
            yield other


def _install(packages: tuple[str, ...], target: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
               "--no-compile", "--only-binary", ":all:", "--target", str(target), *packages]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0 and _NO_SPACE in run.stderr:
        raise OSError(errno.ENOSPC, _NO_SPACE)
    if run.returncode != 0:
        raise SandboxError(
            f"pip could not install {' '.join(packages)} for the sandbox: {run.stderr.strip()[-500:]}\n"
            "Check that this Python has pip (python -m ensurepip) and that a package index can be reached."
        )
    for name in ("bin", "share"):
        shutil.rmtree(target / name, ignore_errors=True)
    for found in [found for pattern in _LEFT_OUT_OF_PACKAGES for found in target.rglob(pattern)]:
        shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)


def _make_readable(root: Path) -> None:
    """The cell's user is nobody: every file must be readable by all, whatever this user's umask is."""
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)
        for name in files:
            file = Path(folder) / name
            if not file.is_symlink():
                file.chmod(0o755 if os.access(file, os.X_OK) else 0o644)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


if (
    __name__ == "__main__"
):  # FOLDER [PACKAGE ...]: for the images, which are made where nothing else of ours is
    _fill(Path(sys.argv[1]), tuple(sys.argv[2:]))
