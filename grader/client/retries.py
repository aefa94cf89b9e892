"""When to try again, where, and how long to wait before: decisions without I/O, for one request at a time.

Waiting is exponential back-off with full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015): a random time from 0 to a bound that doubles with each round. A server's
``Retry-After`` (RFC 9110, section 10.2.3) is waited for in full, up to a bound, and the jitter comes on top, so that
clients that were sent away together do not come back together.
"""

from __future__ import annotations

import email.utils
import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

from grader.errors import InputError

# 502 is what a proxy says when it lost the connection to the server behind it.
RETRIED_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long a request is tried. All times are wall-clock seconds.

    ``attempts`` and ``total_s`` bound the tries in a row that brought nothing new: of a stream that breaks,
    each new verdict starts the count afresh. ``base_s`` bounds the wait after the first failure, ``cap_s`` after any.
    ``retry_after_cap_s`` bounds what a server can make us wait. A server that failed is put aside for ``aside_s``
    where there are others.
    """

    attempts: int = 8
    total_s: float = 300.0
    base_s: float = 0.25
    cap_s: float = 20.0
    retry_after_cap_s: float = 60.0
    aside_s: float = 30.0

    def __post_init__(self) -> None:
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if not value >= (1 if name == "attempts" else 0):
                raise InputError(
                    f"retry policy: {name} is {value!r}; give a number that is not below 0 (attempts: 1)"
                )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has to be tried again: ``what`` for people; ``retry_after_s`` if the server named a time."""

    what: str
    status: int | None = None
    retry_after_s: float | None = None


@dataclass(slots=True)
class Servers:
    """The servers in rotation, and which of them are put aside until when; one object a client.

    A key goes to the same server first, by rendezvous hashing (Thaler and Ravishankar, 1998): a request that is
    repeated finds the answer that this server may have kept for it.
    """

    urls: Sequence[str]
    now: Callable[[], float] = time.monotonic
    _aside_until: dict[str, float] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)

    def choose(self, key: str) -> str:
        """Return the first server for ``key`` that is not put aside, or the one that is back the soonest."""
        now = self.now()
        ranked = sorted(self.urls, key=lambda url: hashlib.sha256(f"{key} {url}".encode()).digest())
        return min(ranked, key=lambda url: max(0.0, self._aside_until.get(url, now) - now))

    def wait_s(self, url: str) -> float:
        """Seconds until the server wants to be asked again, by its own ``Retry-After``."""
        return max(0.0, self._not_before.get(url, 0.0) - self.now())

    def failed(self, url: str, aside_s: float, retry_after_s: float) -> None:
        """Put a server aside, and remember when it wants to be asked again."""
        now = self.now()
        self._not_before[url] = now + retry_after_s
        self._aside_until[url] = now + max(aside_s, retry_after_s)

    def answered(self, url: str) -> None:
        """Take a server back: it answered."""
        self._aside_until.pop(url, None)
        self._not_before.pop(url, None)


@dataclass(slots=True)
class Attempts:
    """The tries of one request: counts what failed in a row, and says what to do next."""

    policy: RetryPolicy
    servers: Servers
    key: str
    random: random.Random
    _failures: int = 0
    _first_failure: float = 0.0
    _tried: set[str] = field(default_factory=set)

    @property
    def failures(self) -> int:
        """How many tries in a row brought nothing."""
        return self._failures

    def server(self) -> str:
        """Return the server to ask now."""
        return self.servers.choose(self.key)

    def progressed(self, url: str) -> None:
        """Start the count afresh: the server answered with something new."""
        self._failures = 0
        self._tried.clear()
        self.servers.answered(url)

    def failed(self, url: str, failure: Failure) -> float | None:
        """Return the seconds to wait before the next try, or None: the policy allows no other."""
        now = self.servers.now()
        if self._failures == 0:
            self._first_failure = now
        self._failures += 1
        self._tried.add(url)
        asked = min(failure.retry_after_s or 0.0, self.policy.retry_after_cap_s)
        self.servers.failed(url, self.policy.aside_s, asked)
        following = self.server()
        wait = self.servers.wait_s(following)
        # Another server may be well: it is asked at once. Only a whole round of failures is waited out.
        if following in self._tried:
            rounds = (self._failures - 1) // len(self.servers.urls)
            wait += self.random.uniform(0, min(self.policy.cap_s, self.policy.base_s * 2 ** min(rounds, 32)))
        spent = now + wait - self._first_failure
        return None if self._failures >= self.policy.attempts or spent > self.policy.total_s else wait


def retry_after_s(value: str | None, wall_now: float) -> float | None:
    """Read a ``Retry-After`` header: seconds, or a date held against ``wall_now`` (seconds since the epoch).

    Returns None where there is none that can be read.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - wall_now)
    except (ValueError, OverflowError, OSError):
        return None
