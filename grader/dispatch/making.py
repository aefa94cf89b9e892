"""Making what grades by the names that a user gives: an engine's pool of workers, and the driver over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from grader import settings
from grader.dispatch.driver import Driver
from grader.dispatch.state import DispatcherConfig
from grader.engines.pool import Pool, PoolEvent
from grader.errors import InputError
from grader.limits import Limits
from grader.sandbox.options import CellOptions

# What workers hold is what others wait for. A message by a pipe costs little; a call of Ray's 2 ms.
_BATCH_S = {"local": 0.02, "ray": 0.05}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Which workers are wanted. ``limits`` are those that cells are made with; a batch brings its own.

    ``ray_address`` is the Ray cluster to join; by default ``GRADER_RAY_ADDRESS``, else one is started.
    ``patient``: workers that have worked are started for ever, also where that keeps failing; else the pool fails.
    ``on_progress(stage, done, total)`` tells of work before the workers start, ``on_warning`` of workers that cannot.
    """

    engine: str = "local"
    workers: int | None = None
    cells: CellOptions = field(default_factory=CellOptions)
    limits: Limits = field(default_factory=Limits)
    ray_address: str | None = None
    patient: bool = False
    on_progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None
    on_warning: Callable[[str], None] = lambda _message: None


def make_pool(options: PoolOptions) -> Pool:
    """Return the pool of the engine named. Raises InputError for an engine that is not there."""
    if options.engine == "local":
        from grader.engines.local import LocalPool

        return LocalPool(
            limits=options.limits,
            workers=options.workers,
            cells=options.cells,
            patient=options.patient,
            on_progress=options.on_progress,
            on_warning=options.on_warning,
        )
    if options.engine == "ray":
        from grader.engines.ray import RayPool

        return RayPool(
            address=options.ray_address or settings.ray_address(),
            limits=options.limits,
            workers=options.workers,
            cells=options.cells,
            patient=options.patient,
            on_progress=options.on_progress,
            on_warning=options.on_warning,
        )
    raise InputError(f"there is no engine {options.engine!r}; give one of {', '.join(settings.ENGINES)}")


def make_grading(
    options: PoolOptions,
    config: DispatcherConfig | None = None,
    on_event: Callable[[PoolEvent], None] = lambda _event: None,
) -> Driver:
    """Return what grades batches of many requests (``contract.Grading``) on the workers wanted.

    ``on_event`` is told what the dispatcher hears of the workers.
    """
    config = config or DispatcherConfig(batch_s=_BATCH_S[options.engine])
    return Driver(make_pool(options), config, on_event)
