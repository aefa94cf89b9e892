"""``grader serve``: answer over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grader.cli.score import (
    ALLOW_MISSING,
    ENGINE,
    IMAGE,
    ISOLATION,
    ONE_SHOT,
    RUNTIME,
    SANDBOX,
    WORKERS,
    EngineName,
    SandboxName,
    _names,
)
from grader.errors import InputError

if TYPE_CHECKING:
    from grader.dispatch.driver import Driver
    from grader.dispatch.making import PoolOptions
    from grader.sandbox.options import CellOptions

SETTINGS: dict[str, Any] = {}

HOST = typer.Option(help="The address to listen on; 0.0.0.0 or :: for all.")
PORT = typer.Option(help="The port to listen on; 0 for any that is free.", min=0, max=65535)
RAY_ADDRESS = typer.Option(
    help="A Ray cluster to join; without it, --engine ray starts one here.", metavar="ADDRESS"
)
SUITE = typer.Option(
    "--suite",
    help="A suite to load at the start, by name or path; more than once for more. Those of the catalogue whose "
    "data is on this machine need not be named.",
    metavar="SUITE",
)
KEYS = typer.Option(
    "--api-keys-file",
    help="A file of API keys, as grader keys add makes it; GRADER_API_KEYS_FILE by default.",
)
ANONYMOUS = typer.Option("--allow-anonymous", help="Serve other machines without API keys.")
BODY = typer.Option(help="The largest request body, also after decompression.", min=1024, metavar="BYTES")
CONNECTIONS = typer.Option(help="How many connections there may be at the same time.", min=1)
DATABASE = typer.Option(
    help="Where jobs are kept: sqlite:////folder/file or postgresql://...; GRADER_DATABASE_URL by default.",
    metavar="URL",
)
COMPAT = typer.Option(
    "--compat",
    help="A foreign API to serve, by name (docs/compat.md); more than once for more, none for none. Without it, those "
    "of GRADER_COMPAT (separated by commas), else sandbox-fusion.",
    metavar="API",
)
REWARD = typer.Option(
    help="The reward of requests that name none: a name, or the JSON of an object (docs/rewards.md); GRADER_REWARD by "
    "default, else binary.",
    metavar="REWARD",
)
CEILINGS = typer.Option(
    help="The most that any request may give a sample: the JSON of an object of limits (docs/http.md); "
    "GRADER_CEILINGS by default.",
    metavar="JSON",
)
LOG_LEVEL = typer.Option(help="debug, info, warning, error or critical.")
NO_JOBS = typer.Option("--no-jobs", help="Serve no jobs, and keep nothing on disk.")


def serve(
    host: Annotated[str, HOST] = "127.0.0.1",
    port: Annotated[int, PORT] = 8000,
    engine: Annotated[EngineName | None, ENGINE] = None,
    ray_address: Annotated[str | None, RAY_ADDRESS] = None,
    workers: Annotated[int | None, WORKERS] = None,
    sandbox: Annotated[SandboxName | None, SANDBOX] = None,
    runtime: Annotated[str | None, RUNTIME] = None,
    image: Annotated[str | None, IMAGE] = None,
    isolation: Annotated[str, ISOLATION] = "namespaces",
    one_shot: Annotated[bool, ONE_SHOT] = False,
    allow_missing: Annotated[str | None, ALLOW_MISSING] = None,
    suite: Annotated[list[str] | None, SUITE] = None,
    api_keys_file: Annotated[Path | None, KEYS] = None,
    allow_anonymous: Annotated[bool, ANONYMOUS] = False,
    max_body_bytes: Annotated[int, BODY] = 64 << 20,
    max_connections: Annotated[int, CONNECTIONS] = 16_384,
    database_url: Annotated[str | None, DATABASE] = None,
    no_jobs: Annotated[bool, NO_JOBS] = False,
    compat: Annotated[list[str] | None, COMPAT] = None,
    reward: Annotated[str | None, REWARD] = None,
    ceilings: Annotated[str | None, CEILINGS] = None,
    log_level: Annotated[str, LOG_LEVEL] = "info",
) -> None:
    """Answer over HTTP until SIGTERM or Ctrl-C: then nothing new is begun, what runs ends, and the exit code is 0.

    A second signal ends it at once. Where no worker can work here, it ends with 3 and the reason.
    """
    _check_installed()
    from grader import settings
    from grader.dispatch.making import PoolOptions
    from grader.server.compat.catalogue import chosen_apis
    from grader.server.parts import standard_parts
    from grader.server.serve import run
    from grader.server.settings import ServerSettings, ceilings_of, reward_of
    from grader.server.settings import api_keys_file as keys_file_of_environment
    from grader.server.workers import warn_of_workers
    from grader.telemetry.logs import configure

    chosen = ServerSettings(
        host=host,
        port=port,
        engine=engine.value if engine else settings.engine(),
        api_keys_file=api_keys_file or keys_file_of_environment(),
        allow_anonymous=allow_anonymous,
        suites=tuple(suite or ()),
        reward=reward_of(reward),
        ceilings=ceilings_of(ceilings),
        max_body_bytes=max_body_bytes,
        max_connections=max_connections,
    )
    settings.data_dir()
    if no_jobs and database_url is not None:
        raise InputError("--no-jobs and --database-url contradict each other; give one of them")
    parts = standard_parts(None if no_jobs else _database_url(database_url), chosen_apis(compat))
    options = PoolOptions(
        engine=chosen.engine,
        workers=settings.workers() if workers is None else workers,
        cells=_cells(sandbox, runtime, image, isolation, one_shot, allow_missing),
        ray_address=ray_address,
        patient=True,
        on_warning=warn_of_workers,
    )
    grading = _grading(options)
    configure(log_level)
    killed_by = run(chosen, grading, parts)
    if killed_by is not None:
        # Not by way of the interpreter's end, which would wait for threads.
        os._exit(128 + killed_by)
    if grading.failure is not None:
        raise grading.failure


def _grading(options: PoolOptions) -> Driver:
    from grader.dispatch.making import make_grading
    from grader.server.workers import watch_workers

    if options.ray_address is not None and options.engine != "ray":
        raise InputError("--ray-address is for --engine ray")
    return make_grading(options, on_event=watch_workers)


def _cells(
    sandbox: SandboxName | None,
    runtime: str | None,
    image: str | None,
    isolation: str,
    one_shot: bool,
    allow_missing: str | None,
) -> CellOptions:
    from grader import settings
    from grader.sandbox.options import CellOptions
    from grader.sandbox.renewal import Renewal

    backend = sandbox.value if sandbox else settings.sandbox()
    # A service lives long: its containers do not.
    renewal = Renewal(one_shot=one_shot) if backend == "docker" or one_shot else None
    return CellOptions(
        sandbox=backend,
        runtime=runtime,
        image=image,
        isolation=isolation,
        renewal=renewal,
        allow_missing=tuple(_names(allow_missing, "--allow-missing")) if allow_missing is not None else (),
    )


def _database_url(given: str | None) -> str:
    from grader.server.jobs.settings import database_url

    return given or database_url()


def _check_installed() -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"grader serve needs {error.name}; install it with: pip install '.[server]' in the grader's source folder"
        ) from error
