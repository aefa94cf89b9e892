"""The wire contract: what goes in and comes out of the command line and the HTTP service, field by field."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from grader.status import Status


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sample(_Wire):
    """One completion for one task; exactly one of ``solution`` and ``completion`` is given."""

    task_id: str = Field(min_length=1, max_length=256)
    sample_id: str = Field(min_length=1, max_length=512)
    solution: str | None = None
    completion: str | None = None


class GroupResult(_Wire):
    """What happened in one test group. ``first_failed`` is the index of the first failing test, or null."""

    status: Status
    passed: int
    total: int
    first_failed: int | None = None


class ProgramError(_Wire):
    """What went wrong inside the program; short, and never with an expected value of a hidden test."""

    type: str
    message: str = ""
    line: int | None = None


class SandboxStamp(_Wire):
    """What isolated the sample: the backend and the layers that were in force."""

    backend: str
    layers: tuple[str, ...]


class Verdict(_Wire):
    """The judgement on one sample. ``passed`` means that every requested group passed.

    With ``fail_fast`` a sample ends at its first failing test; the groups after it are null. Times are in
    seconds. ``reward`` is null for an infrastructure error, which is never a judgement on the program.
    """

    task_id: str
    sample_id: str
    status: Status
    passed: bool
    groups: dict[str, GroupResult | None]
    reward: float | None
    cpu_s: float
    wall_s: float
    peak_memory_bytes: int
    error: ProgramError | None = None
    stdout_tail: str = ""
    sandbox: SandboxStamp
    cached: bool = False
    attempts: int = 1
    extraction: str | None = Field(default=None, description="how the program was found in the completion")
    flags: tuple[str, ...] | None = Field(
        default=None, description="what the program tried, where that was asked for; see docs/rewards.md"
    )


class SuiteIdentity(_Wire):
    """Which suite, exactly."""

    name: str
    version: str
    sha256: str


PassAtK = dict[str, Annotated[float | None, Field(description="null: k is larger than the smallest n")]]


class Summary(_Wire):
    """What a run came to. ``pass_at_k`` maps a group to k to a value; the interval is (low, high)."""

    suite: SuiteIdentity
    samples: int
    tasks: int
    pass_at_k: dict[str, PassAtK]
    pass_at_k_ci95: dict[str, dict[str, tuple[float, float] | None]]
    pass_hat_k: dict[str, PassAtK]
    statuses: dict[str, int]
    infrastructure_errors: int
    wall_s: float
    cpu_s: float
    samples_per_s: float
    limits: dict[str, Any]
    sandbox: SandboxStamp
    engine: str
    workers: int
    grader_version: str
