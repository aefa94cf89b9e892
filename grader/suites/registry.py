"""Finding and loading suites, by name or by path."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from grader import settings
from grader.errors import SuiteError
from grader.suites import custom, evalplus, humaneval, mbpp
from grader.suites.catalogue import PIN_OF_NAME, PINS, Pin
from grader.suites.files import SuiteFile, read_suite_file
from grader.suites.task import Suite, Task

DATA_DIR_VARIABLE = "GRADER_DATA_DIR"
CUSTOM_VERSION = "custom"

_STARTER = Path(__file__).parent / "starter"
_SUFFIXES = (".gz", ".jsonl", ".json")


@dataclass(frozen=True, slots=True)
class SuiteInfo:
    """What there is to know about a named suite without loading it.

    ``sha256`` is the pinned hash of the file, None for the suite that ships with the grader; ``location`` is
    where a file of that name was found, None if nowhere. The file's hash is checked when it is loaded.
    """

    name: str
    aliases: tuple[str, ...]
    version: str
    description: str
    licence: str
    source: str
    file_name: str
    sha256: str | None
    location: Path | None


def available(*, data_dir: Path | None = None) -> list[SuiteInfo]:
    """List the named suites, and where the file of each was found; nothing is downloaded."""
    return [
        SuiteInfo(
            name=pin.name,
            aliases=pin.aliases,
            version=pin.version,
            description=pin.description,
            licence=pin.licence,
            source=pin.source,
            file_name=pin.file_name,
            sha256=pin.sha256,
            location=_find(pin, data_dir),
        )
        for pin in PINS
    ]


def load(name_or_path: str, *, data_dir: Path | None = None) -> Suite:
    """Load a suite by its name, or from a file of any supported format.

    A name is looked up in ``data_dir`` (by default the folder that ``GRADER_DATA_DIR`` names), then in the
    user's cache folder, and is downloaded to that at last. A path is told from a name by a separator or by a
    file being there; a file with the hash of a known suite is that suite, any other one of its own, with the
    version "custom" unless its header says another.

    Raises:
        SuiteError: the name is unknown, no file can be had, or the file is not the pinned one or malformed.
        InputError: ``GRADER_DATA_DIR`` names no folder.

    """
    pin = PIN_OF_NAME.get(name_or_path.lower())
    if pin is not None:
        data_dir = settings.data_dir() if data_dir is None else data_dir
        return _load_pinned(pin, _find(pin, data_dir) or _fetch(pin))
    path = Path(name_or_path)
    if path.is_file():
        return _load_path(path)
    if path.name != name_or_path or name_or_path.endswith(_SUFFIXES):
        raise SuiteError(f"{path}: there is no such suite file")
    close = difflib.get_close_matches(name_or_path.lower(), PIN_OF_NAME, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    names = ", ".join(known.name for known in PINS)
    raise SuiteError(f"unknown suite {name_or_path!r}: {hint}known are {names}, or the path of a suite file")


def pull(name: str) -> Path:
    """Download a named suite to the user's cache folder, unless it is there, and return the file's path.

    Of a suite that is not published for download, the path of the file that is there is returned.

    Raises:
        SuiteError: the name is unknown, the suite is not published for download, or what came is not the
            pinned file.

    """
    pin = PIN_OF_NAME.get(name.lower())
    if pin is None:
        raise SuiteError(f"unknown suite {name!r}: known are {', '.join(known.name for known in PINS)}")
    if pin.sha256 is None:
        return _STARTER / pin.file_name
    if pin.url is None and (found := _find(pin, settings.data_dir())) is not None:
        _load_pinned(pin, found)
        return found
    target = cache_dir() / pin.file_name
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == pin.sha256:
        return target
    return _fetch(pin)


def cache_dir() -> Path:
    """Return the folder for suites' files below the grader's cache folder: see ``grader.settings.cache_dir``."""
    return settings.cache_dir() / "datasets"


def starter_samples_path() -> Path:
    """Return the file of samples for the starter suite: right, wrong, crashing, hanging and hostile ones."""
    return _STARTER / "starter_samples.jsonl"


def _folders(data_dir: Path | None) -> list[Path]:
    named = os.environ.get(DATA_DIR_VARIABLE, "")
    first = data_dir if data_dir is not None else Path(named).expanduser() if named else None
    return [folder for folder in (first, cache_dir()) if folder is not None]


def _find(pin: Pin, data_dir: Path | None) -> Path | None:
    if pin.sha256 is None:
        return _STARTER / pin.file_name
    names = [pin.file_name]
    if pin.content_sha256 is not None:
        names.append(pin.file_name.removesuffix(".gz"))
    found = (folder / name for folder in _folders(data_dir) for name in names if (folder / name).is_file())
    return next(found, None)


def _fetch(pin: Pin) -> Path:
    target = cache_dir() / pin.file_name
    name, sha256, packed = pin.file_name, pin.sha256, ""
    if pin.content_sha256 is not None:
        name, sha256 = pin.file_name.removesuffix(".gz"), pin.content_sha256
        packed = f", as it is or packed as {pin.file_name},"
    remedy = (
        f"put {name} (from {pin.source}; its sha256 is {sha256}){packed} into the folder that "
        f"{DATA_DIR_VARIABLE} names, or into {target.parent}"
    )
    if pin.url is None or pin.sha256 is None:
        raise SuiteError(f"suite {pin.name!r}: no file found, and it is not published for download: {remedy}")
    # Imported here because urllib costs every start more than loading a suite does.
    from grader.suites.download import download

    try:
        download(pin.url, target, pin.sha256)
    except (OSError, SuiteError) as error:
        raise SuiteError(
            f"suite {pin.name!r}: no file found, and the download of {pin.url} failed ({error}): {remedy}"
        ) from error
    return target


def _load_pinned(pin: Pin, path: Path) -> Suite:
    file = read_suite_file(path)
    if not _is_pinned(file, pin):
        raise SuiteError(
            f"{path}: not the file of {pin.name} {pin.version}: its sha256 is {file.sha256}, "
            f"not {pin.sha256}; get it from {pin.source}, "
            "or pass the file's path to use it as a suite of its own"
        )
    return Suite(pin.name, pin.version, file.sha256, _pinned_tasks(pin, file))


def _is_pinned(file: SuiteFile, pin: Pin) -> bool:
    if pin.sha256 is None or file.sha256 == pin.sha256:
        return True
    content = hashlib.sha256(file.text.encode()).hexdigest() if pin.content_sha256 else None
    return content is not None and content == pin.content_sha256


def _pinned_tasks(pin: Pin, file: SuiteFile) -> dict[str, Task]:
    if pin.format == "evalplus":
        return evalplus.load_tasks(file, released=pin.sha256 is not None)
    return humaneval.load_tasks(file) if pin.format == "humaneval" else mbpp.load_tasks(file)


def _load_path(path: Path) -> Suite:
    file = read_suite_file(path)
    for pin in PINS:
        if pin.sha256 is not None and _is_pinned(file, pin):
            return Suite(pin.name, pin.version, file.sha256, _pinned_tasks(pin, file))
    name, version, tasks = _load_unknown(file)
    return Suite(name, version, file.sha256, tasks)


def _load_unknown(file: SuiteFile) -> tuple[str, str, Mapping[str, Task]]:
    """Load a file by the format that its first row's keys tell."""
    keys = _first_keys(file)
    name = file.path.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    if keys & {"groups", "suite"}:
        header, tasks = custom.load(file)
        return header.name or name, header.version or CUSTOM_VERSION, tasks
    if "base_input" in keys or "plus_input" in keys:
        return name, CUSTOM_VERSION, evalplus.load_tasks(file)
    if "test_list" in keys:
        return name, CUSTOM_VERSION, mbpp.load_tasks(file)
    if "test" in keys:
        return name, CUSTOM_VERSION, humaneval.load_tasks(file)
    raise file.error(
        next((line for line, _ in file.rows()), None),
        "not a suite format: a row has 'groups' (the grader's own), 'base_input' and 'plus_input' "
        "(EvalPlus), 'test_list' (MBPP) or 'test' (HumanEval); "
        f"this one has {', '.join(sorted(keys)) or 'nothing'}",
    )


def _first_keys(file: SuiteFile) -> set[str]:
    line, text = next(file.rows(), (1, ""))
    if text.lstrip().startswith("["):
        line, text = 1, file.text
    if not text:
        raise file.error(None, "empty")
    try:
        row = json.loads(text)
    except RecursionError as error:
        raise file.error(line, "not usable JSON: nested too deeply") from error
    except ValueError as error:
        raise file.error(line, f"not JSON: {error}") from error
    first = row[0] if isinstance(row, list) and row else row
    return set(first) if isinstance(first, dict) else set()
