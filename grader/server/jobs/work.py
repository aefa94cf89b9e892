"""What a job's request asks for, made again from its stored body: batches of a few samples each, and a summary."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from grader.dispatch.contract import Batch
from grader.limits import Limits
from grader.run import program_of
from grader.samples import GivenSample
from grader.schema import SuiteIdentity
from grader.scoring.summary import Tally, summarize
from grader.server.batches import Owner, given_task_ids, make_batch
from grader.server.models import GradeRequest
from grader.server.suites import Suites

# What is left of a deadline that has passed: the dispatcher answers such a batch without starting anything.
_NO_TIME_S = 0.001


def outlined(request: GradeRequest, suites: Suites, *, owner: Owner, request_id: str) -> Batch:
    """Check a request as a whole, and return its batch with empty programs: finding the programs of 100,000
    completions takes a minute, and is done when they are to be run. Blocks; raises Refused as ``make_batch`` does.
    """
    bare = [
        sample
        if (sample.solution is None) == (sample.completion is None)
        else sample.model_copy(update={"solution": "", "completion": None})
        for sample in request.samples
    ]
    outline = request.model_copy(update={"samples": bare})
    return make_batch(outline, suites, owner=owner, request_id=request_id, priority="background")


def owner_to_json(owner: Owner) -> str:
    """Return what has to be known of a job's owner when it is resumed."""
    ceilings = None if owner.ceilings is None else asdict(owner.ceilings)
    return json.dumps({"weight": owner.weight, "ceilings": ceilings})


def owner_from_json(tenant: str, text: str) -> Owner:
    """Return the owner that :func:`owner_to_json` was given."""
    fields = json.loads(text)
    ceilings = None if fields["ceilings"] is None else Limits(**fields["ceilings"])
    return Owner(tenant=tenant, weight=fields["weight"], ceilings=ceilings)


@dataclass(frozen=True, slots=True)
class Work:
    """The samples of a job, and how they are to be graded.

    ``deadline`` is on this process's monotonic clock, in seconds. ``task_ids``: by sample_id, the task names that the
    request knows, where they are not the batch's.
    """

    request: GradeRequest
    outline: Batch
    deadline: float | None
    task_ids: Mapping[str, str]

    @classmethod
    def of(cls, body: bytes, suites: Suites, *, owner: Owner, job_id: str, accepted_at: float) -> Work:
        """Read a stored request, accepted at ``accepted_at`` on the monotonic clock. Blocks; raises Refused, or
        pydantic's ValidationError where another version of the grader accepted what this one does not.
        """
        request = GradeRequest.model_validate_json(body)
        outline = outlined(request, suites, owner=owner, request_id=job_id)
        deadline = None if request.timeout_s is None else accepted_at + request.timeout_s
        return cls(request, outline, deadline, given_task_ids(request, outline))

    def remaining(self, recorded: bytearray) -> list[int]:
        """Return the positions without a verdict, those of one task together: a worker has its inputs at hand."""
        programs = self.outline.programs
        missing = (position for position in range(len(programs)) if not recorded[position])
        return sorted(missing, key=lambda position: programs[position].task_id)

    def batch(self, positions: Sequence[int]) -> Batch:
        """Make the batch of some of the samples. Blocks: programs are found in completions."""
        programs = []
        for position in positions:
            sample, known = self.request.samples[position], self.outline.programs[position]
            is_solution = sample.solution is not None
            text = sample.solution if is_solution else sample.completion
            given = GivenSample(known.task_id, known.sample_id, text or "", is_solution)
            programs.append(program_of(given, self.outline.suite))
        left = None if self.deadline is None else max(_NO_TIME_S, self.deadline - time.monotonic())
        return replace(self.outline, programs=programs, timeout_s=left)

    def positions(self, positions: Sequence[int]) -> dict[str, int]:
        """Return the position of each sample_id."""
        return {self.outline.programs[position].sample_id: position for position in positions}

    def tally(self) -> Tally:
        """Return a tally for the job's verdicts."""
        return Tally(self.outline.groups or ())

    def summary(
        self, tally: Tally, *, wall_s: float, sandbox: Mapping[str, Any], engine: str, workers: int
    ) -> str:
        """Return the summary as JSON. Blocks."""
        suite = self.outline.suite
        return summarize(
            tally,
            suite=SuiteIdentity(name=suite.name, version=suite.version, sha256=suite.sha256),
            ks=sorted(set(self.request.k)),
            wall_s=wall_s,
            limits=self.outline.limits,
            sandbox=sandbox,
            engine=engine,
            workers=workers,
        ).model_dump_json()


def recount(tally: Tally, recorded: Iterator[tuple[int, str]], samples: int) -> tuple[bytearray, Any]:
    """Count recorded verdicts; return which positions have one, and the sandbox stamp of the last. Blocks."""
    found = bytearray(samples)
    stamp: Any = None
    for position, line in recorded:
        verdict = json.loads(line)
        tally.add(verdict)
        found[position] = 1
        stamp = verdict["sandbox"]
    return found, stamp
