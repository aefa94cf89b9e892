"""``grader images``: not available yet."""

import typer

from grader.cli.later import ANY_ARGUMENTS, not_available

app = typer.Typer(
    help="Container images for the sandbox (not available in this version).", no_args_is_help=True
)


@app.callback()
def _images() -> None:
    """Container images for the sandbox (not available in this version)."""


@app.command("build", **ANY_ARGUMENTS)
def build() -> None:
    """Build the sandbox's images (not available in this version)."""
    not_available("grader images build")
