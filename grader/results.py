"""What a run leaves on disk: verdicts as they come, the summary, and EvalPlus's results format.

Verdicts are written one JSON object a line and handed to the operating system one by one, in the order in
which they come. Beside ``verdicts.jsonl`` stands ``verdicts.jsonl.run.json``, which says what run it belongs
to: suite (with its sha256), limits, groups, fail_fast, flags, a sha256 over the samples, the sandbox asked for, what
is in it (interpreter, packages, runner; a container's image), and the grader's version. A run is resumed only
where all of these are the same. Verdicts that were half written, and infrastructure errors, are then dropped
and graded again; everything else is kept.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from grader.errors import InfrastructureError, InputError
from grader.limits import Limits
from grader.sandbox.options import CellOptions
from grader.status import Status
from grader.suites.task import FunctionTests, Suite, Task
from grader.version import __version__

_STATUSES = frozenset(Status)
_MEANING = {"cells_digest": "cells_digest (interpreter, packages, runner, or a container's image)"}
_EVALPLUS_GROUPS = ("base", "plus")


@dataclass(frozen=True)
class RunIdentity:
    """What has to be the same for two runs to give the same verdicts.

    ``cells_digest`` names everything in the cells: ``grader.sandbox.factory.digest_of``.
    """

    suite: Mapping[str, str]
    samples_sha256: str
    groups: Sequence[str]
    limits: Limits
    fail_fast: bool
    cells: CellOptions
    cells_digest: str
    flags: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the identity as plain data, the grader's version included."""
        plain = {**asdict(self), "groups": list(self.groups)}
        return {**plain, "suite": dict(self.suite), "grader_version": __version__}


class VerdictFile:
    """A file of verdicts that grows while a run goes on; a context manager. Made by :func:`open_verdicts`."""

    def __init__(self, path: Path, stream: BinaryIO, kept: list[dict[str, Any]]) -> None:
        self._path = path
        self._stream = stream
        self.kept = kept

    def write(self, verdict: Mapping[str, Any]) -> None:
        """Append a verdict and hand it to the operating system: it outlives whatever happens to this process.

        Raises InfrastructureError where it cannot be written, e.g. because the disk is full.
        """
        try:
            self._stream.write(json.dumps(verdict).encode() + b"\n")
            self._stream.flush()
        except OSError as error:
            raise InfrastructureError(
                f"{self._path}: cannot write a verdict: {error.strerror}; "
                "make room, then run the same command with --resume"
            ) from error

    def __enter__(self) -> VerdictFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stream.close()
        except OSError:
            if error is None:
                raise


def open_verdicts(
    path: Path, identity: RunIdentity, *, resume: bool, sample_ids: Collection[str]
) -> VerdictFile:
    """Open ``path`` for the verdicts of a run; ``kept`` holds those of the run that is resumed.

    Without ``resume`` an older file is replaced. With it, a missing or empty file is a fresh start.

    Raises InputError where the file cannot be opened, belongs to another run or to one that goes on, or is damaged.
    """
    try:
        if path.exists() and not path.is_file():
            if resume:
                raise InputError(f"{path} is not a regular file; a run into it cannot be resumed")
            return VerdictFile(path, path.open("wb"), [])
        return _open_alone(path, identity, resume=resume, sample_ids=sample_ids)
    except OSError as error:
        raise InputError(f"{error.filename or path}: {error.strerror}; choose another --output") from None


def _open_alone(
    path: Path, identity: RunIdentity, *, resume: bool, sample_ids: Collection[str]
) -> VerdictFile:
    kept: list[dict[str, Any]] = []
    with _locked(path) as stream:
        if resume and path.stat().st_size:
            _check_identity(path, identity)
            kept = _keep(path, sample_ids)
        else:
            stream.truncate(0)  # first: a header must never stand beside another run's verdicts
            write_atomically(_header_path(path), json.dumps(identity.as_json(), indent=2) + "\n")
        replaced = not os.path.samestat(os.fstat(stream.fileno()), path.stat())
        again = _locked(path) if replaced else os.fdopen(os.dup(stream.fileno()), "ab")
        return VerdictFile(path, again, kept)


def _locked(path: Path) -> BinaryIO:
    """Open a file to append to it, and keep other runs out: two would leave it with two verdicts a sample."""
    stream = path.open("ab")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise InputError(
            f"{path} is being written by another run; wait for its end, or give another --output"
        ) from None
    except OSError:
        pass  # a file system without locks
    return stream


def check_writable(path: Path, option: str, samples: Path) -> None:
    """Raise InputError unless a file can be written at ``path``: asked before a run, not after it."""
    folder = path.absolute().parent
    if path.is_dir():
        raise InputError(f"{option} {path} is a folder; give a file's name")
    if not folder.is_dir():
        raise InputError(f"{option} {path}: there is no folder {folder}; make it first")
    needed = [path] if path.exists() else []
    if path.is_file() or not needed:
        needed.append(
            path.resolve().parent
        )  # another file is made there: a header, or what replaces this one
    if not all(os.access(wanted, os.W_OK) for wanted in needed):
        raise InputError(f"{option} {path}: no permission to write there")
    if path.exists() and path.is_file() and path.samefile(samples):
        raise InputError(f"{option} {path} is the file with the samples; give another name")


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or nothing. Raises InfrastructureError where that fails.

    What is not a regular file (a terminal, a pipe, /dev/null) is written to, never replaced.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
            return
        target = path.resolve()  # a symbolic link stays one
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as part:
            try:
                part.write(text)
                part.flush()
                Path(part.name).chmod(0o666 & ~_umask())
                Path(part.name).replace(target)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise InfrastructureError(f"{path}: cannot write it: {error.strerror}") from error


def evalplus_results(
    suite: Suite, sources: Iterable[tuple[str, str, str]], groups: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a run in the format of EvalPlus's ``*_eval_results.json`` (its ``evaluate.py``, release 0.3.1).

    ``sources`` gives (task_id, sample_id, program) in the samples' order; ``groups`` maps a sample_id to its
    verdict's groups, and has no entry for an infrastructure error: EvalPlus has no word for one, so such
    samples are left out. A group that was not run is null; with ``fail_fast``, plus is null where base
    failed, while EvalPlus runs it all the same. ``hash`` is the suite's sha256.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    failing = _FailingInputs(suite)
    for task_id, sample_id, source in sources:
        results = groups.get(sample_id)
        if results is None:
            continue
        row: dict[str, Any] = {"task_id": task_id, "solution": source}
        for group in _EVALPLUS_GROUPS:
            row[f"{group}_status"] = _evalplus_status(results.get(group))
        for group in _EVALPLUS_GROUPS:
            row[f"{group}_fail_tests"] = failing.of(task_id, group, results.get(group))
        found.setdefault(task_id, []).append(row)
    return {"date": datetime.now().strftime("%Y-%m-%d %H:%M"), "hash": suite.sha256, "eval": found}


class _FailingInputs:
    """Looks up the input of a failed test; a task's inputs are parsed once, and one task's kept at a time."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._key: tuple[str, str] | None = None
        self._inputs: Sequence[Any] = ()

    def of(self, task_id: str, group: str, result: Mapping[str, Any] | None) -> list[Any]:
        """Return the first failing input in a list, or [] where none is known."""
        first = result.get("first_failed") if result else None
        if first is None:
            return []
        if self._key != (task_id, group):
            self._key, self._inputs = (task_id, group), _inputs(self._suite.tasks[task_id], group)
        return [_plain(self._inputs[first])] if first < len(self._inputs) else []


def _inputs(task: Task, group: str) -> Sequence[Any]:
    tests = next((found.tests for found in task.groups if found.name == group), None)
    return tests.inputs() if isinstance(tests, FunctionTests) else ()


def _plain(value: Any) -> Any:
    """What JSON can say of a test input; like EvalPlus, flatten tuples and sets, write complex as text."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return [_plain(item) for item in sorted(value, key=repr)]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _evalplus_status(result: Mapping[str, Any] | None) -> str | None:
    if result is None:
        return None
    return {Status.PASSED: "pass", Status.TIME_LIMIT: "timeout"}.get(result["status"], "fail")


def _header_path(path: Path) -> Path:
    return path.with_name(path.name + ".run.json")


def _check_identity(path: Path, identity: RunIdentity) -> None:
    header = _header_path(path)
    again = "leave --resume out to start again, or give another --output"
    try:
        theirs = json.loads(header.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{header} is missing, so what run {path} belongs to is unknown; {again}") from None
    except ValueError:
        raise InputError(f"{header} is damaged; {again}") from None
    ours = json.loads(json.dumps(identity.as_json()))
    if theirs == ours:
        return
    stored = theirs if isinstance(theirs, dict) else {}
    different = [name for name, value in ours.items() if stored.get(name) != value]
    named = ", ".join(_MEANING.get(name, name) for name in different) or "fields"
    raise InputError(f"{path} is from a run with other {named}; {again}")


def _keep(path: Path, sample_ids: Collection[str]) -> list[dict[str, Any]]:
    """Return the finished verdicts in ``path``, and take everything else out of the file."""
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    kept: dict[str, dict[str, Any]] = {}
    wanted: list[bytes] = []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break  # only the last line can be: it was being written when the run ended
        verdict = _stored_verdict(line, f"{path}, line {number}")
        sample_id = verdict["sample_id"]
        if sample_id not in sample_ids or sample_id in kept:
            what = "a second verdict" if sample_id in kept else "a verdict on an unknown sample"
            place = f"{path}, line {number}"
            raise InputError(f"{place}: {what}, {sample_id!a}; leave --resume out to start again")
        if verdict["status"] != Status.INFRASTRUCTURE_ERROR:
            kept[sample_id] = verdict
            wanted.append(line)
    if len(wanted) < len(lines):
        write_atomically(path, b"".join(wanted).decode())
    return list(kept.values())


def _stored_verdict(line: bytes, place: str) -> dict[str, Any]:
    try:
        verdict = json.loads(line)
    except (ValueError, RecursionError):
        verdict = None
    if not (
        isinstance(verdict, dict)
        and isinstance(verdict.get("task_id"), str)
        and isinstance(verdict.get("sample_id"), str)
        and verdict.get("status") in _STATUSES
        and isinstance(verdict.get("groups"), dict)
        and isinstance(verdict.get("cpu_s"), int | float)
        and isinstance(verdict.get("cached"), bool)
    ):
        raise InputError(f"{place}: no verdict; the file is damaged, leave --resume out to start again")
    return verdict


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
