"""Which parts ``grader serve`` has beside the routes that every service has."""

from __future__ import annotations

from collections.abc import Sequence

from grader.server.compat.catalogue import compat_parts
from grader.server.jobs.part import jobs_part
from grader.server.rewards import rewards_router
from grader.server.service import Part


def standard_parts(database_url: str | None, compat: Sequence[str] = ()) -> list[Part]:
    """Return the parts of the service. ``database_url`` is where jobs are kept; None: there are none.

    ``compat`` names the foreign APIs to be served. Raises InputError where the URL is not one of a database that can be
    used, and for foreign APIs that are unknown or contradict each other.
    """
    parts = [Part(router=rewards_router()), *compat_parts(compat)]
    return parts if database_url is None else [*parts, jobs_part(database_url)]
