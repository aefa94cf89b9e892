"""Which parts ``grader serve`` has beside the routes that every service has."""

from __future__ import annotations

from grader.server.jobs.part import jobs_part
from grader.server.rewards import rewards_router
from grader.server.service import Part


def standard_parts(database_url: str | None) -> list[Part]:
    """Return the parts of the service. ``database_url`` is where jobs are kept; None: there are none.

    Raises InputError where it is no URL of a database that can be used.
    """
    parts = [Part(router=rewards_router())]
    return parts if database_url is None else [*parts, jobs_part(database_url)]
