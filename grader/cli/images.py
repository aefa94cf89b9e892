"""``grader images``: the images of container cells."""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from typing import Annotated

import typer

from grader.errors import InputError


class Source(StrEnum):
    """What the interpreter of an image comes from."""

    MACHINE = "machine"
    DEBIAN = "debian"


app = typer.Typer(help="Container images for the sandbox.", no_args_is_help=True)


@app.callback()
def _images() -> None:
    """Container images for the sandbox."""


NAME = typer.Argument(help="python or python-scientific; by default both.", show_default=False)
OFFLINE = typer.Option("--offline", help="Make it without a registry and a Dockerfile: see --from.")
SOURCE = typer.Option(
    "--from",
    help="With --offline: take this machine's interpreter, or that of Debian's packages (as root, with mmdebstrap).",
)
ROOT_ONLY = typer.Option(
    "--root-only", help="Make the embedded sandbox's root folder alone; needs no Docker."
)


@app.command("build")
def build(
    name: Annotated[str | None, NAME] = None,
    offline: Annotated[bool, OFFLINE] = False,
    source: Annotated[Source, SOURCE] = Source.MACHINE,
    root_only: Annotated[bool, ROOT_ONLY] = False,
) -> None:
    """Make the images that are missing, and the embedded sandbox's root folder, which has the same recipe.

    What is made from Debian's packages is used only where it is named (grader score --image), and has no root folder.
    """
    from grader.sandbox import images

    if source is not Source.MACHINE and root_only:
        raise InputError(
            "--root-only makes the root folder from this machine's interpreter; leave --from out"
        )
    if name is not None:
        images.packages_of(name)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that half-made files go
    if source is Source.MACHINE:
        _make_root()
    for wanted in () if root_only else (name,) if name else images.PACKAGES:
        digest = images.build(
            wanted, offline=offline, source=source.value, on_progress=lambda step: typer.echo(step, err=True)
        )
        typer.echo(f"{images.reference(wanted, source.value)} {digest}")


def _make_root() -> None:
    from grader import settings
    from grader.sandbox import rootfs

    root = rootfs.prepare_root(
        settings.cache_dir(), on_progress=lambda: typer.echo("making the root folder", err=True)
    )
    typer.echo(f"root folder {root}")
