"""OpenRLHF's remote reward model (https://github.com/OpenRLHF/OpenRLHF, ``openrlhf/utils/agent.py``).

Its client sends one sample a request, tries five times with a second between, and gives up after 180 s.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from grader.extraction.after_prompt import completion_after, has_special_tokens
from grader.server.answers import to_json
from grader.server.auth import AnyCaller
from grader.server.bodies import read_made
from grader.server.compat.rewarding import (
    RewardParameter,
    Single,
    SuiteParameter,
    judged,
    label_at,
    rewarded,
)
from grader.server.compat.shedding import shed_problems, shedding_part, shedding_router
from grader.server.models import MAX_SAMPLES
from grader.server.openapi import PROBLEMS_OF_BODIES, takes
from grader.server.problems import FieldError, Refused
from grader.server.service import Part
from grader.server.streams import JSON

_MAX_ERRORS = 20


class OpenRLHFRequest(BaseModel):
    """Samples, by column: prompt and response in one text, the prompt, and the label."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    query: list[Any] = Field(max_length=MAX_SAMPLES)
    prompts: list[Any] = Field(max_length=MAX_SAMPLES)
    labels: list[Any] = Field(max_length=MAX_SAMPLES)


class OpenRLHFAnswer(BaseModel):
    """A reward and a score a query (the same numbers), and values to be logged."""

    rewards: list[float]
    scores: list[float]
    extra_logs: dict[str, list[float]]


def make_part() -> Part:
    """Make the route."""
    router = shedding_router("openrlhf")
    router.add_api_route(
        "/openrlhf/reward",
        reward_queries,
        methods=["POST"],
        response_model=OpenRLHFAnswer,
        responses=shed_problems(*PROBLEMS_OF_BODIES),
    )
    return shedding_part(router)


@takes(OpenRLHFRequest)
async def reward_queries(
    request: Request, caller: AnyCaller, suite: SuiteParameter = None, reward: RewardParameter = None
) -> Response:
    """Reward what follows each prompt. Empty lists are answered with empty lists."""
    _, samples = await read_made(request, OpenRLHFRequest, _samples)
    found = await rewarded(request, caller, samples, suite, reward)
    rewards = [judged(one) for one in found]
    logs = {
        "passed": [float(one.passed) for one in found],
        "flagged": [float(bool(one.flags)) for one in found],
    }
    answer = {"rewards": rewards, "scores": rewards, "extra_logs": logs}
    return Response(to_json(answer), media_type=JSON)


def _samples(wanted: OpenRLHFRequest) -> list[Single]:
    columns = {"query": wanted.query, "prompts": wanted.prompts, "labels": wanted.labels}
    rows = len(wanted.query)
    errors = [
        FieldError(name, f"{len(values)} entries for {rows} queries; give one each")
        for name, values in columns.items()
        if len(values) != rows
    ]
    if errors:
        raise Refused(errors=errors)
    samples = []
    for number, values in enumerate(zip(wanted.query, wanted.prompts, wanted.labels, strict=True)):
        try:
            samples.append(_sample(number, *values))
        except Refused as error:
            errors.extend(error.errors)
    if errors:
        raise Refused(errors=errors[:_MAX_ERRORS])
    return samples


def _sample(number: int, query: Any, prompt: Any, label: Any) -> Single:
    places = f"query[{number}]", f"labels[{number}]"
    for place, value in ((places[0], query), (f"prompts[{number}]", prompt)):
        if not isinstance(value, str):
            raise Refused("text is needed", place=place)
    completion = completion_after(query, prompt)
    if completion is None:
        raise Refused(
            "it does not begin with its prompt, so what the model said is not known", place=places[0]
        )
    shown = "" if has_special_tokens(prompt) else prompt
    return Single(completion, label_at(places[1], label), *places, prompt=shown)
