"""What the client does, without doing it: steps that ask for I/O and are sent its outcome.

A call is a generator. It yields a ``Send``, ``Read``, ``Wait`` or ``Emit``, is sent what came of it, and
returns the call's result. The synchronous and the asynchronous client only carry these out, so every
decision is made, and tested, once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from grader.client.errors import (
    AccessRefused,
    NotFound,
    RequestRefused,
    RequestTooLarge,
    ServerFailed,
    ServerUnavailable,
)
from grader.client.retries import RETRIED_STATUSES, Attempts, Failure, retry_after_s
from grader.errors import GraderError
from grader.schema import Verdict

T = TypeVar("T")

_REFUSALS = {401: AccessRefused, 403: AccessRefused, 404: NotFound, 413: RequestTooLarge}
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, but for the server that gets it. ``body`` is sent as it is."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request to a server, dropping what is left of the answer before. Outcome: a Head, or Lost."""

    server: str
    request: Request


@dataclass(frozen=True, slots=True)
class Read:
    """Read a piece of the answer's body, decompressed. Outcome: bytes, empty at its end, or Lost."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for so many seconds. Outcome: None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit:
    """Give a verdict to whoever made the call. Outcome: None."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer. ``headers`` have names in lower case."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection failed or was silent for too long; ``what`` says how."""

    what: str


Step = Send | Read | Wait | Emit
Steps = Generator[Step, Any, T]


def answer_to(attempts: Attempts, request: Request) -> Steps[tuple[str, Head]]:
    """Send a request until a server accepts it; returns that server and the head of its answer.

    Raises RequestRefused for an answer with 4xx, ServerFailed for one that is no success either, and
    ServerUnavailable when the retries are used up.
    """
    while True:
        server = attempts.server()
        head = yield Send(server, request)
        if isinstance(head, Lost):
            yield from try_again(attempts, server, Failure(head.what))
            continue
        if 200 <= head.status < 300:
            return server, head
        body = yield from read_body()
        problem = _problem(body if isinstance(body, bytes) else b"")
        what = _described(server, request, head, problem)
        if head.status in RETRIED_STATUSES:
            asked = retry_after_s(head.headers.get("retry-after"), time.time())
            yield from try_again(attempts, server, Failure(what, head.status, asked))
        else:
            raise error_for(head.status, what, problem)


def exchange(attempts: Attempts, request: Request) -> Steps[Any]:
    """Send a request and return what the JSON in its answer says (None for an empty answer)."""
    while True:
        server, _ = yield from answer_to(attempts, request)
        body = yield from read_body()
        if isinstance(body, Lost):
            yield from try_again(attempts, server, Failure(body.what))
            continue
        attempts.progressed(server)
        if not body:
            return None
        try:
            return json.loads(body)
        except ValueError:
            raise ServerFailed(
                f"{server}{request.path} answered with something that is not JSON: {_shown(body)}; "
                "is this a grader service?"
            ) from None


def read_body() -> Steps[bytes | Lost]:
    """Read the whole body of the answer that is coming in."""
    pieces: list[bytes] = []
    while True:
        piece = yield Read()
        if isinstance(piece, Lost):
            return piece
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def try_again(attempts: Attempts, server: str, failure: Failure) -> Steps[None]:
    """Wait as long as the policy says, or raise ServerUnavailable where it allows no other try."""
    wait_s = attempts.failed(server, failure)
    if wait_s is None:
        tries = f"after {attempts.failures} attempts" if attempts.failures > 1 else "after 1 attempt"
        raise ServerUnavailable(
            f"no server took the request {tries}; the last one, {server}: {failure.what}. "
            "Check that the service runs there and has room, or give the client other URLs or a longer RetryPolicy",
            failure.status,
        )
    if wait_s > 0:
        yield Wait(wait_s)


def error_for(status: int, what: str, problem: Mapping[str, Any]) -> GraderError:
    """Make the error that stands for an answer that is neither a success nor to be retried."""
    if 400 <= status < 500:
        return _REFUSALS.get(status, RequestRefused)(what, status, problem)
    return ServerFailed(what)


def described(problem: Mapping[str, Any]) -> str:
    """Put the text of problem details (RFC 9457) in one line; "" where there is none."""
    texts = [str(problem.get("title") or "")]
    errors = problem.get("errors")
    if isinstance(errors, list) and errors:
        texts += [_field_error(error) for error in errors]
    else:
        texts.append(str(problem.get("detail") or ""))
    return _shown(": ".join(text for text in dict.fromkeys(texts) if text), 10 * _SHOWN_CHARACTERS)


def _field_error(error: Any) -> str:
    if isinstance(error, Mapping) and {"place", "message"} <= error.keys():
        return f"{error['place']}: {error['message']}"
    return str(error)


def _described(server: str, request: Request, head: Head, problem: Mapping[str, Any]) -> str:
    text = described(problem)
    location = head.headers.get("location")
    if location and 300 <= head.status < 400:
        text = f"it points to {_shown(location)}; give the client that server's URL"
    return f"{request.method} {server}{request.path} answered {head.status}" + (f": {text}" if text else "")


def _problem(body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return {"detail": _shown(body)} if body.strip() else {}
    return problem if isinstance(problem, dict) else {"detail": _shown(body)}


def _shown(text: str | bytes, most: int = _SHOWN_CHARACTERS) -> str:
    if isinstance(text, bytes):
        text = text[: 4 * most].decode("utf-8", "replace")
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."
