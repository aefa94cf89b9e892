"""How many no-op samples a second the dispatcher's state machine passes on, with workers that finish at once.

    python loadtest/bench_dispatcher.py [--samples 100000] [--workers 64] [--at-least 20000]

A shape is a number of tenants, what waits all the time, and how many items a request brings. Printed are samples a
second of CPU time of this process (what one core can do, whatever else the machine does) and of wall-clock time.
``--at-least`` ends with exit code 1 where a shape is slower than that, by CPU time.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import deque
from dataclasses import dataclass

from grader.dispatch.events import Deliver, Finished, Instruction, Item, Send, Submit, WorkerReady
from grader.dispatch.state import Dispatcher, DispatcherConfig

_CPU_S = 0.0005


@dataclass(frozen=True)
class Shape:
    """What is queued: ``batch`` items a request, from ``tenants`` in turn, ``queued`` at any time but the end."""

    name: str
    tenants: int
    batch: int
    queued: int
    tasks: int = 164


SHAPES = (
    Shape("one tenant, batches of 64, 100,000 queued", 1, 64, 100_000),
    Shape("50 tenants, batches of 64, 100,000 queued", 50, 64, 100_000),
    Shape("50 tenants, batches of 2,000, 100,000 queued", 50, 2_000, 100_000),
    Shape("1,000 tenants, batches of 64, 100,000 queued", 1_000, 64, 100_000),
    Shape("50 tenants, batches of 64, nearly empty queue", 50, 64, 64),
    Shape("50 tenants, one by one, nearly empty queue", 50, 1, 64),
    Shape("50 tenants, a new task with every sample", 50, 64, 100_000, tasks=10_000_000),
)


class Bench:
    """The state machine with workers that report every item in the order in which it was sent."""

    def __init__(self, shape: Shape, samples: int, workers: int) -> None:
        self._shape = shape
        self._left = samples
        self._numbers = itertools.count()
        self._requests = itertools.count()
        self._machine = Dispatcher(DispatcherConfig(max_samples=10_000_000, tenant_share=1.0))
        self._sent: deque[tuple[str, int]] = deque()
        self.delivered = 0
        self.waiting = 0
        for worker in range(workers):
            self._machine.handle(WorkerReady(f"worker-{worker}", f"node-{worker // 8}"), 0.0)

    def fill(self) -> None:
        """Submit requests until as much waits as is to, or nothing is left."""
        while self._left and self.waiting < self._shape.queued:
            request = next(self._requests)
            count = min(self._shape.batch, self._left)
            self._left -= count
            self.waiting += count
            self._take(self._machine.handle(Submit(tuple(self._items(request, count))), 0.0))

    def run(self) -> None:
        """Finish everything, with new requests coming all the time."""
        handle, sent = self._machine.handle, self._sent
        while sent:
            worker, number = sent.popleft()
            self._take(handle(Finished(worker, number, _CPU_S), 0.0))
            if self._left and self.waiting < self._shape.queued:
                self.fill()

    def _items(self, request: int, count: int) -> list[Item]:
        tenant = f"tenant-{request % self._shape.tenants}"
        return [
            Item(
                number=number,
                request_id=f"request-{request}",
                tenant=tenant,
                task_key=f"task-{number % self._shape.tasks}",
                size_bytes=500,
                cost_s=_CPU_S,
                deadline=1e9 + request,
            )
            for number in itertools.islice(self._numbers, count)
        ]

    def _take(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Send):
                self.waiting -= len(instruction.items)
                self._sent += [(instruction.worker, item.number) for item in instruction.items]
            elif isinstance(instruction, Deliver):
                self.delivered += 1


def measure(shape: Shape, samples: int, workers: int) -> tuple[float, float]:
    """Return samples a second of CPU time and of wall-clock time, submitting included."""
    bench = Bench(shape, samples, workers)
    cpu, wall = time.process_time(), time.perf_counter()
    bench.fill()
    bench.run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert bench.delivered == samples
    return samples / cpu, samples / wall


def main() -> int:
    """Measure every shape and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--at-least", type=float, default=0.0)
    options = parser.parse_args()
    print(f"{'samples/s of CPU':>17} {'of wall':>9}  shape ({options.workers} workers)")
    slowest = float("inf")
    for shape in SHAPES:
        by_cpu, by_wall = measure(shape, options.samples, options.workers)
        slowest = min(slowest, by_cpu)
        print(f"{by_cpu:17,.0f} {by_wall:9,.0f}  {shape.name}", flush=True)
    return int(slowest < options.at_least)


if __name__ == "__main__":
    sys.exit(main())
