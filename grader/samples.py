"""Reading sample files: JSONL, JSONL.gz, or EvalPlus's folder layout.

Everything is read and checked before anything runs. A file that cannot be graded as it is is refused with
one line that says where and why; what a model wrote inside ``solution`` or ``completion`` is never a reason
to refuse.

A line of JSONL is an object with ``task_id``, exactly one of ``solution`` (a whole program) and
``completion`` (what a model said; the program is found in it), and optionally ``sample_id``. Other fields
are ignored. A missing ``sample_id`` becomes ``<task_id>:<n>``, n counting the task's samples in the file
from 0. In the folder layout a folder stands for a task (``HumanEval_0`` for ``HumanEval/0``), and each
``.py`` file in it is a solution whose ``sample_id`` is ``<task_id>:<name without .py>``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from grader.errors import SampleError
from grader.limits import MIB
from grader.suites.task import Suite

MAX_LINE_BYTES = 32 * MIB
MAX_ID_CHARACTERS = 512
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class GivenSample:
    """A checked sample. ``text`` is a whole program if ``is_solution``, else a completion."""

    task_id: str
    sample_id: str
    text: str
    is_solution: bool


class SampleChecker:
    """Checks samples one after the other against a suite, and gives a ``sample_id`` to those without one."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._places: dict[str, str] = {}
        self._occurrences: Counter[str] = Counter()

    def check(self, row: object, place: str) -> GivenSample:
        """Return the sample in ``row``. Raises SampleError, which starts with ``place``, if it has none."""
        if not isinstance(row, Mapping):
            raise SampleError(f"{place}: a sample is an object with task_id and solution or completion")
        task_id = self._task_id(row, place)
        text, is_solution = _text(row, place)
        sample_id = row.get("sample_id")
        if sample_id is None:
            sample_id = f"{task_id}:{self._occurrences[task_id]}"
        self._occurrences[task_id] += 1
        self._claim(sample_id, place)
        return GivenSample(task_id, sample_id, text, is_solution)

    def _task_id(self, row: Mapping[str, Any], place: str) -> str:
        task_id = row.get("task_id")
        if not isinstance(task_id, str):
            raise SampleError(f"{place}: task_id is {_missing_or_type(task_id)}; give the task's name")
        if task_id not in self._suite.tasks:
            example = next(iter(self._suite.tasks), "")
            raise SampleError(
                f"{place}: {self._suite.name} has no task {_shown(task_id)}; "
                f"its tasks are named like {_shown(example)} - is the suite the right one?"
            )
        return task_id

    def _claim(self, sample_id: object, place: str) -> None:
        if not isinstance(sample_id, str):
            raise SampleError(
                f"{place}: sample_id is {_missing_or_type(sample_id)}; give a string or leave it out"
            )
        if not 1 <= len(sample_id) <= MAX_ID_CHARACTERS:
            raise SampleError(
                f"{place}: sample_id has {len(sample_id)} characters; 1 to {MAX_ID_CHARACTERS} are allowed"
            )
        if not is_encodable(sample_id):
            raise SampleError(f"{place}: sample_id {_shown(sample_id)} has half a surrogate pair in it")
        if sample_id in self._places:
            raise SampleError(
                f"{place}: sample_id {_shown(sample_id)} was used before, at {self._places[sample_id]}; "
                "give each sample its own, or leave the field out everywhere"
            )
        self._places[sample_id] = place


def read_samples(path: Path, suite: Suite) -> list[GivenSample]:
    """Read and check all samples at ``path``: a file (JSONL, plain or gzipped) or a folder in EvalPlus's
    layout.

    Raises SampleError, naming file and line, at the first thing that is wrong: see the module's text. A line
    may have up to 32 MiB, and no more than that is ever read of one.
    """
    checker = SampleChecker(suite)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
        rows = _folder_rows(path, suite) if is_folder else _file_rows(path)
        samples = [checker.check(row, place) for row, place in rows]
    except OSError as error:
        raise SampleError(f"{error.filename or path}: {error.strerror or error}") from None
    if not samples:
        wanted = "folders such as HumanEval_0 with .py files" if is_folder else "a JSON object a line"
        raise SampleError(f"{path}: there is no sample in it; expected {wanted}")
    return samples


def check_readable(path: Path) -> None:
    """Raise SampleError unless there is something at ``path`` that may be read."""
    try:
        path.stat()
    except OSError as error:
        raise SampleError(f"{path}: {error.strerror}") from None
    if not os.access(path, os.R_OK):
        raise SampleError(f"{path}: no permission to read it")


def fingerprint(samples: Iterable[GivenSample]) -> str:
    """Return a sha256 over what the samples say, in order: the same for a plain file and its gzipped copy."""
    digest = hashlib.sha256()
    for sample in samples:
        for part in (sample.task_id, sample.sample_id, "s" if sample.is_solution else "c", sample.text):
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(encoded))
            digest.update(encoded)
    return digest.hexdigest()


def is_encodable(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: it holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(row: Mapping[str, Any], place: str) -> tuple[str, bool]:
    solution, completion = row.get("solution"), row.get("completion")
    if (solution is None) == (completion is None):
        which = "neither solution nor completion" if solution is None else "both solution and completion"
        raise SampleError(f"{place}: the sample has {which}; give exactly one of them")
    name, text = ("solution", solution) if completion is None else ("completion", completion)
    if not isinstance(text, str):
        raise SampleError(f"{place}: {name} is {_missing_or_type(text)}; give one program as a string")
    return text, completion is None


def _file_rows(path: Path) -> Iterator[tuple[object, str]]:
    with path.open("rb") as raw:
        lines: BinaryIO = raw
        if raw.peek(2)[:2] == b"\x1f\x8b":
            lines = cast(BinaryIO, gzip.GzipFile(fileobj=raw))
        elif path.suffix == ".gz":
            raise SampleError(f"{path}: its name ends in .gz, but it is not a gzip file")
        for number, line in _numbered_lines(lines, path):
            if line.strip():
                place = f"{path}, line {number}"
                yield _parsed(line, place), place


def _numbered_lines(lines: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    while True:
        number += 1
        try:
            line = lines.readline(MAX_LINE_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SampleError(
                f"{path}, line {number}: the gzip file is truncated or damaged ({error})"
            ) from None
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            raise SampleError(f"{path}, line {number}: the line is longer than {MAX_LINE_BYTES // MIB} MiB")
        yield number, line.removeprefix(_BOM) if number == 1 else line


def _parsed(line: bytes, place: str) -> object:
    text = _decoded(line, place)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if b"\0" in line:
            raise SampleError(f"{place}: there is a NUL byte in the line; is the file damaged?") from None
        raise SampleError(f"{place}: invalid JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise SampleError(f"{place}: invalid JSON: it is nested too deeply") from None
    except ValueError as error:  # a number of more digits than Python converts
        raise SampleError(f"{place}: invalid JSON: {error}") from None


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SampleError(f"{place}: invalid UTF-8 at byte {error.start + 1}: {error.reason}") from None


def _folder_rows(folder: Path, suite: Suite) -> Iterator[tuple[object, str]]:
    task_ids = {task_id.replace("/", "_"): task_id for task_id in suite.tasks}
    for task_folder in sorted(folder.iterdir(), key=_natural):
        if task_folder.name.startswith(".") or not task_folder.is_dir():
            continue
        for file in sorted(task_folder.glob("*.py"), key=_natural):
            if not file.is_file():
                continue
            task_id = task_ids.get(task_folder.name, task_folder.name)
            yield (
                {"task_id": task_id, "sample_id": f"{task_id}:{file.stem}", "solution": _file_text(file)},
                str(file),
            )


def _file_text(file: Path) -> str:
    with file.open("rb") as opened:
        data = opened.read(MAX_LINE_BYTES + 1)
    if len(data) > MAX_LINE_BYTES:
        raise SampleError(f"{file}: the file is larger than {MAX_LINE_BYTES // MIB} MiB")
    return _decoded(data.removeprefix(_BOM), str(file))


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Sort 2.py before 10.py."""
    parts: list[tuple[int, int | str]] = []
    for part in re.split(r"([0-9]+)", path.name):
        parts.append((0, int(part)) if part.isascii() and part.isdigit() else (1, part))
    return parts


def _missing_or_type(value: object) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"


def _shown(text: str) -> str:
    """Quote text from a file so that it fits in one line of any terminal."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")
