"""A dispatcher with a record of what it asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from grader.dispatch.events import (
    Abandon,
    Deliver,
    Event,
    Finished,
    Instruction,
    Item,
    Outcome,
    Send,
    Submit,
    WorkerReady,
)
from grader.dispatch.state import Dispatcher, DispatcherConfig

# Later than anything that happens here; then the machine wakes to see which workers are stuck.
LONG_S = 3600.0


class Desk:
    """Carries instructions out on paper. ``at`` has every worker's items in the order in which they were sent."""

    def __init__(self, **config: Any) -> None:
        # Items of these tests are long, so that one is told from the next; three are put into one worker all the same.
        usual = {"alone_s": LONG_S, "stuck_s": LONG_S}
        self.machine = Dispatcher(DispatcherConfig(**usual | config))
        self.now = 0.0
        self.at: dict[str, list[int]] = {}
        self.sent: list[tuple[str, int]] = []
        self.abandoned: list[tuple[str, int]] = []
        self.outcomes: dict[int, Outcome] = {}
        self._numbers = itertools.count(1)

    def items(self, count: int = 1, **fields: Any) -> tuple[Item, ...]:
        """Make items with new numbers, of one request and tenant unless ``fields`` say otherwise."""
        usual: dict[str, Any] = {"request_id": "r", "tenant": "t", "task_key": "k"} | fields
        return tuple(Item(number=next(self._numbers), **usual) for _ in range(count))

    def submit(self, count: int = 1, **fields: Any) -> list[int]:
        """Submit new items; return their numbers."""
        items = self.items(count, **fields)
        self.tell(Submit(items))
        return [item.number for item in items]

    def workers(self, *names: str) -> None:
        """Say that these workers are ready."""
        for name in names:
            self.at.setdefault(name, [])
            self.tell(WorkerReady(name, f"node of {name}"))

    def finish(self, worker: str, number: int, cpu_s: float = 0.0) -> list[Instruction]:
        """Say that a worker has a verdict."""
        self.at[worker].remove(number)
        return self.tell(Finished(worker, number, cpu_s))

    def finish_all(self, cpu_s: float = 0.0) -> None:
        """Finish everything that is sent, until nothing is."""
        while busy := next((worker for worker, held in self.at.items() if held), None):
            self.finish(busy, self.at[busy][0], cpu_s)

    def tell(self, event: Event) -> list[Instruction]:
        """Hand over an event, and note what it led to."""
        out = self.machine.handle(event, self.now)
        for instruction in out:
            if isinstance(instruction, Send):
                assert instruction.items
                for item in instruction.items:
                    self.at[instruction.worker].append(item.number)
                    self.sent.append((instruction.worker, item.number))
            elif isinstance(instruction, Abandon):
                for number in instruction.numbers:
                    self.at[instruction.worker].remove(number)
                    self.abandoned.append((instruction.worker, number))
            else:
                assert isinstance(instruction, Deliver)
                assert instruction.number not in self.outcomes, "delivered twice"
                self.outcomes[instruction.number] = instruction.outcome
        return out

    def next_deadline(self) -> float | None:
        """When the machine asks to be woken, unless that is to see which workers are stuck."""
        wake = self.machine.next_wake(self.now)
        return None if wake is None or wake >= LONG_S else wake

    def left(self) -> dict[str, int]:
        """What is still in the machine's tables, but for workers and learned costs."""
        sizes = dict(self.machine.sizes())
        del sizes["workers"], sizes["learned"]
        return {table: size for table, size in sizes.items() if size}


@pytest.fixture
def make_desk() -> Callable[..., Desk]:
    return Desk


@pytest.fixture
def desk() -> Desk:
    return Desk()
