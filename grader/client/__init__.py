"""The HTTP client, for programs that use a grader service: synchronous and asynchronous.

Needs the extra ``client``. See docs/client.md.
"""

try:
    import httpx as _httpx  # noqa: F401 - to say what is missing before a module below does
except ImportError as _error:
    raise ImportError(
        "the client needs httpx: pip install '.[client]' in the grader's source folder"
    ) from _error

from grader.client.asynchronous import AsyncGraderClient, AsyncVerdictStream
from grader.client.config import Timeouts
from grader.client.errors import (
    AccessRefused,
    NotFound,
    RequestRefused,
    RequestTooLarge,
    ServerFailed,
    ServerUnavailable,
)
from grader.client.grading import Bounds
from grader.client.models import GradeResult, Job, RewardsResult, SuiteInfo, TaskInfo
from grader.client.retries import RetryPolicy
from grader.client.sync import GraderClient, VerdictStream

__all__ = [
    "AccessRefused",
    "AsyncGraderClient",
    "AsyncVerdictStream",
    "Bounds",
    "GradeResult",
    "GraderClient",
    "Job",
    "NotFound",
    "RequestRefused",
    "RequestTooLarge",
    "RetryPolicy",
    "RewardsResult",
    "ServerFailed",
    "ServerUnavailable",
    "SuiteInfo",
    "TaskInfo",
    "Timeouts",
    "VerdictStream",
]
