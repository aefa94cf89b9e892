"""Making batches of what comes one by one: concurrent callers are gathered for a few milliseconds.

Trainers whose contract is one sample a call (OpenRLHF, slime, verl's reward loop) call many times at once. Grading one
by one would send a request, plan a batch and look up a suite for each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from grader.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True, eq=False)
class _Open(Generic[Item, Result]):
    """A batch that still takes items. ``wanted``: by how many callers its results are still waited for."""

    items: list[Item] = field(default_factory=list)
    results: list[asyncio.Future[Result]] = field(default_factory=list)
    wanted: int = 0
    task: asyncio.Task[None] | None = None


class Gatherer(Generic[Key, Item, Result]):
    """Gathers items with equal keys for ``wait_s`` wall-clock seconds, ``most`` at most, and does them at once.

    ``work(key, items)`` returns one result an item, in their order. When it raises an InputError for a batch, each
    item is tried alone, so that a caller's mistake is that caller's alone; any other error goes to all of them.
    Work that nobody waits for any more is cancelled. Belongs to one event loop.
    """

    def __init__(
        self,
        work: Callable[[Key, list[Item]], Awaitable[Sequence[Result]]],
        *,
        wait_s: float = 0.005,
        most: int = 1024,
    ) -> None:
        self._work = work
        self._wait_s = wait_s
        self._most = most
        self._open: dict[Key, _Open[Item, Result]] = {}

    async def submit(self, key: Key, item: Item) -> Result:
        """Return the result of an item. Raises what ``work`` raises."""
        batch = self._open.get(key)
        if batch is None or len(batch.items) >= self._most:
            batch = self._open[key] = _Open()
            batch.task = asyncio.create_task(self._run(key, batch))
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        batch.items.append(item)
        batch.results.append(result)
        batch.wanted += 1
        try:
            return await result
        finally:
            batch.wanted -= 1
            if batch.wanted == 0 and batch.task is not None and not batch.task.done():
                self._close(key, batch)
                batch.task.cancel()

    def _close(self, key: Key, batch: _Open[Item, Result]) -> None:
        if self._open.get(key) is batch:
            del self._open[key]

    async def _run(self, key: Key, batch: _Open[Item, Result]) -> None:
        await asyncio.sleep(self._wait_s)
        self._close(key, batch)
        # Those whose callers have gone away meanwhile are not worth the work.
        left = [
            (item, result)
            for item, result in zip(batch.items, batch.results, strict=True)
            if not result.done()
        ]
        if left:
            await self._do(key, [item for item, _ in left], [result for _, result in left])

    async def _do(self, key: Key, items: list[Item], results: list[asyncio.Future[Result]]) -> None:
        try:
            found = await self._work(key, items)
            pairs = list(zip(results, found, strict=True))
        except InputError as error:
            if len(items) > 1:
                alone = (self._do(key, [item], [result]) for item, result in zip(items, results, strict=True))
                await asyncio.gather(*alone)
                return
            _fail(results, error)
        except Exception as error:
            _fail(results, error)
        else:
            for result, value in pairs:
                if not result.done():
                    result.set_result(value)


def _fail(results: Sequence[asyncio.Future[Result]], error: Exception) -> None:
    for result in results:
        if not result.done():
            result.set_exception(error)
