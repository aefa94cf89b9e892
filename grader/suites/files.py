"""Reading a suite's file: its bytes, its rows, and errors that say where in it something is wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grader.errors import SuiteError
from grader.suites.json_values import MAX_VALUES, has_too_many_values

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's way to say "a gzip header, and the largest window"
_EXCERPT = 60


@dataclass(frozen=True, slots=True)
class SuiteFile:
    """A suite's file as read from disk: ``sha256`` is of the bytes as stored, ``text`` is unpacked."""

    path: Path
    sha256: str
    text: str

    def rows(self) -> Iterator[tuple[int, str]]:
        """Give every line that is not blank, with its number counted from 1."""
        for number, line in enumerate(self.text.split("\n"), start=1):
            if line and not line.isspace():
                yield number, line

    def error(self, line: int | None, problem: str) -> SuiteError:
        """Make the error for a problem in this file, with its place in front."""
        place = f"{self.path}, line {line}" if line is not None else str(self.path)
        return SuiteError(f"{place}: {problem}")


@dataclass(frozen=True, slots=True)
class Place:
    """A field of a row, for errors: the file, the line, and the path of the field inside the row."""

    file: SuiteFile
    line: int | None
    field: str = ""

    def __truediv__(self, name: str | int) -> Place:
        """Go one step down: a key gives ``a.b``, an index gives ``a[0]``."""
        step = f"[{name}]" if isinstance(name, int) else f".{name}" if self.field else name
        return Place(self.file, self.line, self.field + step)

    def error(self, problem: str) -> SuiteError:
        """Make the error for a problem with this field."""
        return self.file.error(self.line, f"field {self.field!r}: {problem}" if self.field else problem)


def read_suite_file(path: Path) -> SuiteFile:
    """Read a suite's file, packed with gzip or plain.

    Raises:
        SuiteError: the file cannot be read, is truncated, or is not UTF-8.

    """
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"{path}: cannot read the suite's file: {error.strerror or error}") from error
    content = _unpack(path, stored)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SuiteError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error
    return SuiteFile(path, hashlib.sha256(stored).hexdigest(), text)


def _unpack(path: Path, stored: bytes) -> bytes:
    if not stored.startswith(_GZIP_MAGIC):
        return stored
    try:
        return gzip.decompress(stored)
    except (EOFError, OSError, zlib.error) as error:
        line = _readable_part(stored).count(b"\n") + 1
        raise SuiteError(
            f"{path}, line {line}: the gzip file is truncated or damaged there ({error}); get it again"
        ) from error


def _readable_part(stored: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    content = b""
    try:
        # In steps, because an error inside one call throws away everything that call had unpacked.
        for start in range(0, len(stored), 4096):
            content += unpacker.decompress(stored[start : start + 4096])
    except zlib.error:
        pass
    return content


def parse_row(file: SuiteFile, line: int, text: str, *, strict: bool = False) -> dict[str, Any]:
    """Parse one line as a JSON object.

    With ``strict`` a key that comes twice and the non-JSON constants NaN and Infinity are refused as well.

    Raises:
        SuiteError: the line is not JSON, or not an object.

    """
    row = parse_json(file, line, text, strict=strict)
    if not isinstance(row, dict):
        raise file.error(line, f"a JSON object is needed, this is {describe(row)}")
    return row


def parse_json(file: SuiteFile, line: int, text: str, *, strict: bool = False) -> Any:
    """Parse JSON text that begins on the given line; see ``parse_row`` for ``strict``.

    Raises:
        SuiteError: the text is not JSON.

    """
    try:
        if not strict:
            return json.loads(text)
        return json.loads(text, object_pairs_hook=_distinct_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}"
        raise file.error(line + error.lineno - 1, f"not JSON: {error.msg} at {where}") from error
    except RecursionError as error:
        raise file.error(line, "not usable JSON: nested too deeply") from error
    except ValueError as error:  # our own hooks, and integers beyond what Python converts
        raise file.error(line, f"not usable JSON: {error}") from error


def finite_json(text: str) -> Any:
    """Parse JSON text. Raises ValueError for what is none, NaN, Infinity and numbers too large for a float included,
    and for too many values."""
    if len(text) > MAX_VALUES and has_too_many_values(text.encode("utf-8", "surrogatepass")):
        raise ValueError(f"more than {MAX_VALUES} values and names of fields")
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large for a float")
    return value


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} comes twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f'{name} is not JSON; write {{"$float": "nan"}}, "inf" or "-inf"')


def describe(value: Any) -> str:
    """Name a JSON value for an error: its kind and the beginning of its text."""
    kinds = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    if value is None:
        return "null"
    text = json.dumps(value, default=repr)
    shown = text if len(text) <= _EXCERPT else text[:_EXCERPT] + "..."
    return f"{kinds.get(type(value), type(value).__name__)} ({shown})"


def need(row: Mapping[str, Any], name: str, place: Place) -> Any:
    """Return a field that must be there.

    Raises:
        SuiteError: it is missing.

    """
    if name not in row:
        raise (place / name).error("missing")
    return row[name]


def text_field(row: Mapping[str, Any], name: str, place: Place, default: str | None = None) -> str:
    """Return a text field; one that is missing is ``default``, if that is given.

    Raises:
        SuiteError: it is missing, not a string, or has lone surrogates or NUL characters.

    """
    if default is not None and name not in row:
        return default
    return checked_text(need(row, name, place), place / name)


def checked_text(value: Any, place: Place) -> str:
    """Return the value if it is text that a program or a file can hold.

    Raises:
        SuiteError: it is not a string, or has lone surrogates or NUL characters.

    """
    if not isinstance(value, str):
        raise place.error(f"a string is needed, this is {describe(value)}")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise place.error("has a lone surrogate, which UTF-8 cannot carry") from error
    if "\0" in value:
        raise place.error("has a NUL character")
    return value


def list_field(row: Mapping[str, Any], name: str, place: Place) -> list[Any]:
    """Return an array field.

    Raises:
        SuiteError: it is missing or not an array.

    """
    value = need(row, name, place)
    if not isinstance(value, list):
        raise (place / name).error(f"an array is needed, this is {describe(value)}")
    return value


def identifier_field(row: Mapping[str, Any], name: str, place: Place) -> str:
    """Return a field that names a Python function.

    Raises:
        SuiteError: it is missing or not an identifier.

    """
    value = text_field(row, name, place)
    if not is_function_name(value):
        raise (place / name).error(f"{value!r} is not a Python function's name")
    return value


def is_function_name(text: str) -> bool:
    """Tell whether the text can be the name of a function in a program."""
    from keyword import iskeyword

    return text.isidentifier() and not iskeyword(text)


class TaskIds:
    """The task ids seen so far in one file, with the line of each, so that no id comes twice."""

    def __init__(self, file: SuiteFile) -> None:
        self._file = file
        self._lines: dict[str, int] = {}

    def add(self, task_id: str, line: int) -> str:
        """Note an id and return it.

        Raises:
            SuiteError: the id is empty or was there before.

        """
        if not task_id:
            raise self._file.error(line, "field 'task_id': empty")
        if task_id in self._lines:
            before = self._lines[task_id]
            raise self._file.error(line, f"field 'task_id': {task_id!r} was already used on line {before}")
        self._lines[task_id] = line
        return task_id
