"""The steps of grading a batch: in parts that the server takes, each asked for until every verdict is there."""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from grader.client.bodies import EncodedSample, post, with_samples
from grader.client.errors import RequestTooLarge, ServerFailed
from grader.client.retries import RETRIED_STATUSES, Attempts, Failure
from grader.client.steps import (
    Emit,
    Lost,
    Read,
    Request,
    Steps,
    answer_to,
    described,
    error_for,
    try_again,
)
from grader.limits import MIB, Limits
from grader.schema import Summary, Verdict
from grader.scoring.summary import Tally, summarize

NDJSON = "application/x-ndjson"
MAX_LINE_BYTES = 64 * MIB

# What a summary is made of: verdicts as a whole would be kept for nothing.
_COUNTED = ("task_id", "status", "groups", "cpu_s", "cached")

Progress = Callable[[int, int], None]
Compressor = tuple[str, Callable[[bytes], bytes]]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one request may hold: samples, and bytes of JSON before compression.

    The defaults are below what a server takes by default (100,000 samples, 64 MiB). One that takes less says so
    with 413, and is sent less.
    """

    samples: int = 20_000
    bytes: int = 32 * MIB


@dataclass(slots=True)
class _Stream:
    """What one answer brought: ``summary`` if it came to its end, else ``failure``."""

    fresh: int = 0
    summary: Summary | None = None
    failure: Failure | None = None


@dataclass(slots=True)
class Lines:
    """Reads an answer's objects, one a line. ``failure`` says, at the end, whether it was cut off."""

    server: str
    failure: Failure | None = None
    _rest: bytes = b""
    _complete: deque[bytes] = field(default_factory=deque)
    _ended: bool = False

    def following(self) -> Steps[dict[str, Any] | None]:
        """Return the next object, or None: there is no other.

        Raises what an error means that the server reports in a line of its own: after the first byte of an answer there
        is no other place for it.
        """
        while True:
            while self._complete:
                line = self._complete.popleft()
                if line.strip():
                    return self._parsed(line)
            if self._ended:
                return None
            piece = yield Read()
            if isinstance(piece, Lost):
                self.failure, self._ended = Failure(piece.what), True
            elif piece:
                *lines, self._rest = (self._rest + piece).split(b"\n")
                self._complete.extend(lines)
                if len(self._rest) > MAX_LINE_BYTES:
                    raise ServerFailed(f"{self.server} sent a line of more than {MAX_LINE_BYTES // MIB} MiB")
            else:
                # What has no line's end is a line too, or the beginning of one, which does not parse.
                self._complete.append(self._rest)
                self._ended = True

    def _parsed(self, line: bytes) -> dict[str, Any] | None:
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            self.failure = Failure("the answer was cut off in the middle of a line")
        elif isinstance(status := row.get("status"), int):  # a verdict's status is a word
            what = f"{self.server} broke off with {status}: {described(row)}"
            if status not in RETRIED_STATUSES:
                raise error_for(status, what, row)
            asked = row.get("retry_after_s")
            self.failure = Failure(what, status, float(asked) if isinstance(asked, int | float) else None)
        if isinstance(row, dict) and self.failure is None:
            return row
        self._complete.clear()
        self._ended = True
        return None


@dataclass(slots=True)
class Grading:
    """One batch being graded. ``steps()`` emits each verdict once and returns the summary of all of them."""

    samples: Sequence[EncodedSample]
    options: Mapping[str, Any]
    attempts: Callable[[str], Attempts]
    bounds: Bounds
    compress: Compressor | None
    progress: Progress | None = None
    _unseen: dict[str, EncodedSample] = field(default_factory=dict)
    _counted: list[dict[str, Any]] = field(default_factory=list)
    _summary: Summary | None = None
    _answers: int = 0

    def steps(self) -> Steps[Summary]:
        """Grade. Raises what ``steps.answer_to`` raises; RequestTooLarge only if one sample alone is too large."""
        begin = time.monotonic()
        self._unseen = {sample.sample_id: sample for sample in self.samples}
        if self.progress:
            self.progress(0, len(self.samples))
        remaining, bounds = list(self.samples), self.bounds
        while remaining:
            part = _first_part(remaining, bounds)
            try:
                yield from self._grade(part)
            except RequestTooLarge:
                if len(part) == 1:
                    raise
                bounds = Bounds(samples=bounds.samples, bytes=sum(len(sample.json) for sample in part) // 2)
                continue
            remaining = remaining[len(part) :]
        return self._whole_summary(time.monotonic() - begin)

    def _grade(self, part: Sequence[EncodedSample]) -> Steps[None]:
        """Ask for the verdicts on ``part``, and again for those that a broken answer did not bring."""
        key = uuid.uuid4().hex
        attempts, request = self.attempts(key), self._request(part, key)
        while True:
            server, head = yield from answer_to(attempts, request)
            media_type = head.headers.get("content-type", "").partition(";")[0].strip()
            if media_type != NDJSON:
                raise ServerFailed(
                    f"{server}{request.path} answered with {media_type or 'no media type'} where {NDJSON} was asked "
                    "for; is this a grader service?"
                )
            stream = yield from self._read(server)
            left = [sample for sample in part if sample.sample_id in self._unseen]
            if stream.fresh:
                attempts.progressed(server)
                self._answers += 1
            if not left and (stream.summary or self._summary):
                attempts.progressed(server)
                self._summary = stream.summary or self._summary
                return
            failure = stream.failure or Failure(f"the answer ended with {len(left)} verdicts missing")
            yield from try_again(attempts, server, failure)
            if left and stream.fresh:
                # Another body is another request; one that brought nothing is repeated under its own key.
                attempts.key = uuid.uuid4().hex
                request = self._request(left, attempts.key)

    def _request(self, part: Sequence[EncodedSample], key: str) -> Request:
        body = with_samples(self.options, part)
        return post("/v1/grade", body, key=key, compress=self.compress, accept=NDJSON)

    def _read(self, server: str) -> Steps[_Stream]:
        stream, lines = _Stream(), Lines(server)
        while (row := (yield from lines.following())) is not None:
            if "task_id" in row:
                yield from self._take_verdict(row, stream, server)
            elif "pass_at_k" in row or "summary" in row:
                stream.summary = checked(Summary, row.get("summary", row), server)
            else:
                raise ServerFailed(f"{server}/v1/grade sent a line that is no verdict, summary or problem")
        if stream.summary is None:
            stream.failure = lines.failure or Failure("the answer was cut off before its end")
        return stream

    def _take_verdict(self, row: dict[str, Any], stream: _Stream, server: str) -> Steps[None]:
        verdict = checked(Verdict, row, server)
        if self._unseen.pop(verdict.sample_id, None) is None:
            return  # an answer that is repeated brings its first verdicts again
        stream.fresh += 1
        self._counted.append({name: row.get(name, False) for name in _COUNTED})
        if self.progress:
            self.progress(len(self._counted), len(self.samples))
        yield Emit(verdict)

    def _whole_summary(self, wall_s: float) -> Summary:
        """Return the server's summary, or one over all answers where the verdicts came in several."""
        assert self._summary is not None  # no part ends without one
        if self._answers <= 1:
            return self._summary
        tally = Tally(tuple(self._summary.pass_at_k))
        for verdict in self._counted:
            tally.add(verdict)
        given = self._summary.limits
        ks = next(iter(self._summary.pass_at_k.values()), {})
        summary = summarize(
            tally,
            suite=self._summary.suite,
            ks=[int(k) for k in ks],
            wall_s=wall_s,
            limits=Limits(**{one.name: given[one.name] for one in fields(Limits) if one.name in given}),
            sandbox=self._summary.sandbox.model_dump(),
            engine=self._summary.engine,
            workers=self._summary.workers,
        )
        return summary.model_copy(update={"grader_version": self._summary.grader_version})


def checked(model: type[Model], row: Any, server: str) -> Model:
    """Make a model of a part of an answer, leaving out fields that this version does not know."""
    known = row
    if isinstance(row, dict) and model.model_config.get("extra") == "forbid":
        known = {name: row[name] for name in model.model_fields if name in row}
    try:
        return model.model_validate(known)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ServerFailed(
            f"{server} answered with a {model.__name__} that is not in the contract: {place}: {first['msg']}; "
            "do the versions of client and server differ?"
        ) from None


def _first_part(samples: Sequence[EncodedSample], bounds: Bounds) -> Sequence[EncodedSample]:
    """Return as many of the first samples as one request may hold; one at least."""
    size = 0
    for count, sample in enumerate(samples):
        size += len(sample.json)
        if count == bounds.samples or (count and size > bounds.bytes):
            return samples[:count]
    return samples
