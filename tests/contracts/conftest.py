"""Other projects' own code in environments of its own, and the real service that it is run against."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

import grader

PROGRAMS = Path(__file__).parent / "programs"
REPOSITORY = Path(grader.__file__).parent.parent
_DEADLINE_S = 300.0
_INSTALLING_S = 900.0

# Exact versions, and of the packages themselves nothing but their code: what they would pull in besides is many GB.
CLIENT = ("httpx==0.28.1", "pydantic==2.14.3")
VERL = (
    ("torch==2.13.0",),
    (
        "--no-deps", "verl==0.9.1", "openrlhf==0.11.2", "skyrl-gym==0.4.0", "sandbox-fusion==0.3.7", "areal==1.0.4",
    ),
    (
        "tensordict==0.15.3", "numpy==2.4.6", "omegaconf==2.4.0", "psutil==7.2.2", "ray==2.60.0", "tenacity==9.2.1",
        "transformers==5.23.0", "aiohttp==3.14.5", "requests==2.34.2", "codetiming==1.4.0", "orjson==3.13.0",
        "pandas==3.1.1", "colorlog==6.12.0", *CLIENT,
    ),
)  # fmt: skip
# On top of verl's, where torch and transformers are.
TRL = (
    (
        "--no-compile", "--no-deps", "trl==1.16.0", "accelerate==1.15.0", "datasets==5.2.0", "dill==0.4.1",
        "multiprocess==0.70.19", "pandas==3.1.1", "pyarrow==26.0.1", "python-dateutil==4.0.0", "xxhash==4.1.0",
    ),
)  # fmt: skip
TINKER = (("--no-deps", "tinker-cookbook==0.6.1", "chz==0.4.0"),)
VERIFIERS = (("verifiers==0.4.0", "httpx==0.28.1"),)
# The last version with Rubric; it needs nothing that the newer one does not.
OLD_VERIFIERS = (("--no-deps", "verifiers==0.1.14"),)


@dataclass(frozen=True)
class Environment:
    """A virtual environment; ``layers`` are folders of packages that come before its own."""

    python: Path
    layers: tuple[Path, ...] = ()

    def run(self, program: str, **settings: str) -> Any:
        """Run one of the programs; returns what its last line of output says, as JSON."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("GRADER_", "PYTHON", "RAY_", "COV_"))
        }
        path = os.pathsep.join(map(str, (*self.layers, REPOSITORY)))
        environment |= {"PYTHONPATH": path, "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "1", **settings}
        ended = subprocess.run(
            [self.python, PROGRAMS / program], env=environment, capture_output=True, text=True,
            timeout=_DEADLINE_S, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, f"{program}:\n{ended.stdout[-3000:]}\n{ended.stderr[-6000:]}"
        return json.loads(ended.stdout.rstrip().rpartition("\n")[2])


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grader-tests" / "contracts"


def _made(name: str, steps: Sequence[Sequence[str]], into: Path | None = None) -> Path:
    """Return a folder with packages, made once on this machine, whoever is first.

    Without ``into`` it is a virtual environment; with it, a folder of packages for that environment's interpreter.
    """
    described = json.dumps([sys.version, steps])
    folder = _cache() / f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, steps, into)
            (folder / "complete").touch()
    return folder


def _make(folder: Path, steps: Sequence[Sequence[str]], into: Path | None) -> None:
    python, target = into, ["--target", str(folder)]
    if python is None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        python, target = folder / "bin" / "python", []
    for step in steps:
        # What is imported is compiled then: a few modules of thousands.
        options = ["--quiet", "--disable-pip-version-check", "--no-compile"]
        ended = subprocess.run(
            [python, "-m", "pip", "install", *options, *target, *step],
            capture_output=True, text=True, timeout=_INSTALLING_S, check=False,
        )  # fmt: skip
        if ended.returncode != 0:
            _unavailable(f"pip could not install {' '.join(step)}: {ended.stderr[-1000:]}")


@pytest.fixture(scope="session")
def verl_environment() -> Environment:
    """verl, OpenRLHF, SkyRL-gym, AReaL and SandboxFusion's client, with torch."""
    return Environment(_made("verl", VERL) / "bin" / "python")


@pytest.fixture(scope="session")
def trl_environment(verl_environment: Environment) -> Environment:
    """TRL, with verl's torch."""
    # dill, with which datasets makes fingerprints, takes a module for an installed one by these words in its path.
    layer = _made("trl-site-packages", TRL, verl_environment.python)
    return Environment(verl_environment.python, (layer,))


@pytest.fixture(scope="session")
def tinker_environment(verl_environment: Environment) -> Environment:
    """tinker-cookbook, with verl's aiohttp."""
    return Environment(verl_environment.python, (_made("tinker", TINKER, verl_environment.python),))


@pytest.fixture(scope="session")
def verifiers_environment() -> Environment:
    """verifiers with ``verifiers.v1``."""
    return Environment(_made("verifiers", VERIFIERS) / "bin" / "python")


@pytest.fixture(scope="session")
def old_verifiers_environment(verifiers_environment: Environment) -> Environment:
    """verifiers with Rubric."""
    layer = _made("verifiers-old", OLD_VERIFIERS, verifiers_environment.python)
    return Environment(verifiers_environment.python, (layer,))


@dataclass
class Service:
    """``grader serve`` in a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def wait(self) -> None:
        end = time.monotonic() + _DEADLINE_S
        while not self.url:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, "the service does not serve"
            for line in self.log.read_text().splitlines():
                found = json.loads(line) if line.startswith("{") else {}
                if found.get("event") == "serving":
                    self.url = found["url"]
            time.sleep(0.02)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]


def _serving(folder: Path, program: Sequence[str | Path]) -> Iterator[Service]:
    folder.mkdir(exist_ok=True)
    log = folder / "service.log"
    environment = dict(os.environ) | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(folder)}
    apis = [f"--compat={name}" for name in ("sandbox-fusion", "openrlhf", "slime", "nemo-gym")]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *program, "--port", "0", *apis], env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=out,
        )  # fmt: skip
    service = Service(process, log)
    try:
        service.wait()
        yield service
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def service(sandbox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with two workers and real cells."""
    program = ["-P", "-c", "from grader.cli import main; main()", "serve", "--no-jobs", "--workers", "2"]
    yield from _serving(tmp_path_factory.mktemp("service"), program)


@pytest.fixture(scope="module")
def noop_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service over a grading that runs nothing: what a program says on its first line becomes of it."""
    yield from _serving(tmp_path_factory.mktemp("noop"), [REPOSITORY / "loadtest" / "noop_service.py"])
