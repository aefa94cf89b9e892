"""What becomes of workers, for the log; and the end of a service that has none and will have none."""

from __future__ import annotations

import os
import signal

import structlog

from grader.engines.pool import (
    PoolEvent,
    PoolFailed,
    WorkerHeard,
    WorkerLost,
    WorkerReady,
    WorkerSaid,
    WorkerSilent,
)
from grader.telemetry.logs import bound
from grader.worker.messages import Lost

_log = structlog.get_logger("grader.workers")


def watch_workers(event: PoolEvent) -> None:
    """Log what happens to workers. Where none will ever work, have the service drain and end.

    A service that nobody can use is no service: whoever runs it sees it end, and may start it elsewhere.
    """
    if isinstance(event, PoolFailed):
        _log.critical("no_worker_can_work", error_type=type(event.error).__name__, error=str(event.error))
        os.kill(os.getpid(), signal.SIGTERM)
        return
    with bound(worker_id=event.worker):
        if isinstance(event, WorkerSaid):
            for report in event.reports:
                if isinstance(report, Lost):
                    _log.warning("sample_lost", blamed=report.blamed, why=_first_line(report.why))
        elif isinstance(event, WorkerReady):
            _log.info("worker_ready", node=event.node)
        elif isinstance(event, WorkerLost):
            _log.warning("worker_lost", why=_first_line(event.why))
        elif isinstance(event, WorkerSilent):
            _log.warning("worker_silent")
        elif isinstance(event, WorkerHeard):
            _log.info("worker_heard")


def warn_of_workers(message: str) -> None:
    """Log why a worker could not be started."""
    _log.warning("worker_refused", why=message)


def _first_line(text: str) -> str:
    # What follows in a traceback can quote a program.
    return text.partition("\n")[0]
