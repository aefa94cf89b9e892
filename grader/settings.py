"""Settings from environment variables, read when they are asked for and never at import.

=====================  =====================================================  =============================
variable               meaning                                                default
=====================  =====================================================  =============================
``GRADER_DATA_DIR``    folder with the suites' data files                     none
``GRADER_CACHE_DIR``   folder for what can be made again                      ``$XDG_CACHE_HOME/grader``, or
                                                                              ``~/.cache/grader``
``GRADER_ENGINE``      ``local`` or ``ray``                                   ``local``
``GRADER_SANDBOX``     ``auto``, ``namespaces`` or ``docker``                 ``auto``
``GRADER_WORKERS``     how many workers, 1 to 4096                            the engine decides
``GRADER_RAY_ADDRESS`` HOST:PORT of a Ray cluster to join, or ``auto``        none: Ray is started
=====================  =====================================================  =============================

A variable that is set to nothing counts as not set. Flags of the command line and arguments of the Python
API win.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from grader.errors import InputError

ENGINES = ("local", "ray")
SANDBOXES = ("auto", "namespaces", "docker")
MAX_WORKERS = 4096


def data_dir() -> Path | None:
    """Return the folder named by ``GRADER_DATA_DIR``, or None. Raises InputError where it is no folder."""
    value = os.environ.get("GRADER_DATA_DIR")
    if not value:
        return None
    path = _expanded("GRADER_DATA_DIR", value)
    if not path.is_dir():
        raise InputError(f"GRADER_DATA_DIR names {value}, which is not a folder; mend it or unset it")
    return path


def cache_dir() -> Path:
    """Return the cache folder, which need not exist yet. Raises InputError where a file is in its place."""
    name, value = "GRADER_CACHE_DIR", os.environ.get("GRADER_CACHE_DIR")
    if value:
        path = _expanded(name, value)
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG base directory specification says that relative paths are to be ignored.
        path = (Path(base) if base.startswith("/") else _expanded(name, "~/.cache")) / "grader"
    if path.exists() and not path.is_dir():
        raise InputError(f"the cache folder {path} is not a folder; set GRADER_CACHE_DIR to another")
    return path.absolute()


def engine() -> str:
    """Return ``GRADER_ENGINE``: ``local`` (the default) or ``ray``. Raises InputError for anything else."""
    return _choice("GRADER_ENGINE", ENGINES)


def sandbox() -> str:
    """Return ``GRADER_SANDBOX``: ``auto`` (default), ``namespaces`` or ``docker``, or raise InputError."""
    return _choice("GRADER_SANDBOX", SANDBOXES)


def workers() -> int | None:
    """Return ``GRADER_WORKERS``, or None: the engine decides. Raises InputError outside of 1 to 4096."""
    value = os.environ.get("GRADER_WORKERS")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 9 and 1 <= int(value) <= MAX_WORKERS):
        raise InputError(f"GRADER_WORKERS is {value!r}; give a whole number from 1 to {MAX_WORKERS}")
    return int(value)


def ray_address() -> str | None:
    """Return ``GRADER_RAY_ADDRESS``, the address of the Ray cluster to join, or None."""
    return os.environ.get("GRADER_RAY_ADDRESS") or None


def _choice(name: str, choices: Sequence[str]) -> str:
    value = os.environ.get(name) or choices[0]
    if value not in choices:
        raise InputError(f"{name} is {value!r}; give one of {', '.join(choices)}")
    return value


def _expanded(name: str, value: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise InputError(
            f"{value} cannot be found without a home folder; set {name} to a full path"
        ) from None
