"""What the dispatcher may hold, and how it shares."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from grader.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherConfig:
    """What the dispatcher may hold and how it shares. Raises InputError for a value that cannot be meant.

    ``max_samples`` and ``max_bytes`` bound what was taken and has no outcome yet; one tenant may have
    ``tenant_share`` of both. A worker holds about ``batch_s`` seconds of estimated work, and at least
    ``min_in_flight`` items, but nothing on top of ``alone_s``; what has waited there for ``stuck_s`` wall-clock
    seconds behind one item is taken back. An item is begun ``max_attempts`` times at most, and after it has taken
    down its cell ``max_blames`` times it is judged for that. ``background_share`` is the part of a tenant's turn
    that its background work has while interactive work waits. A tenant that wanted nothing for a while may have up
    to ``idle_credit_s`` seconds of a worker, times its weight, before the others. ``default_cost_s`` is the estimate
    for an item of which nothing is known, ``overhead_s`` what every item costs a worker on top, both in seconds;
    ``learning_rate`` is the weight of the latest sample in an estimate, and ``learned_tasks`` the tasks that
    estimates are remembered of.
    """

    max_samples: int = 200_000
    max_bytes: int = 1 << 30
    tenant_share: float = 0.5
    batch_s: float = 0.05
    min_in_flight: int = 3
    alone_s: float = 1.0
    stuck_s: float = 0.25
    max_attempts: int = 4
    max_blames: int = 2
    background_share: float = 0.1
    idle_credit_s: float = 0.25
    default_cost_s: float = 0.01
    overhead_s: float = 0.002
    learning_rate: float = 0.2
    learned_tasks: int = 100_000

    def __post_init__(self) -> None:
        counts = ("max_samples", "max_bytes", "min_in_flight", "max_attempts", "max_blames", "learned_tasks")
        bounds: dict[str, tuple[float, float]] = dict.fromkeys(counts, (1, inf))
        bounds |= dict.fromkeys(("batch_s", "alone_s", "stuck_s", "overhead_s"), (1e-6, 3600.0))
        bounds |= dict.fromkeys(("default_cost_s", "idle_credit_s"), (0.0, 3600.0))
        bounds |= {"background_share": (0.0, 1.0)}
        bounds |= dict.fromkeys(("tenant_share", "learning_rate"), (1e-6, 1.0))
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(
                    f"the dispatcher's {name} is {value!r}; give a number from {low:g} to {high:g}"
                )
