"""What the endpoints share whose contract is a reward a sample: single samples are gathered into batches.

These clients send one sample a request, thousands of them at once, and take an answer that is no number for a mistake
of theirs. So a sample that could not be judged is refused with 503, after which they send it again; one that cannot be
judged, because its own tests fail, with 422.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Query, Request

from grader.dispatch.contract import VerdictFields
from grader.dispatch.gathering import Gatherer
from grader.errors import GraderError, InfrastructureError, InputError, OverloadedError, SuiteError
from grader.rewards import Context, RewardResult, spec_of_text, tamper_flags
from grader.server.answers import Asked, in_order
from grader.server.auth import Caller
from grader.server.batches import Owner
from grader.server.models import finite
from grader.server.problems import FieldError, Refused
from grader.server.reward_batches import find_programs_of, make_reward_batch
from grader.server.rewards import KnowsReferences, RewardsRequest, reference_times, scored, with_reward
from grader.server.service import Service, service_of
from grader.server.streams import while_connected
from grader.suites.labels import Label, read_label
from grader.worker.grading import broken_tests

_SHARED = "compat_rewards"
# The shortest time-out of these clients is 60 s: that of NeMo-Gym's in verifiers.
_FOR_ROOM_S = 50.0

SuiteParameter = Annotated[str | None, Query(max_length=256, description="the suite whose tasks labels name")]
RewardParameter = Annotated[
    str | None, Query(max_length=10_000, description="a reward's name, or the JSON of its object")
]


@dataclass(frozen=True, slots=True)
class Single:
    """A sample: the completion, what it is judged by, and the prompt where a bare completion may continue it.

    ``completion_place`` and ``label_place`` are their places in the request.
    """

    completion: str
    label: Label
    completion_place: str
    label_place: str
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Rewarded:
    """What came of a sample. ``value`` is None where it could not be judged.

    ``broken``: why its own tests cannot be used; "" where they can. ``label_place`` is the place that they came from.
    """

    value: float | None
    passed: bool
    status: str
    flags: Sequence[str]
    components: dict[str, float | None]
    broken: str = ""
    label_place: str = ""


class BrokenTestsError(Refused):
    """A sample cannot be judged because its own tests fail: to send it again would not help."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What samples have in common that are graded in one batch. ``suite``: None for tests of their own."""

    owner: Owner
    suite: str | None
    reward: str | None


async def rewarded(
    request: Request, caller: Caller, samples: Sequence[Single], suite: str | None, reward: str | None
) -> list[Rewarded]:
    """Have samples rewarded, for as long as the client is connected; returns what came of each, in their order.

    They share batches with those of other requests. ``suite`` and ``reward``: the request's parameters. The request's
    body must have been read. Raises Refused, with the place, for what cannot be graded, and InfrastructureError where
    nothing can be graded now.
    """
    kinds = [_kind(caller.owner, sample, suite, reward) for sample in samples]
    if not samples:
        return []
    caller.take_samples(len(samples))
    gatherer = _gatherer(service_of(request))

    async def one(kind: _Kind, sample: Single) -> Rewarded:
        with _placed(sample):
            return replace(await gatherer.submit(kind, sample), label_place=sample.label_place)

    tasks: list[asyncio.Task[Rewarded]] = []

    async def every() -> list[Rewarded]:
        async with asyncio.TaskGroup() as group:
            for kind, sample in zip(kinds, samples, strict=True):
                tasks.append(group.create_task(one(kind, sample)))
        return [task.result() for task in tasks]

    try:
        return await while_connected(request.receive, every())
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        is_any_judged = any(not task.cancelled() and task.exception() is None for task in tasks)
        if isinstance(first, Refused | GraderError) and not is_any_judged:
            caller.give_back(len(samples))
        raise first from errors


def label_at(place: str, value: Any) -> Label:
    """Return a label. Raises Refused, with its place in the request, for what is not one."""
    try:
        return read_label(finite(value), place)
    except ValueError as error:
        raise Refused(str(error), place=place) from error
    except SuiteError as error:
        raise Refused(str(error).removeprefix(f"{place}: "), place=place) from error


def judged(found: Rewarded) -> float:
    """Return the reward.

    Where there is none, raises BrokenTestsError (422) for a sample whose own tests are at fault, and otherwise
    InfrastructureError, which is answered with 503.
    """
    if found.broken:
        raise BrokenTestsError(found.broken, place=found.label_place)
    if found.value is None:
        raise InfrastructureError("a sample was not judged; the log has the reason")
    return found.value


def _kind(owner: Owner, sample: Single, suite: str | None, reward: str | None) -> _Kind:
    if sample.label.task_id is None:
        return _Kind(owner, None, reward)
    named = sample.label.suite or suite
    if named is None:
        raise Refused(
            "the name of a task, and no suite: add ?suite=NAME to the URL, or send tests",
            place=sample.label_place,
        )
    return _Kind(owner, named, reward)


def _gatherer(service: Service) -> Gatherer[_Kind, Single, Rewarded]:
    if _SHARED not in service.shared:

        async def work(kind: _Kind, samples: list[Single]) -> list[Rewarded]:
            return await _grade(service, kind, samples)

        service.shared[_SHARED] = Gatherer(work)
    found: Gatherer[_Kind, Single, Rewarded] = service.shared[_SHARED]
    return found


async def _grade(service: Service, kind: _Kind, samples: list[Single]) -> list[Rewarded]:
    wanted = with_reward(_wanted(kind, samples), service.settings.reward)
    knows = isinstance(service.grading, KnowsReferences)
    made = await asyncio.to_thread(
        make_reward_batch, wanted, service.suites, kind.owner, uuid.uuid4().hex, knows_references=knows
    )
    batch = await find_programs_of(made, None)
    asked = Asked(service, batch, (1,), True, time.monotonic(), None)
    verdicts = in_order(batch, await _collected(asked))
    times = reference_times(wanted, made.reward, batch, verdicts, service.grading)

    def answers() -> list[Rewarded]:
        found = []
        for number, verdict in enumerate(verdicts):
            program = batch.programs[number]
            task = batch.suite.tasks[program.task_id]
            context = Context(
                task=task,
                source=program.source,
                completion=made.completions[number],
                reference_cpu_s=times[number],
            )
            flags = tamper_flags(program.source, verdict, whole_program=not task.entry_point)
            found.append(_rewarded(scored(made.reward, verdict, context), verdict, flags))
        return found

    return await asyncio.to_thread(answers)


def _rewarded(result: RewardResult, verdict: VerdictFields, flags: Sequence[str]) -> Rewarded:
    return Rewarded(
        result.value,
        bool(verdict["passed"]),
        str(verdict["status"]),
        flags,
        dict(result.components),
        broken_tests(verdict) or "",
    )


async def _collected(asked: Asked) -> list[VerdictFields]:
    """Grade a batch; wait for room in the queue, as long as its clients may wait."""
    end = time.monotonic() + _FOR_ROOM_S
    while True:
        verdicts: list[VerdictFields] = []
        try:
            await asked.collect(verdicts.append)
        except OverloadedError as error:
            if time.monotonic() + error.retry_after_s > end:
                raise
            await asyncio.sleep(error.retry_after_s)
        else:
            return verdicts


def _wanted(kind: _Kind, samples: Sequence[Single]) -> RewardsRequest:
    completions = [sample.completion for sample in samples]
    reward = _reward(kind.reward)
    if kind.suite is not None:
        task_ids = [sample.label.task_id for sample in samples]
        return RewardsRequest(completions=completions, reward=reward, suite=kind.suite, task_ids=task_ids)
    return RewardsRequest(
        completions=completions,
        reward=reward,
        tests=[sample.label.tests for sample in samples],
        prompts=[sample.prompt for sample in samples],
    )


def _reward(given: str | None) -> Any:
    try:
        return None if given is None else finite(spec_of_text(given))
    except (InputError, ValueError) as error:
        raise Refused(str(error), place="reward") from error


@contextmanager
def _placed(sample: Single) -> Iterator[None]:
    """Have what is wrong with a sample said with its place in the client's request."""
    try:
        yield
    except Refused as error:
        if not error.errors:
            raise
        places = {
            "tests[0]": sample.label_place,
            "task_ids[0]": sample.label_place,
            "completions[0]": sample.completion_place,
        }
        errors = [FieldError(_moved(one.place, places), one.message) for one in error.errors]
        raise Refused(error.detail, status=error.status, errors=errors, title=error.title) from error


def _moved(place: str, places: dict[str, str]) -> str:
    for ours, theirs in places.items():
        if place.startswith(ours):
            return theirs + place[len(ours) :]
    return place
