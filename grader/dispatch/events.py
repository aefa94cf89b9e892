"""What the dispatcher is told (events) and what it wants done (instructions): plain values, no I/O.

Times are seconds on the caller's own monotonic clock; costs are CPU seconds; sizes are bytes. None of them is changed.
Those of which there may be one a sample are not frozen: that takes twice as long to make.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

# What happens to workers is said in the words of the pools that own them.
from grader.engines.pool import WorkerHeard as WorkerHeard
from grader.engines.pool import WorkerLost as WorkerLost
from grader.engines.pool import WorkerSilent as WorkerSilent

Priority = Literal["interactive", "background"]
# Beyond these, sums of costs over weights would lose what a single item adds to them.
MIN_WEIGHT, MAX_WEIGHT = 1e-6, 1e6
PRIORITIES: tuple[Priority, Priority] = ("interactive", "background")


@dataclass(slots=True, kw_only=True)
class Item:
    """One thing to be graded, as the dispatcher sees it.

    ``number`` names it and is never used again; ``request_id`` is unique over tenants. Tenants share the workers
    by ``weight``. Items of one ``task_key`` are thought to cost alike. ``cost_s`` is what the reference needs, in CPU
    seconds, or None where that is unknown. At ``deadline`` it is no longer wanted unless it has been sent.
    ``payload`` is the caller's and is handed back untouched. Raises ValueError where a value cannot be meant.
    """

    number: int
    request_id: str
    tenant: str
    weight: float = 1.0
    priority: Priority = "interactive"
    task_key: str
    size_bytes: int = 0
    cost_s: float | None = None
    deadline: float | None = None
    payload: object = None

    def __post_init__(self) -> None:
        good_cost = self.cost_s is None or 0 <= self.cost_s < inf
        good_deadline = self.deadline is None or self.deadline == self.deadline
        if not (
            MIN_WEIGHT <= self.weight <= MAX_WEIGHT and self.size_bytes >= 0 and good_cost and good_deadline
        ):
            raise ValueError(
                f"item {self.number}: weight {self.weight!r} is to be 1e-6 to 1e6, size_bytes {self.size_bytes!r} and "
                f"cost_s {self.cost_s!r} at least 0, deadline {self.deadline!r} a number or None, none infinite"
            )
        if self.priority not in PRIORITIES:
            raise ValueError(f"item {self.number}: priority {self.priority!r} is not one of {PRIORITIES}")


# -- events


@dataclass(slots=True)
class Submit:
    """New items; all of them are taken, or none. ``unbounded`` ones are taken whatever is queued already: they
    belong to work that has been accepted."""

    items: tuple[Item, ...]
    unbounded: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nothing of this request is wanted any more."""

    request_id: str


@dataclass(frozen=True, slots=True)
class CancelItems:
    """These items are not wanted any more."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker takes items. Of one that is known already, it says that it takes items again after silence and
    still has what it held; one that was started anew is told of by WorkerLost first."""

    worker: str
    node: str


@dataclass(slots=True)
class Finished:
    """A worker has a verdict; ``occupied_s`` is for how many seconds the item had it, computing or waiting.

    Raises ValueError for what is no such time.
    """

    worker: str
    number: int
    occupied_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.occupied_s < inf:
            raise ValueError(
                f"item {self.number} of {self.worker}: occupied_s is {self.occupied_s!r}; give seconds >= 0"
            )


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker lives, but the cell that ran this item went down; ``blamed``: the item's program brought it down."""

    worker: str
    number: int
    blamed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Submit
    | Cancel
    | CancelItems
    | WorkerReady
    | WorkerLost
    | WorkerSilent
    | WorkerHeard
    | Finished
    | Lost
    | Tick
)


# -- outcomes and instructions


@dataclass(slots=True)
class Done:
    """There is a verdict, from the attempt with this number (1 is the first)."""

    attempts: int


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Every attempt was lost; ``why`` is what was said of the last. To be an ``infrastructure_error``."""

    why: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Violation:
    """The item took its cell down, and did so again. To be a ``security_violation``."""

    why: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Expired:
    """The deadline came while the item was waiting."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It was not wanted any more."""


Outcome = Done | GaveUp | Violation | Expired | Cancelled


@dataclass(slots=True)
class Send:
    """Give these items to the worker, in this order."""

    worker: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Abandon:
    """Tell the worker that these items are not wanted of it any more."""

    worker: str
    numbers: tuple[int, ...]


@dataclass(slots=True)
class Deliver:
    """What became of an item; said exactly once of every item that was taken."""

    number: int
    outcome: Outcome


Instruction = Send | Abandon | Deliver
