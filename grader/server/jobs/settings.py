"""Where jobs are kept, how long, and how many are worked on: from environment variables, read when asked for.

============================  ===================================================================  =================
variable                      meaning                                                              default
============================  ===================================================================  =================
``GRADER_DATABASE_URL``       sqlite:////folder/file, or postgresql://... for several replicas     see database_url
``GRADER_JOBS_KEEP_DAYS``     days that a finished job is kept                                     7
``GRADER_JOBS_TENANT_BYTES``  what the jobs of one tenant may take in the database                 8589934592 (8 GiB)
``GRADER_JOBS_UNFINISHED``    unfinished jobs that one tenant may have                             1000
``GRADER_JOBS_AT_ONCE``       jobs that one replica works on at the same time                      8
============================  ===================================================================  =================
"""

from __future__ import annotations

import os
from pathlib import Path

from grader.errors import InputError
from grader.server.jobs.records import Bounds
from grader.server.jobs.runner import RunnerSettings

DATABASE_VARIABLE = "GRADER_DATABASE_URL"
_DAY_S = 86_400.0


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


def runner_settings() -> RunnerSettings:
    """Return the settings that the environment names. Raises InputError for what is no number, or out of range."""
    known = Bounds()
    bounds = Bounds(
        finished_s=_DAY_S * _whole("GRADER_JOBS_KEEP_DAYS", int(known.finished_s / _DAY_S), 36_500),
        tenant_bytes=_whole("GRADER_JOBS_TENANT_BYTES", known.tenant_bytes, 1 << 50),
        unfinished_jobs=_whole("GRADER_JOBS_UNFINISHED", known.unfinished_jobs, 1_000_000),
    )
    at_once = _whole("GRADER_JOBS_AT_ONCE", RunnerSettings().jobs_at_once, 1_000)
    return RunnerSettings(jobs_at_once=at_once, bounds=bounds)


def _whole(name: str, default: int, most: int) -> int:
    value = os.environ.get(name)
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 17 and 1 <= int(value) <= most):
        raise InputError(f"{name} is {value!r}; give a whole number from 1 to {most}")
    return int(value)
