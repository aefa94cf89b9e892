"""``grader images``: the images of container cells."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Container images for the sandbox.", no_args_is_help=True)


@app.callback()
def _images() -> None:
    """Container images for the sandbox."""


NAME = typer.Argument(help="python or python-scientific; by default both.", show_default=False)
OFFLINE = typer.Option(
    "--offline", help="Make it from this machine's interpreter, without a registry and a Dockerfile."
)
ROOT_ONLY = typer.Option(
    "--root-only", help="Make the embedded sandbox's root folder alone; needs no Docker."
)


@app.command("build")
def build(
    name: Annotated[str | None, NAME] = None,
    offline: Annotated[bool, OFFLINE] = False,
    root_only: Annotated[bool, ROOT_ONLY] = False,
) -> None:
    """Make the images that are missing, and the embedded sandbox's root folder, which has the same recipe."""
    from grader import settings
    from grader.sandbox import images, rootfs

    root = rootfs.prepare_root(
        settings.cache_dir(), on_progress=lambda: typer.echo("making the root folder", err=True)
    )
    typer.echo(f"root folder {root}")
    for wanted in () if root_only else (name,) if name else images.PACKAGES:
        digest = images.build(wanted, offline=offline, on_progress=lambda step: typer.echo(step, err=True))
        typer.echo(f"{images.reference(wanted)} {digest}")
