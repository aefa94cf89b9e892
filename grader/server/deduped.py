"""Running identical programs of a batch once: what ``grader.dedupe.grade_once`` does, for many at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from grader.dedupe import Deduplicator
from grader.dispatch.contract import Batch, VerdictFields
from grader.errors import OverloadedError
from grader.worker.program import Program

Grade = Callable[[Batch], AsyncIterator[VerdictFields]]
# Taking a program in parses it, which costs about 0.2 ms: more of them than this go to a thread.
_ADMITTED_AT_ONCE = 4


async def grade_once(grade: Grade, batch: Batch) -> AsyncGenerator[VerdictFields, None]:
    """Grade a batch with ``grade``, running identical programs of a task once; one verdict a program.

    Programs that have to run after all, because the one they waited for did not pass, are sent on as further batches
    as soon as that is known, for what is left of the batch's ``timeout_s``. Errors are those of ``grade``.
    """
    counts = Counter(program.task_id for program in batch.programs)
    alone = {task_id for task_id, count in counts.items() if count == 1}
    dedupe = Deduplicator(alone)
    if len(batch.programs) - len(alone) > _ADMITTED_AT_ONCE:
        await asyncio.to_thread(_admit, dedupe, batch.programs)
    else:
        _admit(dedupe, batch.programs)
    first = _taken(dedupe)
    rounds = _Rounds(grade, batch)
    if len(first) == len(batch.programs):
        async with aclosing(rounds.closable(first)) as verdicts:
            async for verdict in verdicts:
                yield verdict
        return
    try:
        rounds.begin(first)
        async for verdict in rounds.verdicts():
            dedupe.settle(verdict)
            yield verdict
            while dedupe.copies:
                yield dedupe.copies.popleft()
            if dedupe.runnable:
                rounds.begin(_taken(dedupe))
    finally:
        await rounds.cancel()


class _Rounds:
    """Batches that are graded at the same time, and their verdicts in one stream."""

    def __init__(self, grade: Grade, batch: Batch) -> None:
        self._grade = grade
        self._batch = batch
        self._began = asyncio.get_running_loop().time()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0
        self._done: asyncio.Queue[VerdictFields | asyncio.Task[None]] = asyncio.Queue()

    def begin(self, programs: Sequence[Program]) -> None:
        task = asyncio.create_task(self._run(programs, patient=bool(self._tasks)))
        self._tasks.add(task)
        self._open += 1
        task.add_done_callback(self._done.put_nowait)

    async def verdicts(self) -> AsyncIterator[VerdictFields]:
        """Yield verdicts until every batch that was begun has ended. Raises what a batch raised."""
        while self._open:
            found = await self._done.get()
            if isinstance(found, asyncio.Task):
                self._open -= 1
                found.result()
            else:
                yield found

    async def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def closable(self, programs: Sequence[Program]) -> AsyncGenerator[VerdictFields, None]:
        spent = asyncio.get_running_loop().time() - self._began
        timeout_s = self._batch.timeout_s
        left = None if timeout_s is None else max(0.001, timeout_s - spent)
        batch = replace(self._batch, programs=tuple(programs), timeout_s=left)
        return cast("AsyncGenerator[VerdictFields, None]", self._grade(batch))

    async def _run(self, programs: Sequence[Program], *, patient: bool) -> None:
        while True:
            try:
                async with aclosing(self.closable(programs)) as verdicts:
                    async for verdict in verdicts:
                        self._done.put_nowait(verdict)
                return
            except OverloadedError as error:
                # The request was let in with all its programs; those that run late only wait for room again.
                if not patient:
                    raise
                await asyncio.sleep(error.retry_after_s)


def _admit(dedupe: Deduplicator, programs: Sequence[Program]) -> None:
    for program in programs:
        dedupe.admit(program)


def _taken(dedupe: Deduplicator) -> list[Program]:
    runnable = list(dedupe.runnable)
    dedupe.runnable.clear()
    return runnable
