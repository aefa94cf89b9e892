"""The file of API keys: one JSON object a line, with the hash of a key and what its owner may do.

::

    {"tenant": "trainers", "sha256": "9f86...", "weight": 2, "samples_per_s": 5000}
    {"tenant": "guests", "sha256": "60303...", "requests_per_s": 1, "ceilings": {"memory_bytes": 268435456}}

The file never has a key itself, only its sha256. A plain hash is enough, since keys are 256 random bits: there is
nothing to guess, so nothing to slow down. Empty lines and lines that begin with ``#`` are passed over.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grader.dispatch.events import MIN_WEIGHT
from grader.errors import InputError
from grader.limits import Limits
from grader.server.models import LimitsIn

KEY_PREFIX = "grd_"
_MAX_FILE_BYTES = 16 << 20
# Its inverse, the seconds that Retry-After says, is a number of seconds still.
_MIN_RATE = 1e-6


class KeyLine(BaseModel):
    """One line of the file. ``weight`` is the tenant's share of the workers against other tenants'. ``ceilings`` lower
    the limits that requests ask for. A key that is ``disabled`` is known and refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    tenant: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    weight: float = Field(default=1.0, ge=MIN_WEIGHT, le=1000)
    requests_per_s: float | None = Field(default=None, ge=_MIN_RATE)
    samples_per_s: float | None = Field(default=None, ge=_MIN_RATE)
    ceilings: LimitsIn | None = None
    disabled: bool = False

    def limits_ceiling(self) -> Limits | None:
        """Return the ceilings as limits that bound what is named, and nothing else."""
        return None if self.ceilings is None else self.ceilings.ceilings()


def key_hash(key: str) -> str:
    """Return the sha256 of a key, as the file has it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def read_keys(path: Path) -> tuple[KeyLine, ...]:
    """Read the whole file. Raises InputError, with file and line, at the first thing that is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the file of API keys {path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise InputError(f"the file of API keys {path} is larger than {_MAX_FILE_BYTES >> 20} MiB")
    keys: dict[str, KeyLine] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            key = KeyLine.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise InputError(f"{path}, line {number}: {where}: {first['msg']}") from error
        if key.sha256 in keys:
            raise InputError(f"{path}, line {number}: this key has a line already")
        keys[key.sha256] = key
    return tuple(keys.values())


def add_key(path: Path, tenant: str, **settings: Any) -> str:
    """Make a key for a tenant, append its line to the file, and return the key, which is stored nowhere.

    Raises InputError where the tenant's name or a setting is not one that can be, or the file cannot be written.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        line = KeyLine(tenant=tenant, sha256=key_hash(key), **given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if path.exists():
        read_keys(path)
    text = line.model_dump_json(exclude_defaults=True) + "\n"
    try:
        # One write of one line: a service that reads the file at the same time sees all of it or nothing.
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            ends_well = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
            os.write(descriptor, (text if ends_well else "\n" + text).encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"the file of API keys {path} cannot be written: {error.strerror}") from error
    return key
