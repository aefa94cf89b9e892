"""``grader score``: grade a file of samples."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grader.cli.later import not_available
from grader.errors import InputError
from grader.limits import Limits

if TYPE_CHECKING:
    from grader.run import Plan
    from grader.schema import Summary


class EngineName(StrEnum):
    """What owns the workers."""

    LOCAL = "local"
    RAY = "ray"


class SandboxName(StrEnum):
    """What programs run in."""

    AUTO = "auto"
    NAMESPACES = "namespaces"
    DOCKER = "docker"


class Profile(StrEnum):
    """Which tests are run."""

    FULL = "full"
    REWARDS = "rewards"


SAMPLES = typer.Argument(
    metavar="SAMPLES", help="JSONL or JSONL.gz, or a folder in EvalPlus's layout.", show_default=False
)
SUITE = typer.Option(help="A suite's name, or the path of a suite's file.")
OUTPUT = typer.Option(help="Write verdicts to this file as they come, one JSON object a line.")
SUMMARY = typer.Option(help="Write the summary to this file, as JSON.")
GROUPS = typer.Option(help="Test groups to run, with commas between; all by default.", metavar="NAME,...")
K = typer.Option("--k", help="The k of pass@k, with commas between.", metavar="N,...")
ENGINE = typer.Option(
    help="What owns the workers; GRADER_ENGINE or local by default. ray joins the cluster that "
    "GRADER_RAY_ADDRESS names, or starts one here."
)
SANDBOX = typer.Option(help="What programs run in; GRADER_SANDBOX or auto by default.")
ALLOW_MISSING = typer.Option(
    help="Isolation layers that may be missing, with commas between: landlock, and with --sandbox docker mountns.",
    metavar="LAYER,...",
)
RUNTIME = typer.Option(
    help="A runtime of the Docker daemon, e.g. runsc for gVisor; only with --sandbox docker.",
    metavar="RUNTIME",
)
IMAGE = typer.Option(
    help="Another image than the usual one, as grader images build printed it; only with --sandbox docker.",
    metavar="IMAGE",
)
ISOLATION = typer.Option(
    help="What parts samples in Docker's containers: namespaces, or uids where the host forbids user namespaces."
)
ONE_SHOT = typer.Option("--one-shot", help="A fresh container for every run; only with --sandbox docker.")
WORKERS = typer.Option(
    help="How many workers grade at the same time; GRADER_WORKERS or one a processor by default.",
    min=1,
    max=4096,
)
PROFILE = typer.Option(
    help="Which tests are run: full, all of them; rewards is not available in this version."
)
TIME_FLOOR = typer.Option(help="Seconds that every test may take; 4 by default. CPU time.", metavar="S")
TIME_FACTOR = typer.Option(
    help="The same, as a multiple of the reference's CPU time where that is more; 4 by default.", metavar="F"
)
MEMORY = typer.Option(help="Memory that a sample may use; 1 GiB by default.", metavar="BYTES", min=1)
NO_FAIL_FAST = typer.Option("--no-fail-fast", help="Go on after a sample's first failing test.")
NO_CACHE = typer.Option("--no-cache", help="Run identical programs again.")
FLAGS = typer.Option(
    "--flags", help="Give each verdict flags, which say what its program tried (docs/rewards.md)."
)
RESUME = typer.Option("--resume", help="Go on with the interrupted run that wrote --output.")
EVALPLUS = typer.Option(
    help="Write results in EvalPlus's format. Where base fails, plus is null unless --no-fail-fast.",
    metavar="FILE",
)
AS_JSON = typer.Option("--json", help="Print the summary alone, as JSON, on stdout.")
QUIET = typer.Option("--quiet", "-q", help="No progress and no table; warnings stay.")


def score(
    samples: Annotated[Path, SAMPLES],
    suite: Annotated[str, SUITE] = "humaneval+",
    output: Annotated[Path | None, OUTPUT] = None,
    summary: Annotated[Path | None, SUMMARY] = None,
    groups: Annotated[str | None, GROUPS] = None,
    k: Annotated[str, K] = "1,10,100",
    engine: Annotated[EngineName | None, ENGINE] = None,
    sandbox: Annotated[SandboxName | None, SANDBOX] = None,
    allow_missing: Annotated[str | None, ALLOW_MISSING] = None,
    runtime: Annotated[str | None, RUNTIME] = None,
    image: Annotated[str | None, IMAGE] = None,
    isolation: Annotated[str, ISOLATION] = "namespaces",
    one_shot: Annotated[bool, ONE_SHOT] = False,
    workers: Annotated[int | None, WORKERS] = None,
    profile: Annotated[Profile, PROFILE] = Profile.FULL,
    time_floor: Annotated[float | None, TIME_FLOOR] = None,
    time_factor: Annotated[float | None, TIME_FACTOR] = None,
    memory_limit: Annotated[int | None, MEMORY] = None,
    no_fail_fast: Annotated[bool, NO_FAIL_FAST] = False,
    no_cache: Annotated[bool, NO_CACHE] = False,
    flags: Annotated[bool, FLAGS] = False,
    resume: Annotated[bool, RESUME] = False,
    evalplus_output: Annotated[Path | None, EVALPLUS] = None,
    as_json: Annotated[bool, AS_JSON] = False,
    quiet: Annotated[bool, QUIET] = False,
) -> None:
    """Grade a file of samples: verdicts, pass@k, and what became of every sample.

    Exit codes: 0 done, whatever the verdicts; 2 bad usage or input; 3 a sample could not be graded.
    """
    _check_later(profile)
    from grader import api
    from grader.cli.progress import TerminalReporter

    signal.signal(signal.SIGTERM, _terminated)
    with TerminalReporter(output, show_progress=not quiet and sys.stderr.isatty()) as reporter:
        found = api.score(
            samples,
            suite=suite,
            k=_ks(k),
            groups=_names(groups, "--groups") if groups is not None else None,
            limits=_limits(time_floor, time_factor, memory_limit),
            fail_fast=not no_fail_fast,
            use_cache=not no_cache,
            include_flags=flags,
            engine=engine.value if engine else None,
            sandbox=sandbox.value if sandbox else None,
            runtime=runtime,
            image=image,
            isolation=isolation,
            one_shot=one_shot,
            allow_missing=_names(allow_missing, "--allow-missing") if allow_missing is not None else (),
            workers=workers,
            output=output,
            resume=resume,
            summary_output=summary,
            evalplus_output=evalplus_output,
            reporter=reporter,
        )
    _show(found, reporter.seen, as_json=as_json, quiet=quiet)
    if found.infrastructure_errors:
        again = "; the same command with --resume grades them again" if output else ""
        print(f"grader: {found.infrastructure_errors} samples could not be graded{again}", file=sys.stderr)
        raise typer.Exit(3)


def _show(summary: Summary, plan: Plan | None, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        typer.echo(summary.model_dump_json(indent=2))
    elif not quiet:
        from grader.cli.tables import print_summary

        print_summary(summary, plan)


def _check_later(profile: Profile) -> None:
    if profile is not Profile.FULL:
        not_available(f"--profile {profile}")


def _limits(time_floor: float | None, time_factor: float | None, memory: int | None) -> Limits:
    given: dict[str, Any] = {
        "time_floor_s": time_floor,
        "time_factor": time_factor,
        "memory_bytes": memory,
    }
    return replace(Limits(), **{name: value for name, value in given.items() if value is not None})


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"{option} is {text!r}; give names with commas between")
    return names


def _ks(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts):
        raise InputError(f"--k is {text!r}; give whole numbers with commas between, such as 1,10,100")
    return [int(part) for part in parts]


def _terminated(number: int, frame: FrameType | None) -> None:
    """End as after Ctrl-C, so that workers and cells go too; 128 plus the signal is the shells' custom."""
    sys.exit(128 + number)
