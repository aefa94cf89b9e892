"""The errors that a user of the client can meet, besides those of ``grader.errors``.

::

    GraderError
    ├── InputError
    │   └── RequestRefused        the server refuses this request for good: an answer with 4xx
    │       ├── AccessRefused     401 or 403: no API key, or one that does not open this
    │       ├── NotFound          404: no such suite, job or path
    │       └── RequestTooLarge   413: more than the server takes, and it cannot be split
    └── InfrastructureError
        ├── ServerUnavailable     no server took the request, and all retries are used up
        └── ServerFailed          an answer that is an error of the server, or outside of the contract

What went wrong inside a program, or while it was graded, is never one of these: it is a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grader.errors import InfrastructureError, InputError


class RequestRefused(InputError):
    """The server refuses this request, and would refuse it again.

    ``status`` is the HTTP status; ``problem`` has the fields of the problem details (RFC 9457) in the answer,
    and is empty where the answer had none.
    """

    def __init__(self, message: str, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.problem = dict(problem)

    def __reduce__(self) -> tuple[Any, ...]:  # trainers call adapters in other processes
        return type(self), (str(self), self.status, self.problem)


class AccessRefused(RequestRefused):
    """The API key is missing, unknown, or does not allow this: 401 or 403."""


class NotFound(RequestRefused):
    """There is no such suite, job or path on the server: 404."""


class RequestTooLarge(RequestRefused):
    """The request is larger than the server's cap, and cannot be split into smaller ones: 413."""


class ServerUnavailable(InfrastructureError):
    """No server took the request in the attempts and the time that the retry policy allows.

    ``status`` is that of the last answer, or None where the connection failed.
    """

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.status)


class ServerFailed(InfrastructureError):
    """The server answered with an error of its own, or with something that is not in the contract."""
