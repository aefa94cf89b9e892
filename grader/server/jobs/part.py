"""Jobs and idempotency keys as a part of the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grader.server import idempotency
from grader.server.jobs.database import Database
from grader.server.jobs.routes import SHARED_NAME, jobs_router
from grader.server.jobs.runner import JobRunner, RunnerSettings
from grader.server.jobs.settings import runner_settings
from grader.server.service import Part, Service


def jobs_part(url: str, settings: RunnerSettings | None = None) -> Part:
    """Make the part that keeps jobs, and the answers of idempotency keys, in the database at ``url``.

    ``url``: sqlite:////folder/file for one server, postgresql://... for several replicas; see
    ``grader.server.jobs.settings.database_url``. ``settings``: by default those of the environment. Raises InputError
    where the URL is neither, or a variable of the environment is wrong.
    """
    chosen = runner_settings() if settings is None else settings
    database = Database(url, silent_s=chosen.silent_s)

    @asynccontextmanager
    async def lifespan(service: Service) -> AsyncIterator[None]:
        runner = JobRunner(database, service, chosen)
        answers = idempotency.Idempotency(database)
        try:
            await runner.start()
            service.shared[SHARED_NAME] = runner
            service.shared[idempotency.SHARED_NAME] = answers
            yield
        finally:
            await answers.close()
            await runner.close()

    return Part(router=jobs_router(), lifespan=lifespan)
