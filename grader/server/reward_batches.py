"""From a request for rewards to a batch: everything in it is checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from grader.dispatch.contract import Batch
from grader.errors import InputError, SuiteError
from grader.rewards import Reward, parse
from grader.run import checked_groups
from grader.samples import GivenSample
from grader.server.batches import Owner
from grader.server.finding import find_programs
from grader.server.models import MAX_TASK_ID_CHARACTERS, MAX_TEXT_CHARACTERS
from grader.server.problems import FieldError, Refused
from grader.server.suites import Suites
from grader.suites.inline import InlineTasks
from grader.suites.task import FunctionTests, Suite, Task

if TYPE_CHECKING:
    from grader.server.rewards import RewardsRequest

_MAX_ERRORS = 20
_PARALLEL = ("task_ids", "tests", "prompts", "reference_cpu_s", "group_ids")


@dataclass(frozen=True, slots=True)
class RewardBatch:
    """What a request asks for. ``batch``, still without programs, is None where it has no rows. ``names``: by sample,
    the task names that the request gave, where the batch has others. ``task_ids``: each row's task in the suite."""

    reward: Reward
    batch: Batch | None = None
    completions: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    task_ids: Sequence[str] = ()


def make_reward_batch(
    wanted: RewardsRequest, suites: Suites, owner: Owner, request_id: str, *, knows_references: bool
) -> RewardBatch:
    """Make the batch that a request asks for, without its programs; see :func:`find_programs_of`. Blocks: a suite may
    have to be loaded.

    ``knows_references``: the grading can say what reference solutions need. Raises Refused, with the place of each
    mistake.
    """
    reward = _reward(wanted)
    _check_lengths(wanted)
    if not wanted.completions:
        return RewardBatch(reward)
    completions = _texts(wanted.completions, "completions", refuse_null=True)
    suite, task_ids = _tasks(wanted, suites)
    try:
        groups = checked_groups(suite, wanted.groups)
    except InputError as error:
        raise Refused(str(error), place="groups") from error
    _check_needs(wanted, reward, suite, task_ids, groups, knows_references)
    batch = Batch(
        request_id=request_id,
        suite=suite,
        programs=(),
        groups=groups,
        limits=wanted.limits.limits(owner.ceilings),
        fail_fast=not reward.needs_all_tests if wanted.fail_fast is None else wanted.fail_fast,
        tenant=owner.tenant,
        weight=owner.weight,
        timeout_s=wanted.timeout_s,
    )
    names = {} if wanted.tests is None or wanted.task_ids is None else _given_names(wanted.task_ids)
    return RewardBatch(reward, batch, completions, names, task_ids)


async def find_programs_of(made: RewardBatch, deadline: float | None) -> Batch:
    """Return the batch with its programs, each found once for equal rows; see ``finding.find_programs``."""
    assert made.batch is not None
    rows = list(zip(made.task_ids, made.completions, strict=True))
    different = list(dict.fromkeys(rows))
    samples = [GivenSample(task_id, "", text, is_solution=False) for task_id, text in different]
    programs = await find_programs(samples, made.batch.suite, deadline)
    found = dict(zip(different, programs, strict=True))
    return replace(
        made.batch, programs=[replace(found[row], sample_id=str(number)) for number, row in enumerate(rows)]
    )


def _reward(wanted: RewardsRequest) -> Reward:
    try:
        reward = parse(wanted.reward)
    except InputError as error:
        place, _, said = str(error).partition(": ")
        raise Refused(said, place=place) from error
    if reward.needs_all_tests and wanted.fail_fast:
        raise Refused("true, but the reward counts all tests; leave it out", place="fail_fast")
    return reward


def _check_lengths(wanted: RewardsRequest) -> None:
    rows = len(wanted.completions)
    given = {name: getattr(wanted, name) for name in _PARALLEL}
    _refuse(
        FieldError(name, f"{len(values)} entries for {rows} completions; give one each")
        for name, values in given.items()
        if values is not None and len(values) != rows
    )


def _tasks(wanted: RewardsRequest, suites: Suites) -> tuple[Suite, list[str]]:
    """The suite, and each row's task in it."""
    if wanted.tests is not None:
        if wanted.suite is not None:
            said = "rows have either tests of their own or tasks of a suite; leave out one of them"
            raise Refused(said, place="tests")
        return _inline(wanted)
    if wanted.suite is None:
        raise Refused("name a suite (/v1/suites lists them), or give tests", place="suite")
    if wanted.task_ids is None:
        raise Refused("missing: which task of the suite each row is of", place="task_ids")
    if wanted.prompts is not None:
        said = "the tasks of a suite have their own prompts; prompts are for rows with tests of their own"
        raise Refused(said, place="prompts")
    suite = suites.loaded(wanted.suite) or suites.load(wanted.suite)
    example = next(iter(suite.tasks), "")
    _refuse(
        FieldError(
            f"task_ids[{row}]",
            f"{suite.name} has no task {ascii(task_id)[:100]}; its tasks are named like {example!r}",
        )
        for row, task_id in enumerate(wanted.task_ids)
        if not isinstance(task_id, str) or task_id not in suite.tasks
    )
    return suite, list(wanted.task_ids)


def _inline(wanted: RewardsRequest) -> tuple[Suite, list[str]]:
    tests = wanted.tests or []
    prompts = [""] * len(tests)
    if wanted.prompts is not None:
        prompts = _texts(wanted.prompts, "prompts", refuse_null=False)
    tasks, task_ids, errors = InlineTasks(), [], []
    for row, (given, prompt) in enumerate(zip(tests, prompts, strict=True)):
        try:
            task_ids.append(tasks.add(given, f"tests[{row}]", prompt))
        except SuiteError as error:
            place, _, said = str(error).partition(": ")
            errors.append(FieldError(place, said))
    _refuse(errors)
    _refuse(
        FieldError(f"task_ids[{row}]", f"a string of 1 to {MAX_TASK_ID_CHARACTERS} characters is needed")
        for row, name in enumerate(wanted.task_ids or ())
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_TASK_ID_CHARACTERS
    )
    return tasks.suite, task_ids


def _given_names(task_ids: Sequence[str]) -> dict[str, str]:
    return {str(row): name for row, name in enumerate(task_ids)}


def _check_needs(
    wanted: RewardsRequest,
    reward: Reward,
    suite: Suite,
    task_ids: Sequence[str],
    groups: Sequence[str],
    knows_references: bool,
) -> None:
    """Refuse what the reward could not be made of, once the programs have been run."""
    errors = []
    for row, task_id in enumerate(task_ids):
        task = suite.tasks[task_id]
        run = {group.name for group in task.groups} & set(groups)
        lacking = next((needed for needed in reward.needs_groups if not run & set(needed)), None)
        if lacking is not None:
            said = f"the reward counts the groups {', '.join(lacking)}, and row {row} runs {', '.join(sorted(run))}"
            errors.append(FieldError("reward", said))
        given = wanted.reference_cpu_s is not None and wanted.reference_cpu_s[row] is not None
        if reward.needs_reference_time and not given and not (knows_references and _has_reference_time(task)):
            said = f"the time of a reference solution is not known for row {row}; give its CPU seconds"
            errors.append(FieldError(f"reference_cpu_s[{row}]", said))
    _refuse(errors)


def _has_reference_time(task: Task) -> bool:
    """Whether the task's reference is run for its answers, and so timed."""
    tests = [group.tests for group in task.groups]
    return bool(task.reference) and all(
        isinstance(each, FunctionTests) and each.expected is None for each in tests
    )


def _texts(values: Sequence[Any], name: str, *, refuse_null: bool) -> list[str]:
    texts, errors = [], []
    for row, value in enumerate(values):
        found = "" if value is None and not refuse_null else _text(value, f"{name}[{row}]")
        if isinstance(found, str) and len(found) > MAX_TEXT_CHARACTERS:
            said = f"{len(found)} characters; at most {MAX_TEXT_CHARACTERS} are taken"
            found = FieldError(f"{name}[{row}]", said)
        if isinstance(found, FieldError):
            errors.append(found)
        else:
            texts.append(found)
    _refuse(errors)
    return texts


def _text(value: Any, place: str) -> str | FieldError:
    """The text of a string, or of the messages of a conversation: that of its last message by the assistant."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return FieldError(place, f"a string or a list of messages is needed, not {_kind(value)}")
    if place.startswith("prompts"):
        parts = [_content(message, f"{place}[{number}]") for number, message in enumerate(value)]
        return next((part for part in parts if isinstance(part, FieldError)), "") or "\n".join(
            map(str, parts)
        )
    for number in range(len(value) - 1, -1, -1):
        message = value[number]
        if not isinstance(message, dict) or message.get("role") == "assistant":
            return _content(message, f"{place}[{number}]")
    return FieldError(place, "none of its messages has the role assistant")


def _content(message: Any, place: str) -> str | FieldError:
    if not isinstance(message, dict) or "content" not in message:
        return FieldError(place, "a message is an object with role and content")
    content = message["content"]
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        return FieldError(f"{place}.content", f"text is needed, not {_kind(content)}")
    return content


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), "a string")


def _refuse(errors: Any) -> None:
    found = list(errors)[:_MAX_ERRORS]
    if found:
        raise Refused(errors=found)
