"""Who asks: API keys, their tenants and rates."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import structlog
from fastapi import Depends, Request

from grader.errors import GraderError, InputError
from grader.server.batches import Owner
from grader.server.keys import KeyLine, key_hash, read_keys
from grader.server.problems import Refused
from grader.server.service import service_of

_log = structlog.get_logger("grader.server")

_LOOK_EVERY_S = 1.0
_CHALLENGE = {"www-authenticate": 'Bearer realm="grader"'}


@dataclass(slots=True)
class TokenBucket:
    """Lets through ``rate`` a second, and at once what a second lets through.

    More than that in one piece is let through when the bucket is full, and paid off afterwards, so that a batch may be
    larger than the rate.
    """

    rate: float
    level: float = field(init=False)
    at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.level = self.burst

    @property
    def burst(self) -> float:
        """What can go through at once."""
        return max(1.0, self.rate)

    def take(self, amount: float, now: float) -> float:
        """Take ``amount`` and return 0, or take nothing and return the seconds after which it can be had."""
        self.level = min(self.burst, self.level + max(0.0, now - self.at) * self.rate)
        self.at = now
        missing = min(amount, self.burst) - self.level
        if missing > 0:
            return missing / self.rate
        self.level -= amount
        return 0.0

    def give_back(self, amount: float) -> None:
        """Have what was taken not count after all."""
        self.level = min(self.burst, self.level + amount)


@dataclass(slots=True)
class Gate:
    """What one key may still do: its rates' buckets."""

    line: KeyLine
    requests: TokenBucket | None = None
    samples: TokenBucket | None = None

    def __post_init__(self) -> None:
        if self.line.requests_per_s is not None:
            self.requests = TokenBucket(self.line.requests_per_s)
        if self.line.samples_per_s is not None:
            self.samples = TokenBucket(self.line.samples_per_s)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    owner: Owner
    gate: Gate | None = None

    def take_samples(self, count: int) -> None:
        """Count samples against the key's rate. Raises Refused (429) where they are too many for now."""
        bucket = self._samples_bucket
        if bucket is not None:
            _take(bucket, count, "samples")

    def give_back(self, count: int) -> None:
        """Have samples that were taken not count after all: they were refused, and none of them was run."""
        bucket = self._samples_bucket
        if bucket is not None:
            bucket.give_back(count)

    @contextmanager
    def taking_samples(self, count: int) -> Iterator[None]:
        """Do as :meth:`take_samples` does; what is refused in the context, or finds no room, does not count.

        They are taken before, so that no other request can have the same allowance meanwhile.
        """
        self.take_samples(count)
        try:
            yield
        except (Refused, GraderError):
            self.give_back(count)
            raise

    @property
    def _samples_bucket(self) -> TokenBucket | None:
        return self.gate.samples if self.gate else None


class KeyRing:
    """The keys of a file, read again when the file changes: looked at once a second at most, when somebody asks.

    A changed file that cannot be read or has a mistake in it leaves the keys as they were; the log says so.
    Raises InputError where the file is wrong at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._gates: dict[bytes, Gate] = {}
        self._looked_at = time.monotonic()
        self._stamp = self._file_stamp()
        self._load()

    @property
    def tenants(self) -> frozenset[str]:
        """The tenants that have keys."""
        return frozenset(gate.line.tenant for gate in self._gates.values())

    def caller(self, key: str) -> Caller:
        """Return who has this key. Raises Refused: 401 for an unknown key, 403 for a disabled one, 429."""
        self._look()
        presented = key_hash(key).encode()
        found = None
        for known, gate in self._gates.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, presented):
                found = gate
        if found is None:
            raise Refused("this API key is not known here", status=401, headers=_CHALLENGE)
        if found.line.disabled:
            raise Refused(f"this API key of {found.line.tenant} is disabled", status=403)
        if found.requests is not None:
            _take(found.requests, 1, "requests")
        line = found.line
        return Caller(Owner(tenant=line.tenant, weight=line.weight, ceilings=line.limits_ceiling()), found)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._load()
        except InputError as error:
            _log.error("api_keys_not_reloaded", error=str(error))
        else:
            _log.info("api_keys_reloaded", keys=len(self._gates))

    def _load(self) -> None:
        lines = {line.sha256.encode(): line for line in read_keys(self._path)}
        kept = {known: gate for known, gate in self._gates.items() if lines.get(known) == gate.line}
        self._gates = {known: kept.get(known) or Gate(line) for known, line in lines.items()}

    def _file_stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _take(bucket: TokenBucket, amount: float, what: str) -> None:
    wait_s = bucket.take(amount, time.monotonic())
    if wait_s > 0:
        raise Refused(
            f"this API key may send {bucket.rate:g} {what} a second; wait as Retry-After says",
            status=429,
            title="Rate exceeded",
            retry_after_s=wait_s,
        )


def key_of(request: Request) -> str | None:
    """Return the key that a request has, in ``X-API-Key`` or ``Authorization``: ``Bearer``, or ``Basic``'s password."""
    found = request.headers.get("x-api-key")
    if found:
        return found
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip() or None
    return _password(given) if scheme.lower() == "basic" else None


def _password(given: str) -> str | None:
    """The password of what RFC 7617 has after ``Basic``."""
    try:
        _, _, password = base64.b64decode(given.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return password.decode("utf-8", "replace") or None


async def caller_of(request: Request) -> Caller:
    """Return who sent a request: the dependency of every route that is not open to all.

    Routes that grade call it themselves, and ``openapi.document`` describes the ways to send a key: what FastAPI does
    for a dependency and a header costs a request of one sample a seventh of the service's time. Raises Refused with
    401, 403 or 429.
    """
    service = service_of(request)
    keys, key = service.keys, key_of(request)
    if keys is not None and key is None:
        # Browsers are not asked for Basic: they would send the key along with requests of other sites' pages.
        said = "an API key is needed: send Authorization: Bearer <key>, X-API-Key, or http://any:<key>@ in the URL"
        raise Refused(said, status=401, headers=_CHALLENGE)
    caller = Caller(Owner()) if keys is None or key is None else keys.caller(key)
    request.state.tenant = caller.owner.tenant
    ceilings = service.settings.ceilings
    if ceilings is None:
        return caller
    own = caller.owner.ceilings
    return replace(caller, owner=replace(caller.owner, ceilings=own.within(ceilings) if own else ceilings))


AnyCaller = Annotated[Caller, Depends(caller_of)]
