"""The command line as a user runs it: in a process of its own, with real cells."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import grader
from grader.sandbox import cgroup, rootfs
from grader.suites import registry

DEADLINE_S = 120.0
# A shell has what it runs in the background ignore Ctrl-C.
_MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from grader.cli import main; main()"


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something to become true, with a deadline that only a broken program meets."""
    end = time.monotonic() + DEADLINE_S
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.01)


@dataclass
class Command:
    """Runs ``grader`` with a cache folder and a folder for temporary files."""

    cache: Path
    scratch: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    owners: set[int] = field(default_factory=set)  # of control groups: main processes and their workers

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        environment = dict(os.environ)
        environment |= {
            "GRADER_CACHE_DIR": str(self.cache), "TMPDIR": str(self.scratch), "GRADER_WORKERS": "2",
            "PYTHONPATH": str(Path(grader.__file__).parent.parent), "COLUMNS": "100",
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _MAIN, *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.started.append(process)
        threading.Thread(target=self._note_owners, args=(process,), daemon=True).start()
        return process

    def _note_owners(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            self.owners |= {process.pid, *children_of(process.pid)}
            time.sleep(0.02)

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=DEADLINE_S * 5)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def score(self, samples: Path, suite: object, *arguments: object) -> list[dict[str, Any]]:
        """Grade a file; returns the verdicts in the order in which they came."""
        output = self.scratch.parent / f"verdicts-{time.monotonic_ns()}.jsonl"
        ended = self("score", samples, "--suite", suite, "--output", output, "--quiet", *arguments)
        assert ended.returncode == 0, ended.stderr
        return read_lines(output)

    def kill_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()


@pytest.fixture
def command(sandbox_root: Path, tmp_path: Path) -> Iterator[Command]:
    """``grader`` with the session's cache."""
    (tmp_path / "scratch").mkdir()
    made = Command(Path(os.environ["GRADER_CACHE_DIR"]), tmp_path / "scratch")
    yield made
    made.kill_all()


@pytest.fixture
def watched(sandbox_root: Path, tmp_path: Path) -> Iterator[Command]:
    """``grader`` with a cache of its own, by whose path every process and mount of it can be told."""
    own = tmp_path / "own-cache" / "roots" / rootfs.root_key()
    shutil.copytree(sandbox_root.resolve(), own, copy_function=_link_or_copy, symlinks=True)
    (tmp_path / "scratch").mkdir()
    made = Command(tmp_path / "own-cache", tmp_path / "scratch")
    yield made
    made.kill_all()
    shutil.rmtree(own)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def traces_of(command: Command) -> list[str]:
    """What is left of a command's runs: processes, mounts, temporary files, half-made files, control groups."""
    place = str(command.cache)
    found = [
        f"mount: {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if place in line
    ]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(process / name).read_bytes() for name in ("cmdline", "environ", "mountinfo")]
        except OSError:
            continue  # not ours, or gone meanwhile
        if any(place.encode() in text for text in texts):
            found.append(f"process {process.name}: {texts[0]!r}")
    found += [f"file: {file}" for file in command.scratch.rglob("*")]
    found += [f"file: {file}" for file in command.cache.rglob(".making-*")]
    return found + [f"control group: {folder}" for folder in _abandoned_groups(command.owners)]


def _abandoned_groups(owners: set[int]) -> list[Path]:
    """Those of these owners: a test beside this one may kill workers, whose groups stay until that is noticed."""
    return [
        folder
        for hierarchy in set(cgroup.find_hierarchies().values())
        for folder in hierarchy.parent.glob("grader-*")
        if int(folder.name.split("-")[2]) in owners and cgroup._is_abandoned(folder)
    ]


def assert_nothing_is_left(command: Command) -> None:
    wait_until(lambda: not traces_of(command) or None, "nothing is left") if traces_of(command) else None


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def children_of(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended since
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # the thread has
                found += [int(child) for child in task.read_text().split()]
    return found


def judged(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """What a verdict says of the program, by sample: all but times, memory, attempts and whether it was copied.

    How much a program had printed when its first wrong answer ended it is a matter of time too.
    """
    measured = {"cpu_s", "wall_s", "peak_memory_bytes", "attempts", "cached"}
    found = {}
    for verdict in verdicts:
        assert verdict["sample_id"] not in found, "a sample was graded twice"
        left_out = measured if verdict["passed"] else measured | {"stdout_tail"}
        found[verdict["sample_id"]] = {name: value for name, value in verdict.items() if name not in left_out}
    return found


@pytest.fixture
def tools() -> Any:
    """The helpers above: a folder of tests is no package to import from."""

    class Tools:
        wait_until = staticmethod(wait_until)
        assert_nothing_is_left = staticmethod(assert_nothing_is_left)
        traces_of = staticmethod(traces_of)
        read_lines = staticmethod(read_lines)
        write_lines = staticmethod(write_lines)
        children_of = staticmethod(children_of)
        judged = staticmethod(judged)
        SIGINT = signal.SIGINT

    return Tools


@dataclass(frozen=True)
class Toy:
    """A small suite, and samples that each take a moment: half of them right."""

    suite: Path
    samples: Path
    statuses: dict[str, str]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    tasks: list[dict[str, Any]] = [{"suite": "toy", "version": "v1"}]
    for number in range(3):
        tests = [{"args": [n], "expected": n + number} for n in range(3)]
        group = {"name": "base", "kind": "function", "tests": tests}
        tasks.append({"task_id": f"Toy/{number}", "entry_point": "f", "groups": [group]})
    rows, statuses = [], {}
    for index in range(120):
        number, right = index % 3, index % 2 == 0
        source = (
            "import time\n\n\ndef f(n):\n    end = time.process_time() + 0.03\n"
            f"    while time.process_time() < end:\n        pass\n    return n + {number if right else 9}\n"
        )
        rows.append({"task_id": f"Toy/{number}", "sample_id": f"s{index}", "solution": source})
        statuses[f"s{index}"] = "passed" if right else "wrong_answer"
    return Toy(
        write_lines(tmp_path / "toy.jsonl", tasks),
        write_lines(tmp_path / "toy-samples.jsonl", rows),
        statuses,
    )


@pytest.fixture(scope="session")
def starter_samples() -> Path:
    return registry.starter_samples_path()


@pytest.fixture(scope="session")
def starter_expected(starter_samples: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(starter_samples.with_name("starter_expected.json").read_text("utf-8"))
    return found
