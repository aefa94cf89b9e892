"""What the store takes and gives, as plain data. Times are seconds since the epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

JobState = Literal["queued", "running", "done", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is kept, and how long.

    ``finished_s``: seconds that a finished job is kept. ``finished_jobs``: finished jobs of one tenant that are kept.
    ``tenant_bytes``: what one tenant's jobs may take; finished ones make room, the oldest first, and a new one is
    refused where the unfinished alone take that much. ``unfinished_jobs``: of one tenant. ``key_s``: seconds that an
    idempotency key is known. ``answer_bytes``: what the kept answers of all keys may take, with their rows.
    """

    finished_s: float = 7 * 86_400.0
    finished_jobs: int = 10_000
    tenant_bytes: int = 8 << 30
    unfinished_jobs: int = 1_000
    key_s: float = 86_400.0
    answer_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be accepted. ``owner`` is JSON that only the runner reads; ``request`` is the body as it came.

    ``key`` and ``fingerprint``: the idempotency key, and a digest of the request it belongs to.
    """

    tenant: str
    owner: str
    suite: str
    samples: int
    request: bytes
    key: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it is now. ``statuses`` counts its recorded verdicts; ``summary`` is JSON, there when it is done.

    ``failure``: why the job has failed, or, while it is unfinished, what it waits for.
    """

    id: str
    tenant: str
    owner: str
    suite: str
    state: JobState
    samples: int
    recorded: int
    statuses: Mapping[str, int]
    created_at: float
    started_at: float | None
    finished_at: float | None
    summary: str | None
    failure: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """Some of a job's verdicts as NDJSON, and what was true of the job in the same state of the database.

    ``count``: how many verdicts they are. ``has_more``: whether others are recorded after them.
    """

    text: bytes
    count: int
    has_more: bool
    is_finished: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One verdict to be recorded: the sample's place in the request, its status, and the verdict as JSON."""

    position: int
    status: str
    line: str


@dataclass(slots=True)
class Lease:
    """The right of ``owner`` to work on a job, as long as it is renewed.

    ``recorded`` and ``statuses`` are what the database has; only the holder changes them. ``lost`` is set when
    somebody else has the job, when it is gone, or when what the database has is no longer known here; ``refused`` as
    well when the database does not take its verdicts.

    ``accepted_at`` and ``begun_at``: when the job was accepted and first begun, in seconds of this process's monotonic
    clock. How long that is past is taken from the database's clock once, at the claim: a clock that is set while
    the job runs changes neither its deadline nor its duration.
    """

    job: Job
    owner: str
    recorded: int
    statuses: dict[str, int] = field(default_factory=dict)
    lost: bool = False
    refused: bool = False
    accepted_at: float = field(default_factory=time.monotonic)
    begun_at: float = field(default_factory=time.monotonic)
