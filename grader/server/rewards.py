"""``POST /v1/rewards``: completions in, rewards out, in the same order; ``docs/rewards.md`` describes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from grader.dispatch.contract import Batch, VerdictFields
from grader.errors import InputError
from grader.rewards import (
    Context,
    PassRates,
    Reward,
    RewardResult,
    feedback_text,
    group_features,
    tamper_flags,
)
from grader.schema import Verdict
from grader.server.answers import Asked, in_order, to_json
from grader.server.auth import caller_of
from grader.server.bodies import parsed_aside, read_body
from grader.server.idempotency import HEADER, answered_once, key_given
from grader.server.models import MAX_SAMPLES, MAX_TIMEOUT_S, AnyJson, LimitsIn, Name
from grader.server.openapi import PROBLEMS_OF_BODIES, asks_caller, problems, takes
from grader.server.refusals import NotedRoute, refusals_noted
from grader.server.reward_batches import RewardBatch, find_programs_of, make_reward_batch
from grader.server.service import service_of
from grader.server.streams import JSON, PiecesResponse
from grader.status import Status
from grader.suites.task import Suite, Task

_log = structlog.get_logger("grader.server")

GroupId = Annotated[str, Field(max_length=512)] | int


class RewardsRequest(BaseModel):
    """Completions to be rewarded, one a row; lists that are given have one entry a row.

    The tests of a row are those of its task in ``suite``, or its own ``tests``: an object as in
    ``docs/inline-tests.md``, or the JSON text of one. A completion is a string, or a list of messages whose last one of
    the role ``assistant`` counts. ``reward`` is a reward's name or object; if it is not given, the one that the service
    was started with, else ``binary``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    completions: Annotated[list[AnyJson], Field(max_length=MAX_SAMPLES)]
    suite: Name | None = None
    task_ids: Annotated[list[AnyJson], Field(max_length=MAX_SAMPLES)] | None = None
    tests: Annotated[list[AnyJson], Field(max_length=MAX_SAMPLES)] | None = None
    prompts: Annotated[list[AnyJson], Field(max_length=MAX_SAMPLES)] | None = Field(
        default=None,
        description="what the model was shown, as completions are given; counts beside tests alone",
    )
    reward: AnyJson = Field(default=None, description="a name, or an object: see docs/rewards.md")
    groups: list[Name] | None = Field(
        default=None, min_length=1, max_length=64, description="test groups to run"
    )
    limits: LimitsIn = LimitsIn()
    timeout_s: float | None = Field(default=None, gt=0, le=MAX_TIMEOUT_S)
    fail_fast: bool | None = Field(
        default=None, description="by default true, unless the reward counts all tests"
    )
    use_cache: bool = Field(default=True, description="run identical programs of a task once")
    reference_cpu_s: list[Annotated[float, Field(gt=0)] | None] | None = Field(
        default=None, max_length=MAX_SAMPLES, description="CPU seconds of each row's reference solution"
    )
    group_ids: list[GroupId] | None = Field(
        default=None,
        max_length=MAX_SAMPLES,
        description="which rows are one group; by default those of one task",
    )
    include_group_features: bool = False
    include_verdicts: bool = False
    include_feedback: bool = False
    visible_groups: list[Name] = Field(
        default=[], max_length=64, description="test groups whose inputs the feedback may show"
    )


class GroupOut(BaseModel):
    """One group: its rows, and what came of them. ``mean_pass_rate`` is over time, of a group with one task."""

    group: str | int
    rows: list[int]
    judged: int
    passed: int
    pass_rate: float | None
    all_pass: bool
    all_fail: bool
    mean_pass_rate: float | None


class UnjudgedOut(BaseModel):
    """A row that could not be judged, and why. ``type`` is ``BrokenTests`` where its own tests are at fault."""

    row: int
    type: str
    message: str


class RewardsAnswer(BaseModel):
    """A reward a row; null where a row could not be judged, which says nothing about it.

    ``unjudged`` has an entry for each of those rows.
    """

    rewards: list[float | None]
    components: list[dict[str, float | None]]
    flags: list[list[str]]
    unjudged: list[UnjudgedOut]
    verdicts: list[Verdict] | None = None
    feedback: list[str] | None = None
    group_features: list[GroupOut] | None = None


@runtime_checkable
class KnowsReferences(Protocol):
    """A grading that knows what reference solutions need."""

    def reference_cpu_s(self, suite: Suite, task_id: str, groups: tuple[str, ...] | None) -> float | None:
        """Return the CPU seconds that a task's reference needs for the groups; None where that is not known."""


def rewards_router(pass_rates: PassRates | None = None) -> APIRouter:
    """Make the routes. ``pass_rates`` keeps the pass rates of tasks over time, by tenant, suite and task."""
    rates = pass_rates or PassRates()
    router = APIRouter(prefix="/v1", route_class=NotedRoute)

    @router.post(
        "/rewards",
        tags=["grading"],
        response_model=RewardsAnswer,
        responses=problems(*PROBLEMS_OF_BODIES),
        openapi_extra={"parameters": [HEADER]},
    )
    @takes(RewardsRequest)
    @asks_caller
    async def rewards(request: Request) -> Response:
        """Grade completions and reward them.

        The answer's lists are in the order of the completions. A reward is null where the row could not be judged.
        An empty batch is answered with empty lists. A request that is sent again with the same `Idempotency-Key` gets
        the answer of the first.
        """
        began = time.monotonic()
        deadline_from = asyncio.get_running_loop().time()
        caller, key = await caller_of(request), key_given(request)
        body = await read_body(request)
        service, request_id = service_of(request), request.state.request_id

        async def pieces() -> AsyncGenerator[bytes, None]:
            with refusals_noted(request):
                wanted = with_reward(await parsed_aside(body, RewardsRequest), service.settings.reward)
                knows = isinstance(service.grading, KnowsReferences)
                made = await asyncio.to_thread(
                    make_reward_batch,
                    wanted,
                    service.suites,
                    caller.owner,
                    request_id,
                    knows_references=knows,
                )
            if made.batch is None:
                yield to_json(_empty(wanted))
                return
            deadline = None if wanted.timeout_s is None else deadline_from + wanted.timeout_s
            verdicts: list[VerdictFields] = []
            with caller.taking_samples(len(wanted.completions)):
                batch = await find_programs_of(made, deadline)
                asked = Asked(service, batch, (1,), wanted.use_cache, began, deadline, made.names)
                await asked.collect(verdicts.append)
            judged = in_order(batch, verdicts)
            times = reference_times(wanted, made.reward, batch, judged, service.grading)
            answering = _Answering(wanted, made, batch, judged, times, rates)
            yield await asyncio.to_thread(answering.body, caller.owner.tenant)

        # Pass rates over time are counted as the pieces are made, so once for a request that is sent again.
        return PiecesResponse(
            await answered_once(request, key, caller.owner.tenant, body, JSON, pieces), JSON
        )

    return router


def with_reward(wanted: RewardsRequest, default: Any) -> RewardsRequest:
    """Return the request with the operator's reward, where it names none itself."""
    return wanted if wanted.reward is not None else wanted.model_copy(update={"reward": default})


def _empty(wanted: RewardsRequest) -> dict[str, list[Any]]:
    parts = {
        "verdicts": wanted.include_verdicts,
        "feedback": wanted.include_feedback,
        "group_features": wanted.include_group_features,
    }
    return {
        "rewards": [],
        "components": [],
        "flags": [],
        "unjudged": [],
        **{name: [] for name, asked in parts.items() if asked},
    }


@dataclass(frozen=True, slots=True)
class _Answering:
    """From verdicts, in the order of the rows, to an answer."""

    wanted: RewardsRequest
    made: RewardBatch
    batch: Batch
    verdicts: Sequence[VerdictFields]
    reference_times: Sequence[float | None]
    rates: PassRates

    def body(self, tenant: str) -> bytes:
        """Score the verdicts and write the answer."""
        results: list[RewardResult] = []
        flags: list[tuple[str, ...]] = []
        feedback: list[str] = []
        for row, verdict in enumerate(self.verdicts):
            context = self._context(row)  # with its syntax tree too large to keep one for every row
            results.append(scored(self.made.reward, verdict, context))
            whole = not self._task(row).entry_point
            flags.append(tamper_flags(context.source, verdict, whole_program=whole))
            if self.wanted.include_feedback:
                feedback.append(feedback_text(verdict, context, self.wanted.visible_groups))
        features = self._group_features(tenant)
        answer: dict[str, Any] = {
            "rewards": [result.value for result in results],
            "components": [result.components for result in results],
            "flags": flags,
            "unjudged": self._unjudged(),
        }
        if self.wanted.include_verdicts:
            answer["verdicts"] = self.verdicts
        if self.wanted.include_feedback:
            answer["feedback"] = feedback
        if self.wanted.include_group_features:
            answer["group_features"] = features
        return to_json(answer)

    def _unjudged(self) -> list[dict[str, Any]]:
        return [
            {"row": row, "type": verdict["error"]["type"], "message": verdict["error"]["message"]}
            for row, verdict in enumerate(self.verdicts)
            if verdict["status"] == Status.INFRASTRUCTURE_ERROR
        ]

    def _task(self, row: int) -> Task:
        return self.batch.suite.tasks[self.batch.programs[row].task_id]

    def _context(self, row: int) -> Context:
        return Context(
            task=self._task(row),
            source=self.batch.programs[row].source,
            completion=self.made.completions[row],
            reference_cpu_s=self.reference_times[row],
        )

    def _group_features(self, tenant: str) -> list[dict[str, Any]]:
        """Describe the groups, and note the pass rates of their tasks."""
        tasks = [program.task_id for program in self.batch.programs]
        passed = [None if verdict["reward"] is None else bool(verdict["passed"]) for verdict in self.verdicts]
        means = {
            task: self.rates.update((tenant, self.batch.suite.sha256, task), features)
            for task, features in group_features(tasks, passed).items()
        }
        keys: Sequence[str | int] = self.wanted.group_ids or [verdict["task_id"] for verdict in self.verdicts]
        rows: dict[str | int, list[int]] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, []).append(row)
        return [
            {
                "group": key,
                "rows": rows[key],
                "judged": features.judged,
                "passed": features.passed,
                "pass_rate": features.pass_rate,
                "all_pass": features.all_pass,
                "all_fail": features.all_fail,
                "mean_pass_rate": _only(means[task] for task in {tasks[row] for row in rows[key]}),
            }
            for key, features in group_features(keys, passed).items()
        ]


def _only(values: Iterable[float | None]) -> float | None:
    found = list(values)
    return found[0] if len(found) == 1 else None


def reference_times(
    wanted: RewardsRequest, reward: Reward, batch: Batch, verdicts: Sequence[VerdictFields], grading: object
) -> list[float | None]:
    """The CPU seconds of each row's reference, where the reward needs them: those given, or those measured."""
    given = wanted.reference_cpu_s or [None] * len(verdicts)
    if not reward.needs_reference_time or not isinstance(grading, KnowsReferences):
        return list(given)
    known: dict[str, float | None] = {}
    times = []
    for row, verdict in enumerate(verdicts):
        task_id, seconds = batch.programs[row].task_id, given[row]
        if seconds is None and verdict["passed"]:
            if task_id not in known:
                known[task_id] = grading.reference_cpu_s(batch.suite, task_id, batch.groups)
            seconds = known[task_id]
        times.append(seconds)
    return times


def scored(reward: Reward, verdict: Mapping[str, Any], context: Context) -> RewardResult:
    """Score a verdict. What turns out to be missing now is an affair of ours: no reward, and never 0."""
    try:
        return reward(verdict, context)
    except InputError as error:
        _log.error("reward_not_made", task_id=verdict["task_id"], error=str(error))
        return RewardResult(None, dict.fromkeys(reward.names))
