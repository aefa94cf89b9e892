"""What the service is started with."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from grader.errors import InputError
from grader.limits import MIB, Limits
from grader.rewards import parse, spec_of_text
from grader.server.models import LimitsIn

KEYS_FILE_VARIABLE = "GRADER_API_KEYS_FILE"
REWARD_VARIABLE = "GRADER_REWARD"
CEILINGS_VARIABLE = "GRADER_CEILINGS"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What the service is started with. Times are wall-clock seconds.

    ``max_body_bytes`` bounds a request's body as it is sent, and again when it is decompressed. A connection is closed
    that sends no whole request head for ``header_s``, no piece of a body for ``body_idle_s`` or no whole body for
    ``body_s``, or that reads nothing for ``write_s``; an idle one after ``keep_alive_s``. ``suites`` are
    loaded at the start: names, and paths of files to be served beside the catalogue's suites. ``reward``: the reward of
    requests that name none, as ``grader.rewards.parse`` takes it. ``ceilings`` lower the limits that any request asks
    for; a key's own come on top.

    Raises InputError where settings contradict each other, and where the service could be reached from other machines
    without a key and ``allow_anonymous`` does not say that this is meant.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    engine: str = "local"
    api_keys_file: Path | None = None
    allow_anonymous: bool = False
    suites: tuple[str, ...] = ()
    reward: Any = None
    ceilings: Limits | None = None
    max_body_bytes: int = 64 * MIB
    max_connections: int = 16_384
    header_s: float = 10.0
    body_idle_s: float = 10.0
    body_s: float = 300.0
    write_s: float = 60.0
    keep_alive_s: float = 75.0

    def __post_init__(self) -> None:
        if self.api_keys_file is not None and self.allow_anonymous:
            raise InputError("--api-keys-file and --allow-anonymous contradict each other; give one of them")
        if self.api_keys_file is None and not self.allow_anonymous and not is_loopback(self.host):
            raise InputError(
                f"--host {self.host} can be reached from other machines, and there are no API keys: anyone could run "
                f"programs here. Give --api-keys-file (or {KEYS_FILE_VARIABLE}; grader keys add makes keys), or "
                "--allow-anonymous if something in front of this checks who asks"
            )
        if self.max_body_bytes < 1024:
            raise InputError(f"--max-body-bytes is {self.max_body_bytes}; give at least 1024")
        parse(self.reward, "--reward")


def reward_of(given: str | None) -> Any:
    """Return the reward that ``--reward`` names, or else ``GRADER_REWARD``: a name, or the JSON of an object."""
    text = given or os.environ.get(REWARD_VARIABLE) or None
    try:
        return None if text is None else spec_of_text(text)
    except InputError as error:
        raise InputError(f"--reward (or {REWARD_VARIABLE}) {error}") from None


def ceilings_of(given: str | None) -> Limits | None:
    """Return the ceilings that ``--ceilings`` has, or else ``GRADER_CEILINGS``: the JSON of an object of limits."""
    text = given or os.environ.get(CEILINGS_VARIABLE) or None
    if text is None:
        return None
    try:
        return LimitsIn.model_validate_json(text).ceilings()
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"]))
        raise InputError(
            f"--ceilings (or {CEILINGS_VARIABLE}) {place}: {wrong['msg']}; give JSON such as "
            '{"memory_bytes": 2147483648}'
        ) from None


def api_keys_file() -> Path | None:
    """Return the file that ``GRADER_API_KEYS_FILE`` names, or None."""
    value = os.environ.get(KEYS_FILE_VARIABLE)
    return Path(value) if value else None


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone. A name other than localhost cannot be
    told without a resolver that others may control, and counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
