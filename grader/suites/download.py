"""Downloading a pinned file: whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from grader.errors import SuiteError

_TIMEOUT_S = 30.0  # of silence, not of the whole download
_CHUNK = 1 << 16
_LARGEST = 1 << 28


def download(url: str, target: Path, sha256: str) -> None:
    """Download a file to ``target``, which appears only when all of it has come and has the right hash.

    Raises:
        SuiteError: what came is broken off, too large, or not the file with that hash.
        OSError: the network or the file system refused.

    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            digest = hashlib.sha256()
            for chunk in _chunks(url):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise SuiteError(f"what came has the sha256 {digest.hexdigest()}, not {sha256}")
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _chunks(url: str) -> Iterator[bytes]:
    if not url.startswith("https://"):
        raise SuiteError("only https addresses are downloaded")
    size = 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310 - the scheme is checked above
            while chunk := response.read(_CHUNK):
                size += len(chunk)
                if size > _LARGEST:
                    raise SuiteError(f"what came is larger than {_LARGEST} bytes")
                yield chunk
    except HTTPException as error:
        raise SuiteError(f"the connection broke off: {error!r}") from error
