"""Refusals and failures as RFC 9457 problem details: what happened, where, and what to do; never a trace or a path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

import pydantic_core

from grader.errors import GraderError, InfrastructureError, InputError, OverloadedError

MEDIA_TYPE = "application/problem+json"
_DRAIN_RETRY_AFTER_S = 5.0


class FieldError(NamedTuple):
    """What is wrong at one place of a request, e.g. at ``samples[3].task_id``."""

    place: str
    message: str


class Refused(InputError):
    """A request that is refused: its ``status``, and what is wrong with it.

    Either ``detail`` with an optional ``place``, or a list of ``errors``. ``title`` is a few words for this kind of
    problem, by default the status's own. ``retry_after_s``: wall-clock seconds after which the same request may do.
    """

    def __init__(
        self,
        detail: str = "",
        *,
        status: int = 422,
        place: str | None = None,
        errors: Sequence[FieldError] = (),
        title: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.errors = tuple(errors) or (() if place is None else (FieldError(place, detail),))
        self.detail = (
            "; ".join(f"{error.place or 'the body'}: {error.message}" for error in self.errors[:3]) or detail
        )
        if len(self.errors) > 3:
            self.detail += f"; and {len(self.errors) - 3} more"
        self.status = status
        self.title = title
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        super().__init__(self.detail)


def draining() -> Refused:
    """Return the refusal of new work by a service that is about to stop."""
    said = "the server is about to stop and takes no new work; send it to another, or again later"
    return Refused(
        said,
        status=503,
        title="Draining",
        retry_after_s=_DRAIN_RETRY_AFTER_S,
        headers={"connection": "close"},
    )


class Problem(NamedTuple):
    """A problem as it is sent."""

    status: int
    headers: dict[str, str]
    body: bytes


def problem(
    status: int,
    detail: str,
    *,
    title: str | None = None,
    request_id: str | None = None,
    errors: Sequence[FieldError] = (),
    retry_after_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Problem:
    """Make a problem. ``type`` is a relative reference, ``/problems/<title in kebab case>``."""
    title = title or _phrase(status)
    fields: dict[str, object] = {
        "type": "/problems/" + title.lower().replace(" ", "-"),
        "title": title,
        "status": status,
        "detail": detail,
    }
    sent = {"content-type": MEDIA_TYPE, **(headers or {})}
    if request_id is not None:
        fields["request_id"] = request_id
    if errors:
        fields["errors"] = [error._asdict() for error in errors]
    if retry_after_s is not None:
        fields["retry_after_s"] = retry_after_s
        # The header has whole seconds (RFC 9110, section 10.2.3); none is "at once", and would bring a storm.
        sent["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    return Problem(status, sent, pydantic_core.to_json(fields))


def problem_of(error: BaseException, request_id: str | None = None) -> Problem:
    """Return the problem that an error is answered with.

    Only a Refused is told as it is, since it was written for the client. The text of any other error can name the
    server's folders and machines; it is for the log.
    """
    if isinstance(error, Refused):
        return problem(
            error.status,
            error.detail,
            title=error.title,
            request_id=request_id,
            errors=error.errors,
            retry_after_s=error.retry_after_s,
            headers=error.headers,
        )
    if isinstance(error, OverloadedError):
        said = "the queue has no room for this batch now; send it again after the time in Retry-After"
        return problem(
            429, said, title="Queue full", request_id=request_id, retry_after_s=error.retry_after_s
        )
    if isinstance(error, InfrastructureError):
        said = "no worker can grade this now; it says nothing about the samples, send them again"
        return problem(503, said, title="Cannot grade now", request_id=request_id, retry_after_s=5.0)
    if isinstance(error, GraderError):
        said = "the grader refused this batch; whoever runs the server finds the reason in its log"
        return problem(422, said, request_id=request_id)
    return problem(
        500, "something went wrong here; the log has it under the request's id", request_id=request_id
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
