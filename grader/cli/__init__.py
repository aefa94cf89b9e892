"""The command line: one module a command; nothing heavy is imported before it is needed."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from grader.cli import doctor, images, keys, report, score, serve, suites
from grader.errors import GraderError, InputError
from grader.version import __version__

EXIT_BAD_INPUT = 2
EXIT_COULD_NOT_GRADE = 3
EXIT_INTERRUPTED = 130

app = typer.Typer(
    help="Grade model-written programs in a sandbox that never sees the answers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("score")(score.score)
app.command("doctor")(doctor.doctor)
app.add_typer(suites.app, name="suites")
app.command("serve", **serve.SETTINGS)(serve.serve)
app.add_typer(keys.app, name="keys")
app.add_typer(images.app, name="images")
app.command("report", **report.SETTINGS)(report.report)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"grader {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """Grade model-written programs in a sandbox that never sees the answers."""


def main() -> None:
    """Run the command line and end the process.

    Exit codes: 0 done, 2 bad usage or input, 3 the grader could not do its work, 130 interrupted.
    """
    code: int | str | None
    unwritten: OSError | None = None
    try:
        app()
        code = 0
    except SystemExit as end:
        code = end.code
    except GraderError as error:
        print(f"grader: {error}", file=sys.stderr)
        code = EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_COULD_NOT_GRADE
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except OSError as error:
        # Every other file is named where writing to it fails.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) or error.filename:
            raise
        unwritten, code = error, EXIT_COULD_NOT_GRADE
    unwritten = _flush() or unwritten
    if unwritten is not None and not isinstance(unwritten, BrokenPipeError):
        print(f"grader: standard output cannot be written to: {unwritten.strerror}", file=sys.stderr)
        code = code or EXIT_COULD_NOT_GRADE
    sys.exit(code)


def _flush() -> OSError | None:
    """Write out what is left, and return what prevents it, if anything does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None
