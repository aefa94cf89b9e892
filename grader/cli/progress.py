"""How a run goes on, on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from grader.run import Plan, Reporter

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_REFRESH_S = 0.1


class TerminalReporter(Reporter):
    """Shows progress and warnings on stderr; a context manager.

    It is drawn when something happens rather than by a thread of its own: a process with threads must not
    fork.
    """

    def __init__(self, output: Path | None, *, show_progress: bool) -> None:
        self._output = output
        self._show = show_progress
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}
        self._begun: dict[str, tuple[float, int]] = {}
        self._drawn = 0.0
        self._graded = 0
        self.seen: Plan | None = None

    def warn(self, message: str) -> None:
        """Print a warning, also where progress is not shown."""
        print(f"grader: warning: {message}", file=sys.stderr)

    def plan(self, plan: Plan) -> None:
        """Remember the plan, for the table, and say what a resumed run brings along."""
        self.seen = plan
        if self._show and plan.resumed:
            print(f"grader: {plan.resumed} of {plan.samples} samples were graded before", file=sys.stderr)

    def stage(self, name: str, done: int, total: int) -> None:
        """Draw a bar for a step before grading."""
        if self._show:
            self._draw(name, done, total, last=done >= total)

    def verdict(self, verdict: Mapping[str, Any]) -> None:
        """Draw how many samples are graded, at what rate, and how long the rest will take."""
        self._graded += 1
        if self._show and self.seen:
            total = self.seen.samples - self.seen.resumed
            self._draw("grading", self._graded, total, last=self._graded == total)

    def __enter__(self) -> TerminalReporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress:
            self._progress.stop()
        if kind and issubclass(kind, KeyboardInterrupt | SystemExit):
            kept = f"; the verdicts so far are in {self._output}, --resume goes on" if self._output else ""
            print(f"grader: interrupted after {self._graded} verdicts{kept}", file=sys.stderr)

    def _draw(self, name: str, done: int, total: int, *, last: bool) -> None:
        now = time.monotonic()
        if name in self._bars and not last and now - self._drawn < _REFRESH_S:
            return
        self._drawn = now
        progress = self._started()
        if name not in self._bars:
            self._bars[name] = progress.add_task(name, total=total, rate="")
            self._begun[name] = (now, done)
        begun, before = self._begun[name]
        rate = f"{(done - before) / (now - begun):.1f}/s" if now > begun else ""
        progress.update(self._bars[name], completed=done, total=total, rate=rate)
        progress.refresh()

    def _started(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                auto_refresh=False,
            )
            self._progress.start()
        return self._progress
