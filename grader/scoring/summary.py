"""From verdicts to a summary: a tally that grows verdict by verdict, and what it comes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grader.limits import Limits
from grader.schema import SandboxStamp, SuiteIdentity, Summary
from grader.scoring.bootstrap import bootstrap_ci95
from grader.scoring.estimators import pass_at_k, pass_hat_k
from grader.status import Status
from grader.version import __version__

Estimator = Callable[[int, int, int], float]


@dataclass(slots=True)
class _TaskTally:
    """``passed``: how many passed, up to each of the groups."""

    judged: int
    passed: list[int]


class Tally:
    """Counts verdicts as they come, without keeping them.

    Groups are cumulative in suite order: a sample passes ``plus`` when it passed ``base`` and ``plus``. That
    is what "passes HumanEval+" means in EvalPlus (its ``new_correct``), for any number of groups. Only
    requested groups count, and a group that a task does not have is passed over. Infrastructure errors say
    nothing about the program: they are left out of n.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        self.groups = tuple(groups)
        self.samples = 0
        self.fresh = 0
        self.cpu_s = 0.0
        self.statuses: Counter[str] = Counter()
        self._tasks: dict[str, _TaskTally] = {}

    @property
    def tasks(self) -> int:
        """How many tasks have samples."""
        return len(self._tasks)

    @property
    def infrastructure_errors(self) -> int:
        """How many samples could not be judged."""
        return self.statuses[Status.INFRASTRUCTURE_ERROR]

    def add(self, verdict: Mapping[str, Any], *, resumed: bool = False) -> None:
        """Count one verdict (fields of ``schema.Verdict``); ``resumed``: it was made by an earlier run."""
        status = str(verdict["status"])
        self.samples += 1
        self.fresh += not resumed
        self.statuses[status] += 1
        if not verdict["cached"]:  # a copy's time was spent, and counted, once
            self.cpu_s += verdict["cpu_s"]
        task_id = verdict["task_id"]
        task = self._tasks.get(task_id)
        if task is None:
            task = self._tasks[task_id] = _TaskTally(0, [0] * len(self.groups))
        if status == Status.INFRASTRUCTURE_ERROR:
            return
        task.judged += 1
        results = verdict["groups"]
        for number, group in enumerate(self.groups):
            if group in results and (results[group] or {}).get("status") != Status.PASSED:
                break
            task.passed[number] += 1

    def counts(self, group: str) -> list[tuple[int, int]]:
        """Return (n, c) for each task: samples that were judged, and how many passed up to ``group``.

        In the order of the tasks' names: the bootstrap draws by place, and verdicts come in any order.
        """
        number = self.groups.index(group)
        return [(task.judged, task.passed[number]) for _, task in sorted(self._tasks.items())]

    def smallest_n(self) -> int:
        """Return the smallest number of judged samples that any task has; 0 where nothing was judged."""
        return min((task.judged for task in self._tasks.values()), default=0)


def summarize(
    tally: Tally,
    *,
    suite: SuiteIdentity,
    ks: Sequence[int],
    wall_s: float,
    limits: Limits,
    sandbox: Mapping[str, Any],
    engine: str,
    workers: int,
) -> Summary:
    """Make the summary of a run.

    pass@k and pass^k are means over the tasks that have samples. A k larger than the smallest n is null: also
    k = 1 where an infrastructure error left a task without any judged sample. ``wall_s`` is in seconds;
    ``samples_per_s`` counts what this run graded, not what a resumed file brought along.
    """
    usable = [k for k in ks if k <= tally.smallest_n()]
    counts = {group: tally.counts(group) for group in tally.groups}
    per_task = {group: _per_task(found, usable, pass_at_k) for group, found in counts.items()}
    hats = {group: _per_task(found, usable, pass_hat_k) for group, found in counts.items()}
    intervals = iter(bootstrap_ci95([column for columns in per_task.values() for column in columns.values()]))
    ci95 = {group: {k: next(intervals) for k in columns} for group, columns in per_task.items()}
    return Summary(
        suite=suite,
        samples=tally.samples,
        tasks=tally.tasks,
        pass_at_k={group: _means(columns, ks) for group, columns in per_task.items()},
        pass_at_k_ci95={group: {str(k): found.get(k) for k in ks} for group, found in ci95.items()},
        pass_hat_k={group: _means(columns, ks) for group, columns in hats.items()},
        statuses={status: count for status in Status if (count := tally.statuses.get(status))},
        infrastructure_errors=tally.infrastructure_errors,
        wall_s=wall_s,
        cpu_s=tally.cpu_s,
        samples_per_s=tally.fresh / wall_s if wall_s > 0 else 0.0,
        limits=vars(limits),  # numbers alone: nothing of it has to be copied
        sandbox=SandboxStamp(backend=sandbox["backend"], layers=tuple(sandbox["layers"])),
        engine=engine,
        workers=workers,
        grader_version=__version__,
    )


def _per_task(
    counts: Sequence[tuple[int, int]], ks: Sequence[int], estimator: Estimator
) -> dict[int, list[float]]:
    """One column of per-task estimates for each k; tasks with the same counts share the work."""
    columns = {}
    for k in ks:
        known = {(n, c): estimator(n, c, k) for n, c in set(counts)}
        columns[k] = [known[count] for count in counts]
    return columns


def _means(columns: Mapping[int, Sequence[float]], ks: Sequence[int]) -> dict[str, float | None]:
    return {str(k): sum(columns[k]) / len(columns[k]) if columns.get(k) else None for k in ks}
