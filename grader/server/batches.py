"""From a request to a batch: the suite and the tasks are looked up, the programs assembled, and all of it checked.

Nothing here needs a running application. What cannot be graded is refused before anything runs, with its place.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from grader.dispatch.contract import Batch, Priority
from grader.errors import InputError, SuiteError
from grader.limits import Limits
from grader.run import checked_groups
from grader.samples import GivenSample
from grader.server.finding import find_programs, programs_of
from grader.server.models import GradeRequest, SampleIn
from grader.server.problems import FieldError, Refused
from grader.server.suites import Suites
from grader.suites.inline import InlineTasks
from grader.suites.task import Suite

_MAX_ERRORS = 20
# What a hand-over to a thread costs is more than assembling this many whole programs.
_SAMPLES_AT_ONCE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose request it is: its tenant, the tenant's share of the workers, and the ceilings on its limits."""

    tenant: str = "anonymous"
    weight: float = 1.0
    ceilings: Limits | None = None


def make_batch(
    request: GradeRequest,
    suites: Suites,
    *,
    owner: Owner,
    request_id: str,
    priority: Priority = "interactive",
) -> Batch:
    """Make the batch that a request asks for. ``batch.groups`` are the groups to run, in the suite's order.

    Blocks: a suite may have to be loaded, and programs to be found in completions; see :func:`prepare_batch`.

    Raises Refused, with the place of each mistake, for an unknown suite, group or task, for a sample with both or
    neither of ``solution`` and ``completion``, and for a ``sample_id`` that is used twice.
    """
    batch, samples = _outline(request, suites, owner, request_id, priority)
    return replace(batch, programs=programs_of(samples, batch.suite))


def _outline(
    request: GradeRequest, suites: Suites, owner: Owner, request_id: str, priority: Priority
) -> tuple[Batch, list[GivenSample]]:
    """The batch without its programs, and the samples that these are to be found in."""
    if request.profile != "full":
        raise Refused(f"the profile {request.profile!r} is not available in this version", place="profile")
    suite, task_ids = _suite_of(request, suites)
    try:
        groups = checked_groups(suite, request.groups)
    except InputError as error:
        raise Refused(str(error), place="groups") from error
    samples = checked_samples(request.samples, suite, task_ids)
    batch = Batch(
        request_id=request_id,
        suite=suite,
        programs=(),
        groups=groups,
        limits=request.limits.limits(owner.ceilings),
        fail_fast=request.fail_fast,
        tenant=owner.tenant,
        weight=owner.weight,
        priority=priority,
        timeout_s=request.timeout_s,
    )
    return batch, samples


async def prepare_batch(
    request: GradeRequest,
    suites: Suites,
    *,
    owner: Owner,
    request_id: str,
    deadline: float | None = None,
    priority: Priority = "interactive",
) -> Batch:
    """Do as :func:`make_batch` does, in threads unless it is quick.

    After ``deadline``, on the event loop's clock, the programs that have not been found are left empty.
    """
    quick = (
        request.suite is not None
        and suites.loaded(request.suite) is not None
        and len(request.samples) <= _SAMPLES_AT_ONCE
        and all(sample.solution is not None for sample in request.samples)
    )
    if quick:
        return make_batch(request, suites, owner=owner, request_id=request_id, priority=priority)
    batch, samples = await asyncio.to_thread(_outline, request, suites, owner, request_id, priority)
    return replace(batch, programs=await find_programs(samples, batch.suite, deadline))


def checked_samples(
    samples: Sequence[SampleIn], suite: Suite, task_ids: Sequence[str] | None = None
) -> list[GivenSample]:
    """Return the samples, each with a ``sample_id``. Raises Refused with the place of each one that is wrong.

    ``task_ids``: the tasks of the samples, where they are not the suite's own names.
    """
    errors: list[FieldError] = []
    given: list[GivenSample] = []
    places: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for number, sample in enumerate(samples):
        sample_id = sample.sample_id or f"{sample.task_id}:{seen[sample.task_id]}"
        seen[sample.task_id] += 1
        task_id = sample.task_id if task_ids is None else task_ids[number]
        error = _mistake(sample, task_id, number, suite)
        if error is None and (first := places.setdefault(sample_id, number)) != number:
            said = f"samples[{first}] has the sample_id {sample_id!r} too; give each sample its own"
            error = FieldError(f"samples[{number}].sample_id", said)
        if error is not None:
            errors.append(error)
            if len(errors) == _MAX_ERRORS:
                break
            continue
        is_solution = sample.solution is not None
        text = sample.solution if is_solution else sample.completion
        given.append(GivenSample(task_id, sample_id, text or "", is_solution))
    if errors:
        raise Refused(errors=errors)
    return given


def given_task_ids(request: GradeRequest, batch: Batch) -> dict[str, str]:
    """Return, by ``sample_id``, the task names that the request gave, where the batch has others.

    Tasks of inline tests are known by a digest of the tests; their verdicts are to have the request's own names.
    """
    pairs = zip(request.samples, batch.programs, strict=True)
    return {
        program.sample_id: sample.task_id for sample, program in pairs if sample.task_id != program.task_id
    }


def _suite_of(request: GradeRequest, suites: Suites) -> tuple[Suite, list[str] | None]:
    """The suite, and the samples' tasks in it where the samples do not name them."""
    own_tests = next((n for n, sample in enumerate(request.samples) if sample.tests is not None), None)
    if own_tests is None:
        if request.suite is None:
            raise Refused("name a suite; /v1/suites lists them", place="suite")
        return suites.loaded(request.suite) or suites.load(request.suite), None
    if request.suite is not None:
        raise Refused(
            "a request that names a suite is graded by the suite's tests; leave out either of them",
            place=f"samples[{own_tests}].tests",
        )
    return _inline_suite(request.samples)


def _inline_suite(samples: Sequence[SampleIn]) -> tuple[Suite, list[str]]:
    """The suite of the samples' own tests, and each sample's task in it."""
    tasks = InlineTasks()
    task_ids: list[str] = []
    first_of: dict[str, int] = {}
    for number, sample in enumerate(samples):
        place = f"samples[{number}].tests"
        if sample.tests is None:
            raise Refused(
                "missing: where a sample has tests of its own, every sample needs them", place=place
            )
        try:
            task_ids.append(tasks.add(sample.tests, place))
        except SuiteError as error:
            where, _, said = str(error).partition(": ")
            raise Refused(said, place=where) if said else Refused(str(error), place=place) from error
        first = first_of.setdefault(sample.task_id, number)
        if task_ids[first] != task_ids[number]:
            said = f"samples[{first}] has other tests for the task {sample.task_id!r}; give this one another task_id"
            raise Refused(said, place=place)
    return tasks.suite, task_ids


def _mistake(sample: SampleIn, task_id: str, number: int, suite: Suite) -> FieldError | None:
    if task_id not in suite.tasks:
        example = next(iter(suite.tasks), "")
        return FieldError(
            f"samples[{number}].task_id",
            f"{suite.name} has no task {sample.task_id!r}; its tasks are named like {example!r}",
        )
    if (sample.solution is None) == (sample.completion is None):
        which = (
            "neither solution nor completion" if sample.solution is None else "both solution and completion"
        )
        return FieldError(f"samples[{number}]", f"the sample has {which}; give exactly one of them")
    return None
