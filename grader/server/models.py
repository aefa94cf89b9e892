"""What the service takes and gives, as pydantic models with a limit on every field.

Requests are parsed from bytes by pydantic's own JSON parser in strict mode: a string is no number, and what is not
named here is refused. Answers are not built from these models, which would cost more than the answer does; they
document it, and a test holds the two against each other.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from grader.limits import GIB, MIB, Limits
from grader.samples import MAX_ID_CHARACTERS
from grader.schema import SuiteIdentity, Summary, Verdict

MAX_SAMPLES = 100_000
MAX_TEXT_CHARACTERS = 4 * MIB
MAX_TASK_ID_CHARACTERS = 256
MAX_TIMEOUT_S = 86_400.0

_Tests = dict[str, Any] | list[Any] | None


def finite(given: Any) -> Any:
    """Refuse NaN and infinities, which are no JSON, though the parser reads them where any value may be."""
    if isinstance(given, str):  # nearly everything, in a large batch
        return given
    left: list[Any] = [given]
    while left:
        value = left.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("NaN and Infinity are no JSON numbers")
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return given


Name = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]
AnyJson = Annotated[Any, AfterValidator(finite)]
K = Annotated[int, Field(ge=1, le=1_000_000)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SampleIn(_Request):
    """One completion for one task, or with tests of its own.

    Exactly one of ``solution`` (a whole program) and ``completion`` (what a model said; the program is found in it) is
    given. A missing ``sample_id`` becomes ``<task_id>:<n>``, n counting the task's samples from 0.
    """

    task_id: str = Field(min_length=1, max_length=MAX_TASK_ID_CHARACTERS)
    sample_id: str | None = Field(default=None, min_length=1, max_length=MAX_ID_CHARACTERS)
    solution: Text | None = None
    completion: Text | None = None
    tests: Annotated[_Tests, AfterValidator(finite)] = Field(
        default=None, description="tests of this sample's own, in a request that names no suite"
    )


class LimitsIn(_Request):
    """What one sample may use; what is left out has its default, and the service's and an API key's ceilings lower what
    is above them.

    Times are CPU seconds, except ``idle_s``: seconds in which a program neither runs nor waits for a processor.
    """

    time_floor_s: float | None = Field(default=None, gt=0, le=3600)
    time_factor: float | None = Field(default=None, gt=0, le=1000)
    group_time_s: float | None = Field(default=None, gt=0, le=MAX_TIMEOUT_S)
    idle_s: float | None = Field(default=None, gt=0, le=3600)
    memory_bytes: int | None = Field(default=None, ge=16 * MIB, le=256 * GIB)
    answer_bytes: int | None = Field(default=None, ge=1024, le=GIB)
    stdout_bytes: int | None = Field(default=None, ge=1, le=16 * MIB)
    threads: int | None = Field(default=None, ge=1, le=Limits().threads)  # cells are made for so many
    tmp_bytes: int | None = Field(default=None, ge=4096, le=16 * GIB)

    def limits(self, ceilings: Limits | None = None) -> Limits:
        """Return the limits that are meant: the defaults, changed by what is given, lowered to ``ceilings``."""
        given = {name: value for name, value in self.__dict__.items() if value is not None}
        limits = replace(Limits(), **given)
        return limits if ceilings is None else limits.within(ceilings)

    def ceilings(self) -> Limits:
        """Return limits that bound what is named here, and nothing else."""
        open_ended: dict[str, Any] = {field.name: math.inf for field in fields(Limits)}
        return Limits(**{**open_ended, "idle_s": None, **self.model_dump(exclude_none=True)})


class GradeRequest(_Request):
    """Samples to be graded, and how.

    ``timeout_s`` is wall-clock time from the arrival of the request: what has not been judged by then is answered with
    the status ``infrastructure_error`` and an error of the type ``DeadlineExceeded``, never with a failure.
    """

    suite: Name | None = Field(default=None, description="a suite's name, e.g. humaneval+; see /v1/suites")
    samples: list[SampleIn] = Field(min_length=1, max_length=MAX_SAMPLES)
    groups: list[Name] | None = Field(
        default=None, min_length=1, max_length=64, description="test groups to run; all by default"
    )
    k: list[K] = Field(default=[1, 10, 100], min_length=1, max_length=64, description="the k of pass@k")
    limits: LimitsIn = LimitsIn()
    profile: Literal["full", "rewards"] = Field(
        default="full", description="which tests are run: all of them, or those that tell most"
    )
    fail_fast: bool = Field(default=True, description="end a sample at its first failing test")
    use_cache: bool = Field(default=True, description="run identical programs of a task once")
    timeout_s: float | None = Field(default=None, gt=0, le=MAX_TIMEOUT_S)
    include_flags: bool = Field(
        default=False, description="give each verdict flags: what its program tried; see docs/rewards.md"
    )


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GradeAnswer(_Answer):
    """Verdicts in the order of the request's samples, and what they come to."""

    verdicts: list[Verdict]
    summary: Summary


class SuiteOut(_Answer):
    """A suite that requests can name. ``available``: its data is on this server."""

    name: str
    aliases: list[str]
    version: str
    description: str
    licence: str
    sha256: str | None
    available: bool


class SuitesAnswer(_Answer):
    """The suites that requests can name."""

    suites: list[SuiteOut]


class TaskOut(_Answer):
    """One problem, as a model may be shown it: no reference solution, no tests."""

    task_id: str
    prompt: str
    entry_point: str
    groups: list[str]


class TasksAnswer(_Answer):
    """The tasks of a suite, in its order."""

    suite: SuiteIdentity
    tasks: list[TaskOut]


class FieldProblem(_Answer):
    """What is wrong with one field. ``place`` is a path such as ``samples[3].task_id``; "" is the whole body."""

    place: str
    message: str


class ProblemAnswer(BaseModel):
    """Problem details as in RFC 9457, with media type ``application/problem+json``.

    ``type`` is a relative reference that stays the same for one kind of problem; ``request_id`` is what to give to
    whoever runs the service.
    """

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
    errors: list[FieldProblem] | None = Field(
        default=None, description="one entry for each field that is wrong"
    )
    retry_after_s: float | None = Field(default=None, description="wall-clock seconds, as in Retry-After")
