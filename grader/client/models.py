"""What the client's calls return, besides ``grader.schema``'s verdicts and summaries.

These take fields that they do not know, and keep them, so that a client works with a newer server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from grader.schema import Summary, Verdict


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


@dataclass(frozen=True, slots=True)
class GradeResult:
    """Verdicts in the order of the samples, and what they come to.

    A sample that could not be graded has the status ``infrastructure_error`` and the reward None.
    """

    verdicts: tuple[Verdict, ...]
    summary: Summary

    @property
    def rewards(self) -> list[float | None]:
        """The verdicts' rewards; None where the sample could not be graded."""
        return [verdict.reward for verdict in self.verdicts]


class RewardsResult(_Lenient):
    """Rewards in the order of the completions; None where one could not be graded, which is never a 0.

    ``components`` has one object a completion, with the parts that its reward was made of; ``flags`` says what a
    program tried that it should not. ``unjudged`` has, for each completion without a reward, its ``row``, and the
    ``type`` and ``message`` of what prevented it. ``verdicts`` and ``feedback`` are there where the request includes
    them.
    """

    rewards: list[float | None]
    components: list[dict[str, Any]] = []
    flags: list[list[str]] = []
    unjudged: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] | None = None
    feedback: list[str] | None = None


class Job(_Lenient):
    """How a job is. ``state`` is ``queued``, ``running``, ``done`` or ``failed``.

    Of ``samples``, ``recorded`` have a verdict; ``statuses`` counts them. ``summary`` is there when it is done,
    ``failure`` says why it could not be, and ``waits_for`` why it does not go on for now.
    """

    id: str
    state: str
    samples: int = 0
    recorded: int = 0
    statuses: dict[str, int] = {}
    summary: Summary | None = None
    failure: str | None = None
    waits_for: str | None = None


class SuiteInfo(_Lenient):
    """A suite that requests can name. ``available``: the server has its data."""

    name: str
    version: str
    aliases: list[str] = []
    description: str = ""
    sha256: str | None = None
    available: bool = True


class TaskInfo(_Lenient):
    """One problem as a model may be shown it, and the names of its test groups."""

    task_id: str
    prompt: str
    entry_point: str
    groups: list[str] = []
