"""slime's remote reward model (https://github.com/THUDM/slime, ``slime/rollout/rm_hub``): the answer is a number.

Its client sends one sample a request over 64 connections, tries ten times with growing pauses, and gives up after 120
s.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from grader.extraction.after_prompt import has_special_tokens
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
from grader.server.openapi import PROBLEMS_OF_BODIES, takes
from grader.server.service import Part
from grader.server.streams import JSON


class SlimeRequest(BaseModel):
    """A sample: the prompt (a text, or messages), the response, and the label."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: str | list[Any] | None = None
    response: str
    label: Any


def make_part() -> Part:
    """Make the route."""
    router = shedding_router("slime")
    router.add_api_route(
        "/slime/reward",
        reward_response,
        methods=["POST"],
        response_model=float,
        responses=shed_problems(*PROBLEMS_OF_BODIES),
    )
    return shedding_part(router)


@takes(SlimeRequest)
async def reward_response(
    request: Request, caller: AnyCaller, suite: SuiteParameter = None, reward: RewardParameter = None
) -> Response:
    """Reward a response."""
    _, sample = await read_made(request, SlimeRequest, _sample)
    (found,) = await rewarded(request, caller, [sample], suite, reward)
    value = judged(found)
    return Response(to_json(value), media_type=JSON)  # type: ignore[arg-type]


def _sample(wanted: SlimeRequest) -> Single:
    label = label_at("label", wanted.label)
    shown = wanted.prompt if isinstance(wanted.prompt, str) else ""
    return Single(wanted.response, label, "response", "label", "" if has_special_tokens(shown) else shown)
