"""A resources server of NeMo-Gym (https://github.com/NVIDIA-NeMo/Gym, ``nemo_gym/base_resources_server.py``) for code.

It takes the rows of NeMo-Gym's own ``resources_servers/code_gen``. There are no sessions and no tools.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from grader.errors import InfrastructureError
from grader.server.answers import to_json
from grader.server.auth import AnyCaller
from grader.server.bodies import read_model
from grader.server.compat.rewarding import (
    BrokenTestsError,
    Rewarded,
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
from grader.server.problems import Refused
from grader.server.service import Part
from grader.server.streams import JSON
from grader.suites.inline import MAX_CHARACTERS
from grader.suites.json_values import MAX_VALUES, has_too_many_values
from grader.suites.labels import Label

_TASK_INDEX = "_ng_task_index"
_TESTS = "verifier_metadata.unit_tests"
# So many of them as a request may have can be added up without an overflow.
_MAX_REWARD = 1e300

FailureParameter = Annotated[
    Literal["refuse", "mask"],
    Query(
        description="a sample that could not be judged: refused with 503, or answered with mask_sample true, "
        "for versions of NeMo-Gym that know that field"
    ),
]


class VerifyRequest(BaseModel):
    """A row of a data set, and the model's response. All fields come back in the answer."""

    model_config = ConfigDict(extra="allow", frozen=True)

    responses_create_params: dict[str, Any]
    response: dict[str, Any]
    verifier_metadata: dict[str, Any] | None = None


class VerifyAnswer(VerifyRequest):
    """The request's fields, and the reward. With ``mask_sample`` the reward says nothing about the response."""

    reward: float
    mask_sample: bool = False
    failure_reason: str | None = None
    grader: dict[str, Any] = {}


class SessionRequest(BaseModel):
    """What a session is begun with: of no concern here."""

    model_config = ConfigDict(extra="allow", frozen=True)


class SessionAnswer(BaseModel):
    """A session: nothing belongs to it."""


class MetricsRequest(BaseModel):
    """Answers of ``/verify``, each with its reward and the number of its task."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    verify_responses: list[dict[str, Any]] = Field(max_length=MAX_SAMPLES)


class MetricsAnswer(BaseModel):
    """Metrics by task, over all, and those to be shown first."""

    group_level_metrics: list[dict[str, Any]]
    agent_metrics: dict[str, float]
    key_metrics: dict[str, float]


def make_part() -> Part:
    """Make the routes."""
    router = shedding_router("nemo-gym")
    answers = responses = shed_problems(*PROBLEMS_OF_BODIES)
    router.add_api_route("/verify", verify, methods=["POST"], response_model=VerifyAnswer, responses=answers)
    router.add_api_route(
        "/seed_session", seed_session, methods=["POST"], response_model=SessionAnswer, responses=responses
    )
    router.add_api_route(
        "/aggregate_metrics", aggregate, methods=["POST"], response_model=MetricsAnswer, responses=responses
    )
    return shedding_part(router)


@takes(VerifyRequest)
async def verify(
    request: Request,
    caller: AnyCaller,
    suite: SuiteParameter = None,
    reward: RewardParameter = None,
    infrastructure_error: FailureParameter = "refuse",
) -> Response:
    """Reward a response by its row's unit tests, or by a suite's task."""
    wanted = await read_model(request, VerifyRequest)
    said = _said(wanted.response)
    # In a thread whatever the body's size: tests may be packed.
    label = await asyncio.to_thread(_label, wanted.verifier_metadata or {})
    sample = Single(said, label, "response", _TESTS)
    try:
        (found,) = await rewarded(request, caller, [sample], suite, reward)
        answer = _answer(judged(found), found)
    except InfrastructureError:
        if infrastructure_error == "refuse":
            raise
        answer = _masked("the grader could not judge this sample")
    except BrokenTestsError as error:
        if infrastructure_error == "refuse":
            raise
        answer = _masked(error.detail)
    return Response(to_json({**wanted.model_dump(), **answer}), media_type=JSON)


def _masked(why: str) -> dict[str, Any]:
    return {"reward": 0.0, "mask_sample": True, "failure_reason": why}


@takes(SessionRequest)
async def seed_session(request: Request, caller: AnyCaller) -> Response:
    """Begin a session, to which nothing belongs."""
    await read_model(request, SessionRequest)
    return Response(b"{}", media_type=JSON)


@takes(MetricsRequest)
async def aggregate(request: Request, caller: AnyCaller) -> Response:
    """Count rewards by task and over all. Samples with ``mask_sample`` are left out."""
    wanted = await read_model(request, MetricsRequest)
    groups: dict[Any, list[float]] = {}
    for number, row in enumerate(wanted.verify_responses):
        value, task = row.get("reward"), row.get(_TASK_INDEX)
        if not isinstance(value, int | float) or isinstance(value, bool) or not _is_in_range(value):
            said = f"a number from -{_MAX_REWARD:g} to {_MAX_REWARD:g} is needed"
            raise Refused(said, place=f"verify_responses[{number}].reward")
        if not isinstance(task, int | str | None):
            raise Refused("a number is needed", place=f"verify_responses[{number}].{_TASK_INDEX}")
        if not row.get("mask_sample"):
            groups.setdefault(task, []).append(float(value))
    every = [value for values in groups.values() for value in values]
    means = {"mean/reward": _mean(every)} if every else {}
    answer = {
        "group_level_metrics": [
            {
                _TASK_INDEX: task,
                "mean/reward": _mean(values),
                "max/reward": max(values),
                "rollouts": len(values),
            }
            for task, values in groups.items()
        ],
        "agent_metrics": means | {"rollouts": float(len(every))},
        "key_metrics": means,
    }
    return Response(to_json(answer), media_type=JSON)


def _is_in_range(value: float) -> bool:
    return -_MAX_REWARD <= value <= _MAX_REWARD  # NaN is in no range


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _answer(reward: float, found: Rewarded) -> dict[str, Any]:
    described = {"status": found.status, "passed": found.passed, "flags": found.flags}
    return {"reward": reward, "mask_sample": False, "failure_reason": None, "grader": described}


def _said(response: Mapping[str, Any]) -> str:
    """The text of a response of OpenAI's Responses API: that of its messages, without reasoning and calls."""
    output = response.get("output")
    if not isinstance(output, list):
        raise Refused("a list of items is needed", place="response.output")
    texts = []
    for item in output:
        if not isinstance(item, dict):
            raise Refused("each item is an object", place="response.output")
        content = item.get("content") if item.get("type") == "message" else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "output_text":
                texts.append(str(part.get("text", "")))
    return "".join(texts)


def _label(metadata: Mapping[str, Any]) -> Label:
    tests = metadata.get("unit_tests")
    if tests is None and metadata.get("task_id") is not None:
        tests = {name: metadata[name] for name in ("task_id", "suite") if name in metadata}
    if isinstance(tests, dict) and "packed" in tests:
        tests = {**_unpacked(tests["packed"]), "fn_name": tests.get("fn_name")}
    return label_at(_TESTS, tests)


def _unpacked(packed: Any) -> dict[str, Any]:
    """Tests as NeMo-Gym's data sets have them: zlib in base64. No more is unpacked than a task may have."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(packed, validate=True), MAX_CHARACTERS + 1)
        is_bounded = unpacker.eof and len(text) <= MAX_CHARACTERS and not has_too_many_values(text)
        found = json.loads(text) if is_bounded else None
    except (TypeError, ValueError, binascii.Error, zlib.error, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(
            f"not the base64 of zlib of a JSON object of at most {MAX_CHARACTERS} bytes and {MAX_VALUES} values",
            place=f"{_TESTS}.packed",
        )
    return {name: found[name] for name in ("inputs", "outputs") if name in found}
