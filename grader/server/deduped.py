"""Running identical programs of a batch once: what ``grader.dedupe.grade_once`` does, for many at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast

from grader.dedupe import Deduplicator, Families
from grader.dispatch.contract import Batch, Verdicts
from grader.errors import OverloadedError
from grader.worker.program import Program

Grade = Callable[[Batch], AsyncIterator[Verdicts]]
# A program may have to be parsed for its identity, which takes about 0.2 ms: more of them than this go to a thread.
_IDENTIFIED_AT_ONCE = 4


async def grade_once(
    grade: Grade, batch: Batch, families: Families | None = None
) -> AsyncGenerator[Verdicts, None]:
    """Grade a batch with ``grade``, running identical programs of a task once; one verdict a program, those that are
    done at the same time together.

    Batches with the same ``families`` that are graded at the same time, for one tenant and in the same way, share the
    runs of their programs. Programs that have to run after all, because the one they waited for did not pass or its
    batch is not wanted any more, are sent on as further batches as soon as that is known, for what is left of the
    batch's ``timeout_s``. Errors are those of ``grade``.
    """
    rounds = _Rounds(grade, batch)
    counts = Counter(program.task_id for program in batch.programs)
    once = {task_id for task_id, count in counts.items() if count == 1}
    dedupe = Deduplicator(by_text=once, families=families, kind=_kind(batch), on_released=rounds.wake)
    try:
        if len(batch.programs) - len(once) > _IDENTIFIED_AT_ONCE:
            identities = await asyncio.to_thread(dedupe.identify, batch.programs)
        else:
            identities = dedupe.identify(batch.programs)
        for program, identity in zip(batch.programs, identities, strict=True):
            dedupe.admit(program, identity)
        if len(dedupe.runnable) == len(batch.programs):
            async with aclosing(rounds.closable(_taken(dedupe))) as graded:
                async for verdicts in graded:
                    for verdict in verdicts:
                        dedupe.settle(verdict)
                    yield verdicts
            return
        let_in = False
        while True:
            if dedupe.runnable:
                rounds.begin(_taken(dedupe), patient=let_in)
            let_in = True
            if copies := list(dedupe.copies):
                dedupe.copies.clear()
                yield copies
            # What another batch has released meanwhile, while copies were taken from us too, has woken the rounds.
            if not (rounds.open or dedupe.waiting or dedupe.runnable or dedupe.copies):
                return
            if (done := await rounds.next()) is not None:
                for verdict in done:
                    dedupe.settle(verdict)
                yield done
    finally:
        try:
            dedupe.leave()
        finally:
            await rounds.cancel()


def _kind(batch: Batch) -> str:
    """What else has to be the same for programs of two batches to share a run."""
    how = (batch.tenant, batch.priority, batch.suite.sha256, batch.groups, batch.limits, batch.fail_fast)
    return repr(how)


class _Rounds:
    """Batches that are graded at the same time, and their verdicts in one stream. ``open`` counts them."""

    def __init__(self, grade: Grade, batch: Batch) -> None:
        self._grade = grade
        self._batch = batch
        self._began = asyncio.get_running_loop().time()
        self._tasks: set[asyncio.Task[None]] = set()
        self.open = 0
        self._done: asyncio.Queue[Verdicts | asyncio.Task[None] | None] = asyncio.Queue()

    def begin(self, programs: Sequence[Program], *, patient: bool) -> None:
        """Begin a batch; a ``patient`` one waits for room where there is none."""
        task = asyncio.create_task(self._run(programs, patient=patient))
        self._tasks.add(task)
        self.open += 1
        task.add_done_callback(self._done.put_nowait)

    async def next(self) -> Verdicts | None:
        """Return the next verdicts, or None where there is none but things have changed. Raises what a batch raised."""
        found = await self._done.get()
        if isinstance(found, asyncio.Task):
            self.open -= 1
            found.result()
            return None
        return found

    def wake(self) -> None:
        """Have :meth:`next` return."""
        self._done.put_nowait(None)

    async def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def closable(self, programs: Sequence[Program]) -> AsyncGenerator[Verdicts, None]:
        spent = asyncio.get_running_loop().time() - self._began
        timeout_s = self._batch.timeout_s
        left = None if timeout_s is None else max(0.001, timeout_s - spent)
        batch = replace(self._batch, programs=tuple(programs), timeout_s=left)
        return cast("AsyncGenerator[Verdicts, None]", self._grade(batch))

    async def _run(self, programs: Sequence[Program], *, patient: bool) -> None:
        while True:
            try:
                async with aclosing(self.closable(programs)) as graded:
                    async for verdicts in graded:
                        self._done.put_nowait(verdicts)
                return
            except OverloadedError as error:
                # The request was let in with all its programs; those that run late only wait for room again.
                if not patient:
                    raise
                await asyncio.sleep(error.retry_after_s)


def _taken(dedupe: Deduplicator) -> list[Program]:
    runnable = list(dedupe.runnable)
    dedupe.runnable.clear()
    return runnable
