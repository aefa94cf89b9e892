"""What ``grader.score`` and ``grader.grade`` do: samples become programs, and an engine grades them."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from grader import results, settings
from grader.dedupe import grade_once
from grader.errors import InputError
from grader.extraction import extract
from grader.extraction.ambient import with_ambient_imports
from grader.limits import Limits
from grader.samples import GivenSample, fingerprint
from grader.sandbox.options import CellOptions
from grader.status import Status
from grader.suites.inline import needs_ambient_imports
from grader.suites.task import Suite, Task
from grader.worker.program import Program

if TYPE_CHECKING:
    from grader.schema import Summary

FilePath = str | os.PathLike[str]
VerdictFields = dict[str, Any]

_log = logging.getLogger("grader")


class Engine(Protocol):
    """What grades programs: see ``grader.engines``."""

    @property
    def stamp(self) -> Mapping[str, Any]:
        """What isolates the programs: ``backend`` and ``layers``."""

    @property
    def workers(self) -> int:
        """How many workers grade at the same time."""

    def grade(self, programs: Iterable[Program]) -> Iterator[VerdictFields]:
        """Yield one verdict (fields of ``schema.Verdict``) a program, in the order in which they are done.

        ``programs`` is pulled as workers become free. May be called again when it is exhausted.
        """


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is about to do. ``resumed`` counts the samples that an earlier run has graded."""

    samples: int
    resumed: int
    tasks: int
    suite_tasks: int


class Reporter:
    """Is told how a run goes on. This one logs warnings, under the name ``grader``; others override it."""

    def warn(self, message: str) -> None:
        """Take a remark that the user has to know of."""
        _log.warning("%s", message)

    def plan(self, plan: Plan) -> None:
        """Take what the run is about to do, once the samples have been read and found good."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Take how far a step before grading has come, e.g. making expected answers."""

    def verdict(self, verdict: Mapping[str, Any]) -> None:
        """Take a verdict that this run has made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How programs are run. Raises InputError where an option is not one that can be had."""

    engine: str
    cells: CellOptions = field(default_factory=CellOptions)
    workers: int | None = None
    limits: Limits = field(default_factory=Limits)
    fail_fast: bool = True
    use_cache: bool = True
    ray_address: str | None = None
    include_flags: bool = False

    def __post_init__(self) -> None:
        if self.engine not in settings.ENGINES:
            raise InputError(f"unknown engine {self.engine!r}; give one of {', '.join(settings.ENGINES)}")
        if self.ray_address and self.engine != "ray":
            raise InputError("a Ray address is for the engine 'ray'; give --engine ray with it")
        if self.workers is not None and not 1 <= self.workers <= settings.MAX_WORKERS:
            raise InputError(f"workers is {self.workers}; give a number from 1 to {settings.MAX_WORKERS}")
        if not (math.isfinite(self.limits.time_floor_s) and math.isfinite(self.limits.time_factor)):
            raise InputError("the time floor and the time factor are finite numbers: every test needs an end")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where results go. ``resume`` says that ``verdicts`` is to be gone on with."""

    verdicts: Path | None
    summary: Path | None
    evalplus: Path | None
    resume: bool

    @classmethod
    def checked(
        cls,
        samples: Path,
        output: FilePath | None,
        summary: FilePath | None,
        evalplus: FilePath | None,
        resume: bool,
    ) -> Outputs:
        """Check before the run that all of it can be written after it. Raises InputError where it cannot."""
        if resume and output is None:
            raise InputError("--resume needs --output: the file with the verdicts of the interrupted run")
        given = {"--output": output, "--summary": summary, "--evalplus-output": evalplus}
        paths = {option: Path(path) for option, path in given.items() if path is not None}
        for option, path in paths.items():
            results.check_writable(path, option, samples)
        regular = [path.resolve() for path in paths.values() if path.is_file() or not path.exists()]
        if len(set(regular)) < len(regular):
            raise InputError("two of --output, --summary and --evalplus-output name the same file")
        verdicts, summary_path, evalplus_path = (paths.get(option) for option in given)
        return cls(verdicts, summary_path, evalplus_path, resume)


@dataclass(frozen=True, slots=True)
class ScoreRun:
    """One scoring of a sample file, after everything it was given has been found good."""

    suite: Suite
    samples: list[GivenSample]
    groups: tuple[str, ...]
    options: Options
    outputs: Outputs
    reporter: Reporter

    def score(self, ks: Sequence[int]) -> Summary:
        """Grade what is not yet graded, write what is to be written, and return the summary."""
        from grader.schema import SuiteIdentity
        from grader.scoring.summary import Tally, summarize

        tally = Tally(self.groups)
        results_of: dict[str, Mapping[str, Any]] = {}
        with ExitStack() as stack:
            file = self._open_verdicts(stack)
            kept = file.kept if file else []
            self._announce(len(kept))
            begin = time.monotonic()
            remaining = _without(self.samples, {verdict["sample_id"] for verdict in kept})
            engine = stack.enter_context(self._engine(remaining))
            fresh = stack.enter_context(closing(_graded(engine, self.suite, remaining, self.options)))
            for resumed, verdicts in ((True, kept), (False, fresh)):
                for verdict in verdicts:
                    if not resumed:
                        self._take(verdict, file)
                    tally.add(verdict, resumed=resumed)
                    if self.outputs.evalplus and verdict["status"] != Status.INFRASTRUCTURE_ERROR:
                        results_of[verdict["sample_id"]] = verdict["groups"]
            wall_s = time.monotonic() - begin
            stamp, workers = engine.stamp, engine.workers
        summary = summarize(
            tally,
            suite=SuiteIdentity(**_identity(self.suite)),
            ks=ks,
            wall_s=wall_s,
            limits=self.options.limits,
            sandbox=stamp,
            engine=self.options.engine,
            workers=workers,
        )
        self._write_results(summary, results_of)
        return summary

    def _open_verdicts(self, stack: ExitStack) -> results.VerdictFile | None:
        if self.outputs.verdicts is None:
            return None
        identity = results.RunIdentity(
            suite=_identity(self.suite),
            samples_sha256=fingerprint(self.samples),
            groups=self.groups,
            limits=self.options.limits,
            fail_fast=self.options.fail_fast,
            cells=self.options.cells,
            cells_digest=_cells_digest(self.options),
            flags=self.options.include_flags,
        )
        ids = {sample.sample_id for sample in self.samples}
        path, resume = self.outputs.verdicts, self.outputs.resume
        return stack.enter_context(results.open_verdicts(path, identity, resume=resume, sample_ids=ids))

    def _announce(self, resumed: int) -> None:
        tasks, suite_tasks = len({sample.task_id for sample in self.samples}), len(self.suite.tasks)
        if tasks < suite_tasks:
            self.reporter.warn(
                f"{suite_tasks - tasks} of the {suite_tasks} tasks of {self.suite.name} have no sample; "
                "pass@k is over the tasks that have"
            )
        self.reporter.plan(Plan(len(self.samples), resumed, tasks, suite_tasks))

    def _engine(self, remaining: Sequence[GivenSample]) -> AbstractContextManager[Engine]:
        return make_engine(only_named(self.suite, remaining), self.groups, self.options, self.reporter)

    def _take(self, verdict: VerdictFields, file: results.VerdictFile | None) -> None:
        if file:
            file.write(verdict)
        self.reporter.verdict(verdict)

    def _write_results(self, summary: Summary, results_of: Mapping[str, Mapping[str, Any]]) -> None:
        if self.outputs.summary:
            results.write_atomically(self.outputs.summary, summary.model_dump_json(indent=2) + "\n")
        if self.outputs.evalplus:
            sources = (
                (sample.task_id, sample.sample_id, program_of(sample, self.suite).source)
                for sample in self.samples
            )
            found = results.evalplus_results(self.suite, sources, results_of)
            results.write_atomically(self.outputs.evalplus, json.dumps(found))
            if summary.infrastructure_errors:
                self.reporter.warn(f"{self.outputs.evalplus} leaves out the samples that could not be graded")


def make_engine(
    suite: Suite, groups: tuple[str, ...], options: Options, reporter: Reporter
) -> AbstractContextManager[Engine]:
    """Make the engine that ``options`` name; it starts its workers when it is entered."""
    from grader.dispatch.blocking import BlockingEngine
    from grader.dispatch.making import PoolOptions, make_pool

    pool = make_pool(
        PoolOptions(
            engine=options.engine,
            workers=options.workers,
            cells=options.cells,
            limits=options.limits,
            ray_address=options.ray_address,
            on_progress=reporter.stage,
            on_warning=reporter.warn,
        )
    )
    return BlockingEngine(
        pool,
        suite,
        limits=options.limits,
        groups=groups,
        fail_fast=options.fail_fast,
        on_progress=reporter.stage,
    )


def verdicts_of(
    suite: Suite, samples: Iterable[GivenSample], groups: tuple[str, ...], options: Options
) -> Iterator[VerdictFields]:
    """Yield the verdicts on ``samples`` as they are known. The engine lives as long as the iterator."""
    with make_engine(suite, groups, options, Reporter()) as engine:
        yield from _graded(engine, suite, samples, options)


def program_of(sample: GivenSample, suite: Suite) -> Program:
    """Assemble the program of a sample: a solution as it is, a completion by extraction.

    Before both stand the imports that the graders of the task's benchmark would put there.
    """
    task = suite.tasks[sample.task_id]
    program = _program_alone(sample, task)
    if program.source and needs_ambient_imports(task):
        return replace(program, source=with_ambient_imports(program.source))
    return program


def _program_alone(sample: GivenSample, task: Task) -> Program:
    if sample.is_solution:
        return Program(sample.task_id, sample.sample_id, sample.text)
    try:
        found = extract(sample.text, prompt=task.prompt, entry_point=task.entry_point)
    except UnicodeError:
        # Half a surrogate pair cannot be parsed or encoded; the worker judges it a compile error.
        return Program(sample.task_id, sample.sample_id, sample.text)
    return Program(sample.task_id, sample.sample_id, found.source, found.how)


def only_named(suite: Suite, samples: Iterable[GivenSample]) -> Suite:
    """Return the suite with the tasks that samples name, so that nothing is prepared for the others."""
    named = {sample.task_id for sample in samples}
    return replace(suite, tasks={name: task for name, task in suite.tasks.items() if name in named})


def checked_groups(suite: Suite, groups: Sequence[str] | None) -> tuple[str, ...]:
    """Return the groups to run, in the suite's order. Raises InputError for one that no task has."""
    known = suite.group_names
    if groups is None:
        return known
    unknown = [group for group in groups if group not in known]
    if unknown or not groups:
        what = f"no test group {unknown[0]!r}" if unknown else "to run at least one test group"
        raise InputError(f"{suite.name} has {what}; its groups are {', '.join(known)}")
    return tuple(group for group in known if group in groups)


def checked_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """Return the k of pass@k, in order and once each. Raises InputError unless all are whole and above 0."""
    if not ks or not all(isinstance(k, int) and k >= 1 for k in ks):
        raise InputError(f"k is {', '.join(map(repr, ks)) or 'empty'}; give whole numbers from 1 up")
    return tuple(sorted(set(ks)))


def _graded(
    engine: Engine, suite: Suite, samples: Iterable[GivenSample], options: Options
) -> Generator[VerdictFields, None, None]:
    programs: Iterable[Program] = (program_of(sample, suite) for sample in samples)
    if options.include_flags:
        yield from _flagged(engine, suite, samples, programs, options)
    else:
        yield from _once(engine, samples, programs, options)


def _once(
    engine: Engine, samples: Iterable[GivenSample], programs: Iterable[Program], options: Options
) -> Iterator[VerdictFields]:
    if not options.use_cache:
        return engine.grade(programs)
    alone = _tasks_with_one(samples) if isinstance(samples, Sequence) else ()
    return grade_once(engine.grade, programs, alone)


def _flagged(
    engine: Engine,
    suite: Suite,
    samples: Iterable[GivenSample],
    programs: Iterable[Program],
    options: Options,
) -> Generator[VerdictFields, None, None]:
    from grader.rewards import with_flags

    sources: dict[str, str] = {}

    def noted() -> Iterator[Program]:
        for program in programs:
            sources[program.sample_id] = program.source
            yield program

    def flagged(verdict: VerdictFields) -> VerdictFields:
        whole = not suite.tasks[verdict["task_id"]].entry_point
        return with_flags(verdict, sources.pop(verdict["sample_id"]), whole_program=whole)

    with ExitStack() as stack:
        verdicts = _once(engine, samples, noted(), options)
        if isinstance(verdicts, Generator):
            stack.enter_context(closing(verdicts))
        yield from map(flagged, verdicts)


def _cells_digest(options: Options) -> str:
    """Name what is in the cells. Of a cluster's nodes, which have not started yet, this machine's own stands for it."""
    from grader.sandbox import factory

    return factory.digest_of(options.cells if options.engine == "local" else CellOptions())


def _tasks_with_one(samples: Iterable[GivenSample]) -> Collection[str]:
    return {task_id for task_id, n in Counter(sample.task_id for sample in samples).items() if n == 1}


def _without(samples: Sequence[GivenSample], done: Collection[str]) -> list[GivenSample]:
    return [sample for sample in samples if sample.sample_id not in done]


def _identity(suite: Suite) -> dict[str, str]:
    return {"name": suite.name, "version": suite.version, "sha256": suite.sha256}
