"""The Python API: ``score`` a file of samples, or ``grade`` samples one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grader import settings
from grader.errors import InputError
from grader.limits import Limits
from grader.run import (
    FilePath,
    Options,
    Outputs,
    Plan,
    Reporter,
    ScoreRun,
    checked_groups,
    checked_ks,
    only_named,
    verdicts_of,
)
from grader.samples import GivenSample, SampleChecker, check_readable, read_samples
from grader.sandbox.options import CellOptions
from grader.sandbox.renewal import Renewal
from grader.suites import registry
from grader.suites.task import Suite

if TYPE_CHECKING:
    from grader.schema import Sample, Summary, Verdict

__all__ = ["DEFAULT_KS", "DEFAULT_SUITE", "Plan", "Reporter", "grade", "score"]

DEFAULT_SUITE = "humaneval+"
DEFAULT_KS = (1, 10, 100)
_SPARES_AFTER_S = 5.0  # a run that is over before has no use for a second container


def score(
    samples: FilePath,
    *,
    suite: str = DEFAULT_SUITE,
    k: Sequence[int] = DEFAULT_KS,
    groups: Sequence[str] | None = None,
    limits: Limits | None = None,
    fail_fast: bool = True,
    use_cache: bool = True,
    include_flags: bool = False,
    engine: str | None = None,
    sandbox: str | None = None,
    runtime: str | None = None,
    image: str | None = None,
    isolation: str = "namespaces",
    one_shot: bool = False,
    allow_missing: Sequence[str] = (),
    workers: int | None = None,
    output: FilePath | None = None,
    resume: bool = False,
    summary_output: FilePath | None = None,
    evalplus_output: FilePath | None = None,
    reporter: Reporter | None = None,
) -> Summary:
    """Grade a file of samples and return what it comes to.

    Parameters
    ----------
    samples: JSONL, gzipped JSONL, or a folder in EvalPlus's layout; see ``grader.samples``.
    suite: a suite's name, e.g. "humaneval+" or "mbpp+", or the path of a suite's file.
    k: the k of pass@k and pass^k; one that is larger than the smallest number of samples of a task gives
    None. groups: the test groups to run, all by default. They are run, and count, in the suite's order.
    limits: what one sample may use.
    fail_fast: end a sample at its first failing test; the groups after it are then None.
    use_cache: run identical programs of a task once.
    include_flags: give each verdict ``flags``, which say what its program tried; it costs about 0.5 ms a sample.
    engine, sandbox, workers: by default ``GRADER_ENGINE``, ``GRADER_SANDBOX`` and ``GRADER_WORKERS``.
    runtime: a runtime registered with the Docker daemon, e.g. "runsc" for gVisor; by default the daemon's own.
    image: another image for Docker's containers than the one that fits this grader, by its name and tag, or its id.
    isolation: "uids" parts samples in Docker's containers by user ids, where the host forbids user namespaces.
    one_shot: give every run of a program a fresh container, from a pool of warm ones.
    allow_missing: isolation layers that may be missing; every verdict is stamped with those in force.
    output: a JSONL file that verdicts are written to as they come; a file beside it says what run it is of.
    resume: go on with the interrupted run that wrote ``output``.
    summary_output, evalplus_output: files for the summary, and for results in EvalPlus's format.
    reporter: is told how the run goes on.

    Raises
    ------
    InputError: before anything runs: the samples, the suite, an option or a file's place is wrong.
    InfrastructureError: the grader could not do its work, e.g. an isolation mechanism is missing. Single
        samples that could not be judged do not raise: the summary counts them as ``infrastructure_errors``.

    """
    path = Path(samples)
    options = _options(
        engine,
        _cells(sandbox, runtime, image, isolation, one_shot, allow_missing),
        workers,
        limits,
        fail_fast,
        use_cache,
        include_flags,
    )
    ks = checked_ks(k)
    check_readable(path)
    outputs = Outputs.checked(path, output, summary_output, evalplus_output, resume)
    loaded = registry.load(suite)
    chosen = checked_groups(loaded, groups)
    if outputs.evalplus and "base" not in chosen:
        raise InputError(f"EvalPlus's format needs the test group base; to be run are {', '.join(chosen)}")
    given = read_samples(path, loaded)
    return ScoreRun(loaded, given, chosen, options, outputs, reporter or Reporter()).score(ks)


def grade(
    samples: Iterable[Sample | Mapping[str, Any]],
    *,
    suite: str = DEFAULT_SUITE,
    groups: Sequence[str] | None = None,
    limits: Limits | None = None,
    fail_fast: bool = True,
    use_cache: bool = True,
    include_flags: bool = False,
    engine: str | None = None,
    sandbox: str | None = None,
    runtime: str | None = None,
    image: str | None = None,
    isolation: str = "namespaces",
    one_shot: bool = False,
    allow_missing: Sequence[str] = (),
    workers: int | None = None,
) -> Iterator[Verdict]:
    """Grade samples and yield each verdict as it is known, in no particular order.

    A sample is a ``Sample`` or a mapping with the fields of a line of a sample file. A sequence is checked as
    a whole before anything runs; an iterator is pulled, and checked, as the workers need it. The workers
    start with the first verdict asked for, and end with the iterator: exhaust it or close it.

    Parameters and errors are those of :func:`score`. A sample that cannot be graded raises SampleError.
    """
    options = _options(
        engine,
        _cells(sandbox, runtime, image, isolation, one_shot, allow_missing),
        workers,
        limits,
        fail_fast,
        use_cache,
        include_flags,
    )
    loaded = registry.load(suite)
    chosen = checked_groups(loaded, groups)
    checked: Iterable[GivenSample] = _checked(samples, loaded)
    if isinstance(samples, Sequence):
        checked = list(checked)
        loaded = only_named(loaded, checked)
    return _as_verdicts(verdicts_of(loaded, checked, chosen, options))


def _options(
    engine: str | None,
    cells: CellOptions,
    workers: int | None,
    limits: Limits | None,
    fail_fast: bool,
    use_cache: bool,
    include_flags: bool,
) -> Options:
    return Options(
        engine=engine or settings.engine(),
        cells=cells,
        workers=settings.workers() if workers is None else workers,
        limits=limits or Limits(),
        fail_fast=fail_fast,
        use_cache=use_cache,
        include_flags=include_flags,
    )


def _cells(
    sandbox: str | None,
    runtime: str | None,
    image: str | None,
    isolation: str,
    one_shot: bool,
    allow_missing: Sequence[str],
) -> CellOptions:
    backend = sandbox or settings.sandbox()
    renewal = Renewal(one_shot=one_shot, spares_after_s=0.0 if one_shot else _SPARES_AFTER_S)
    return CellOptions(
        sandbox=backend,
        runtime=runtime,
        image=image,
        isolation=isolation,
        renewal=renewal if one_shot or backend == "docker" else None,
        allow_missing=tuple(allow_missing),
    )


def _checked(samples: Iterable[Sample | Mapping[str, Any]], suite: Suite) -> Iterator[GivenSample]:
    checker = SampleChecker(suite)
    for number, sample in enumerate(samples, 1):
        row = sample if isinstance(sample, Mapping) else getattr(sample, "__dict__", sample)
        yield checker.check(row, f"sample {number}")


def _as_verdicts(verdicts: Iterator[dict[str, Any]]) -> Iterator[Verdict]:
    from grader.schema import Verdict

    for verdict in verdicts:
        yield Verdict.model_validate(verdict)
