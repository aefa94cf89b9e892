"""What owns workers, wherever they run: jobs go to a worker by its name, and what happens comes back as events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from grader.errors import GraderError, InfrastructureError, InputError, SandboxError, SuiteError
from grader.worker.messages import Cancel, Job, Report


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker has its cell and takes jobs.

    ``stamp`` is what isolates its programs, ``key`` names the interpreter and packages that they find: expected answers
    are kept by it, and it is the same for all workers of a pool.
    """

    worker: str
    node: str
    stamp: Mapping[str, Any]
    key: str


@dataclass(frozen=True, slots=True)
class WorkerSaid:
    """What a worker reports of its jobs, in the order in which it happened."""

    worker: str
    reports: Sequence[Report]


@dataclass(frozen=True, slots=True)
class WorkerSilent:
    """A worker gives no sign of life; it may come back."""

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerHeard:
    """A worker that was silent speaks again."""

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is gone with all that it held; the pool starts another in its place."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True)
class PoolFailed:
    """No worker can work: a mechanism is missing, or they end as soon as they start."""

    error: GraderError


_ERRORS: dict[str, type[GraderError]] = {
    kind.__name__: kind for kind in (SandboxError, SuiteError, InfrastructureError, InputError)
}


def error_of(kind: str, text: str) -> GraderError:
    """Return the error that a worker has told of by the name of its class."""
    return _ERRORS.get(kind, InfrastructureError)(text)


PoolEvent = WorkerReady | WorkerSaid | WorkerSilent | WorkerHeard | WorkerLost | PoolFailed
Listener = Callable[[PoolEvent], None]


class Pool(Protocol):
    """Workers on this machine or on many. All methods are called on one event loop, as is the listener."""

    @property
    def name(self) -> str:
        """What the engine is called: ``local`` or ``ray``."""

    @property
    def workers(self) -> int:
        """How many workers there are or are to be."""

    @property
    def cache(self) -> Path:
        """The cache folder with the expected answers, on this machine.

        Before a pool tells of a bundle that was made, it is there; before a worker grades by one, it is at the worker.
        """

    async def start(self, listener: Listener) -> None:
        """Start the workers; they are told of as they become ready.

        Raises a GraderError where no cell can be made.
        """

    async def close(self) -> None:
        """End every worker and destroy every cell; nothing of them is left when this returns."""

    def send(self, worker: str, messages: Sequence[Job | Cancel]) -> None:
        """Give a worker jobs, without waiting. To one that is lost, nothing is sent: the listener has been told."""

    def demand(self, jobs: int) -> None:
        """Take how many jobs wait and run; a pool that can grow and shrink goes by it."""

    def state(self) -> Mapping[str, int]:
        """Return how many workers are in which state."""

    def trouble(self) -> str | None:
        """Return why no worker works now, if that is so and may pass; None where all is well."""
