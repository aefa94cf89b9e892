"""Where jobs are kept."""

from __future__ import annotations

import os
from pathlib import Path

from grader.errors import InputError

DATABASE_VARIABLE = "GRADER_DATABASE_URL"


def database_url() -> str:
    """Return ``GRADER_DATABASE_URL``; by default a SQLite file below ``$XDG_STATE_HOME``, or ``~/.local/state``.

    Not in the cache folder: what is there can be made again, and an accepted job cannot.
    """
    given = os.environ.get(DATABASE_VARIABLE)
    if given:
        return given
    base = os.environ.get("XDG_STATE_HOME", "")
    try:
        # The XDG base directory specification says that relative paths are to be ignored.
        folder = Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()
    except RuntimeError:
        raise InputError(
            f"there is no home folder to keep jobs in; set {DATABASE_VARIABLE} to sqlite:////folder/jobs.sqlite3"
        ) from None
    return f"sqlite:///{folder / 'grader' / 'jobs.sqlite3'}"
