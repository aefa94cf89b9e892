"""Every call of the client as steps; what both clients share is here."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict
from urllib.parse import quote

from grader.client.bodies import (
    Compression,
    EncodedSample,
    GivenSamples,
    compressor,
    encode_json,
    encode_samples,
    post,
    with_samples,
)
from grader.client.errors import NotFound, RequestTooLarge
from grader.client.grading import NDJSON, Bounds, Compressor, Grading, Lines, Progress, checked
from grader.client.halving import half_key, halved, joined
from grader.client.models import Job, RewardsResult, SuiteInfo, TaskInfo
from grader.client.retries import Attempts, RetryPolicy, Servers
from grader.client.steps import Emit, Request, Steps, Wait, answer_to, exchange, try_again
from grader.errors import InputError
from grader.limits import Limits
from grader.schema import Verdict

ENDED_STATES = frozenset({"done", "failed"})
_JSON = {"Accept": "application/json"}


class GradeFields(TypedDict, total=False):
    """The fields of ``/v1/grade`` and ``/v1/jobs`` besides suite and samples; what is None has the server's default.

    ``groups``: test groups to run. ``k``: the k of pass@k. ``limits``: what a sample may use. ``profile``: ``full`` or
    ``rewards``. ``fail_fast``: end a sample at its first failing test. ``use_cache``: run identical programs once.
    ``timeout_s``: wall-clock seconds after which a sample that has not been judged is answered as an
    infrastructure error. ``include_flags``: give each verdict flags, which say what its program tried.
    """

    groups: Sequence[str] | None
    k: Sequence[int] | None
    limits: Limits | Mapping[str, Any] | None
    profile: str | None
    fail_fast: bool | None
    use_cache: bool | None
    timeout_s: float | None
    include_flags: bool | None


@dataclass(slots=True)
class Calls:
    """Makes the steps of calls. ``servers`` remembers between calls which servers failed."""

    servers: Servers
    policy: RetryPolicy
    bounds: Bounds
    compress: Compressor | None
    random: random.Random = field(default_factory=random.SystemRandom)

    @classmethod
    def of(
        cls, urls: Sequence[str], policy: RetryPolicy | None, bounds: Bounds | None, compression: Compression
    ) -> Calls:
        """Make them from what a client was given. Raises InputError where that cannot be."""
        return cls(Servers(urls), policy or RetryPolicy(), bounds or Bounds(), compressor(compression))

    def grading(
        self, samples: GivenSamples, suite: str | None, options: GradeFields, progress: Progress | None
    ) -> Grading:
        """Check and encode a batch, before anything is sent."""
        return Grading(
            encode_samples(samples),
            _fields(suite, options),
            self._attempts,
            self.bounds,
            self.compress,
            progress,
        )

    def rewards(self, fields: Mapping[str, Any], key: str | None = None) -> Steps[RewardsResult]:
        """``POST /v1/rewards``; in halves where the server takes no more."""
        given = {name: value for name, value in _plain_limits(fields).items() if value is not None}
        return (yield from self._rewards(given, key or uuid.uuid4().hex))

    def _rewards(self, given: Mapping[str, Any], key: str) -> Steps[RewardsResult]:
        body = encode_json(given, "the request")
        request = post("/v1/rewards", body, key=key, compress=self.compress)
        try:
            answer = yield from exchange(self._attempts(key), request)
        except RequestTooLarge:
            halves = halved(given)
            if halves is None:
                raise
        else:
            return checked(RewardsResult, answer, "the server")
        parts = []
        for number, half in enumerate(halves):
            parts.append((yield from self._rewards(half, half_key(key, number))))
        return joined(parts)

    def submit_job(
        self, samples: GivenSamples, suite: str | None, options: GradeFields, key: str | None
    ) -> Steps[Job]:
        """``POST /v1/jobs``."""
        encoded: list[EncodedSample] = encode_samples(samples)
        key = key or uuid.uuid4().hex
        body = with_samples(_fields(suite, options), encoded)
        answer = yield from exchange(
            self._attempts(key), post("/v1/jobs", body, key=key, compress=self.compress)
        )
        return checked(Job, answer, "the server")

    def job(self, job_id: str) -> Steps[Job]:
        """``GET /v1/jobs/{id}``."""
        answer = yield from exchange(self._attempts(job_id), Request("GET", _job_path(job_id), _JSON))
        return checked(Job, answer, "the server")

    def job_verdicts(self, job_id: str, cursor: int, follow: bool) -> Steps[int]:
        """``GET /v1/jobs/{id}/verdicts`` from a cursor on: emits verdicts, and returns the cursor after the last.

        ``follow``: until the job has ended.
        """
        if cursor < 0:
            raise InputError(f"the cursor is {cursor}; give 0, or what an earlier call ended at")
        attempts = self._attempts(job_id)
        pauses = Pauses()
        while True:
            begin = cursor
            path = f"{_job_path(job_id)}/verdicts?after={cursor}&wait={str(follow).lower()}"
            server, _ = yield from answer_to(attempts, Request("GET", path, {"Accept": NDJSON}))
            lines = Lines(server)
            while (row := (yield from lines.following())) is not None:
                verdict = checked(Verdict, row, server)
                cursor += 1
                attempts.progressed(server)
                yield Emit(verdict)
            if lines.failure is not None:
                yield from try_again(attempts, server, lines.failure)
                continue
            attempts.progressed(server)
            if not follow:
                return cursor
            # A server that is about to stop ends its answer before the job has ended.
            job = yield from self.job(job_id)
            if job.state in ENDED_STATES and cursor >= job.recorded:
                return cursor
            yield Wait(pauses.following(progressed=cursor > begin))

    def wait_job(self, job_id: str, progress: Progress | None) -> Steps[Job]:
        """Ask for a job until it has ended."""
        pauses = Pauses()
        seen = -1
        while True:
            job = yield from self.job(job_id)
            progressed, seen = job.recorded != seen, job.recorded
            if progressed and progress:
                progress(job.recorded, job.samples)
            if job.state in ENDED_STATES:
                return job
            yield Wait(pauses.following(progressed))

    def delete_job(self, job_id: str) -> Steps[None]:
        """``DELETE /v1/jobs/{id}``."""
        attempts = self._attempts(job_id)
        try:
            yield from exchange(attempts, Request("DELETE", _job_path(job_id), _JSON))
        except NotFound:
            if not attempts.failures:
                raise
            # The answer to an earlier try was lost on its way: that one has deleted the job.

    def suites(self) -> Steps[list[SuiteInfo]]:
        """``GET /v1/suites``."""
        answer = yield from self._get("/v1/suites")
        rows = answer.get("suites") if isinstance(answer, dict) else answer
        return [checked(SuiteInfo, row, "the server") for row in rows or ()]

    def tasks(self, suite: str) -> Steps[list[TaskInfo]]:
        """``GET /v1/suites/{name}/tasks``."""
        answer = yield from self._get(f"/v1/suites/{quote(suite, safe='')}/tasks")
        rows = answer.get("tasks") if isinstance(answer, dict) else answer
        return [checked(TaskInfo, row, "the server") for row in rows or ()]

    def _get(self, path: str) -> Steps[Any]:
        return exchange(self._attempts(uuid.uuid4().hex), Request("GET", path, _JSON))

    def _attempts(self, key: str) -> Attempts:
        return Attempts(self.policy, self.servers, key, self.random)


@dataclass(slots=True)
class Pauses:
    """Seconds between two looks at a job: they double as long as nothing happens."""

    shortest_s: float = 0.2
    longest_s: float = 5.0
    _next_s: float = 0.0

    def following(self, progressed: bool) -> float:
        """Return the next pause."""
        self._next_s = (
            self.shortest_s if progressed else min(self.longest_s, 2 * self._next_s or self.shortest_s)
        )
        return self._next_s


def _fields(suite: str | None, options: GradeFields) -> dict[str, Any]:
    """Return the request's fields. Raises InputError for an option that there is not."""
    unknown = sorted(options.keys() - GradeFields.__annotations__.keys())
    if unknown:
        raise InputError(
            f"there is no option {unknown[0]!r}; there are {', '.join(GradeFields.__annotations__)}"
        )
    fields = _plain_limits({"suite": suite, **options})
    for name in ("groups", "k"):
        if fields.get(name) is not None:
            fields[name] = list(fields[name])
    return fields


def _plain_limits(fields: Mapping[str, Any]) -> dict[str, Any]:
    limits = fields.get("limits")
    if limits is None:
        return dict(fields)
    given = asdict(limits) if isinstance(limits, Limits) else limits
    return {**fields, "limits": {name: value for name, value in given.items() if value is not None}}


def _job_path(job_id: str) -> str:
    if not job_id:
        raise InputError("the job's id is empty; give the id of the job that submit_job returned")
    return f"/v1/jobs/{quote(job_id, safe='')}"
