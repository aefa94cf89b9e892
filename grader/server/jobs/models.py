"""What the routes of jobs answer."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from grader.schema import Summary
from grader.server.jobs.records import JobState


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobAnswer(_Answer):
    """A job as it is now. Times are in UTC."""

    id: str
    state: JobState
    suite: str
    samples: int = Field(description="how many samples the request had")
    recorded: int = Field(description="how many of them have a verdict, infrastructure errors included")
    statuses: dict[str, int] = Field(description="how many verdicts have which status")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    summary: Summary | None = Field(description="there when the state is done")
    failure: str | None = Field(description="why the state is failed; the verdicts so far can be read")
    waits_for: str | None = Field(description="what an unfinished job waits for before it goes on")


class JobsAnswer(_Answer):
    """Some of a tenant's jobs, the latest first. ``next`` is the ``before`` of the following page, null at the end."""

    jobs: list[JobAnswer]
    next: str | None
