"""The result table of ``grader score``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from grader.run import Plan

if TYPE_CHECKING:
    from grader.schema import Summary


def print_summary(summary: Summary, plan: Plan | None) -> None:
    """Print pass@k with its intervals, what became of the samples, and what it cost, on stdout."""
    console = Console(highlight=False)
    suite = summary.suite
    title = f"{suite.name} {suite.version}: {summary.samples} samples, {summary.tasks} tasks"
    console.print(title, markup=False, soft_wrap=True)
    console.print(_scores(summary), _statuses(summary), sep="\n")
    for note in _notes(summary, plan):
        console.print(note, markup=False, soft_wrap=True)


def _scores(summary: Summary) -> Table:
    table = Table()
    table.add_column("passes")
    ks = list(next(iter(summary.pass_at_k.values()), {}))
    for k in ks:
        table.add_column(f"pass@{k}", justify="right")
    names: list[str] = []
    for group, values in summary.pass_at_k.items():
        names.append(group)
        intervals = summary.pass_at_k_ci95[group]
        table.add_row(" + ".join(names), *(_score(values[k], intervals.get(k)) for k in ks))
    return table


def _score(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _statuses(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("status")
    table.add_column("samples", justify="right")
    for status, count in summary.statuses.items():
        table.add_row(status, str(count))
    return table


def _notes(summary: Summary, plan: Plan | None) -> list[str]:
    notes = ["In brackets: 95% intervals, by bootstrap over tasks."]
    values = [value for group in summary.pass_at_k.values() for value in group.values()]
    if None in values:
        notes.append("- : some task has fewer judged samples than k.")
    if plan and plan.tasks < plan.suite_tasks:
        notes.append(f"pass@k is over the {plan.tasks} of {plan.suite_tasks} tasks that have samples.")
    if summary.infrastructure_errors:
        notes.append(f"{summary.infrastructure_errors} samples could not be graded and count nowhere.")
    if plan and plan.resumed:
        notes.append(
            f"{plan.resumed} samples were graded by an earlier run; time and rate are of this one, CPU time is of both."
        )
    notes.append(
        f"{summary.wall_s:.1f} s, {summary.cpu_s:.1f} s of CPU in programs, "
        f"{summary.samples_per_s:.1f} samples/s, {summary.workers} {summary.engine} workers, "
        f"sandbox {summary.sandbox.backend} ({', '.join(summary.sandbox.layers)})"
    )
    return notes
