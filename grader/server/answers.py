"""From a batch to an answer: every program gets exactly one verdict, whatever becomes of the grading."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import pydantic_core
import structlog

from grader.dispatch.contract import Batch, VerdictFields, Verdicts
from grader.errors import GraderError
from grader.rewards import with_flags
from grader.schema import SuiteIdentity, Summary
from grader.scoring.summary import Tally, summarize
from grader.server.service import Service
from grader.status import Status
from grader.suites import inline
from grader.suites.task import Suite
from grader.worker.grading import Policy, broken_tests, infrastructure_error
from grader.worker.program import Program

_log = structlog.get_logger("grader.server")

DEADLINE_EXCEEDED = "DeadlineExceeded"
_SUMMARIZED_AT_ONCE = 256
_LEAST_S = 0.001
Take = Callable[[VerdictFields], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request's batch, and how it is to be answered. ``deadline`` is on the event loop's clock, in seconds.

    ``task_ids``: by sample, the task names that the request knows, where they are not the batch's. ``include_flags``:
    each verdict says what its program tried.
    """

    service: Service
    batch: Batch
    ks: Sequence[int]
    use_cache: bool
    began: float
    deadline: float | None
    task_ids: Mapping[str, str] = field(default_factory=dict)
    include_flags: bool = False

    async def collect(self, take: Take) -> None:
        """Grade the batch and call ``take`` once for each of its programs, with its verdict.

        What is not judged by the deadline, or cannot be, is an ``infrastructure_error``. Raises what the grading
        raises before it has given the first verdict. Cancelling this cancels the grading.
        """
        take = self._with_given_names(take)
        missing = {program.sample_id: program for program in self.batch.programs}
        arrived: set[str] = set()
        why = ("Lost", "the grading ended without a verdict on this sample; send it again")
        try:
            async with asyncio.timeout_at(self.deadline) as limit:
                if self.deadline is not None:
                    await asyncio.sleep(0)  # where it has passed already, nothing is begun
                await self._take_all(missing, arrived, take)
        except TimeoutError:
            if not limit.expired():
                raise
            why = (
                DEADLINE_EXCEEDED,
                "not judged within timeout_s; send it again, with more time or fewer samples",
            )
        except GraderError as error:
            if len(missing) == len(self.batch.programs):
                raise
            _log.error("grading_broke_off", error=str(error), missing=len(missing))
            why = ("GradingFailed", "no worker could grade this sample; send it again")
        else:
            if missing:
                _log.warning("verdicts_lost", missing=len(missing), sample_id=next(iter(missing)))
        unjudged = [self._unjudged(program, *why) for program in missing.values()]
        self._count([verdict for verdict in unjudged if verdict["sample_id"] not in arrived])
        for verdict in unjudged:
            take({**verdict, "flags": []} if self.include_flags else verdict)

    def _count(self, unjudged: Verdicts) -> None:
        """Have metrics count verdicts that were made here; what arrives is counted as it does."""
        observer = self.service.observer
        if observer is not None and unjudged:
            observer.unjudged(self.batch, unjudged, end_to_end_s=time.monotonic() - self.began)

    async def _take_all(self, missing: dict[str, Program], arrived: set[str], take: Take) -> None:
        batch = self.batch
        if self.deadline is not None:
            left_s = self.deadline - asyncio.get_running_loop().time()
            batch = replace(batch, timeout_s=max(left_s, _LEAST_S))
        async with aclosing(self.service.grade(batch, once=self.use_cache)) as graded:
            async for verdicts in graded:
                arrived.update(verdict["sample_id"] for verdict in verdicts)
                for verdict in verdicts:
                    program = missing.get(verdict["sample_id"])
                    if program is None:
                        _log.error("verdict_not_asked_for", sample_id=verdict["sample_id"])
                        continue
                    given = without_our_affairs(verdict, self.batch.suite)
                    if self.include_flags:
                        given = await flagged(given, program, self.batch.suite)
                    del missing[verdict["sample_id"]]
                    take(given)

    def _with_given_names(self, take: Take) -> Take:
        names = self.task_ids
        if not names:
            return take
        return lambda verdict: take(
            {**verdict, "task_id": names.get(verdict["sample_id"], verdict["task_id"])}
        )

    def _unjudged(self, program: Program, kind: str, why: str) -> VerdictFields:
        batch = self.batch
        policy = Policy(batch.limits, batch.groups, batch.fail_fast)
        task = batch.suite.tasks[program.task_id]
        return infrastructure_error(program, task, policy, self.service.stamp, 0, why, kind)

    async def summary(self, verdicts: Iterable[VerdictFields]) -> Summary:
        """Return what the verdicts come to; in a thread where there are many."""
        if len(self.batch.programs) > _SUMMARIZED_AT_ONCE:
            return await asyncio.to_thread(self._summary, verdicts)
        return self._summary(verdicts)

    def _summary(self, verdicts: Iterable[VerdictFields]) -> Summary:
        batch, service = self.batch, self.service
        tally = Tally(batch.groups or ())
        for verdict in verdicts:
            tally.add(verdict)
        return summarize(
            tally,
            suite=suite_identity(batch),
            ks=self.ks,
            wall_s=time.monotonic() - self.began,
            limits=batch.limits,
            sandbox=service.stamp,
            engine=service.settings.engine,
            workers=service.workers,
        )


async def flagged(verdict: VerdictFields, program: Program, suite: Suite) -> VerdictFields:
    """Return the verdict with its flags. Looking for them takes longer than the event loop may be held up."""
    whole = not suite.tasks[program.task_id].entry_point
    return await asyncio.to_thread(with_flags, verdict, program.source, whole_program=whole)


def suite_identity(batch: Batch) -> SuiteIdentity:
    """Return which suite a batch is of."""
    suite = batch.suite
    return SuiteIdentity(name=suite.name, version=suite.version, sha256=suite.sha256)


def in_order(batch: Batch, verdicts: Iterable[VerdictFields]) -> list[VerdictFields]:
    """Return the verdicts in the order of the batch's programs."""
    known = {verdict["sample_id"]: verdict for verdict in verdicts}
    return [known[program.sample_id] for program in batch.programs]


def to_json(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Write an answer as JSON. Half a surrogate pair, which a program may print, becomes a question mark."""
    try:
        return pydantic_core.to_json(value, inf_nan_mode="null")
    except pydantic_core.PydanticSerializationError:
        text = json.dumps(pydantic_core.to_jsonable_python(value, inf_nan_mode="null"), ensure_ascii=False)
        return text.encode("utf-8", "replace")


def without_our_affairs(verdict: VerdictFields, suite: Suite) -> VerdictFields:
    """Leave out of an answer what an infrastructure error says of our folders, machines and suites; the log has it.

    What is wrong with tests that came with the request is the affair of who sent them.
    """
    error = verdict["error"]
    if verdict["status"] != Status.INFRASTRUCTURE_ERROR or not error or error["type"] == DEADLINE_EXCEEDED:
        return verdict
    broken = broken_tests(verdict) is not None
    if broken and suite.sha256 == inline.SUITE_SHA256:
        return verdict
    _log.warning(
        "sample_not_judged",
        task_id=verdict["task_id"],
        sample_id=verdict["sample_id"],
        error_type=error["type"],
        error=error["message"],
    )
    said = "this sample could not be judged; send it again"
    if broken:
        said = "the tests of this task cannot be used; whoever runs the server finds the reason in its log"
    return {**verdict, "error": {"type": error["type"], "message": said, "line": None}}
