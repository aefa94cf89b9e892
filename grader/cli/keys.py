"""``grader keys``: the API keys of a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from grader.errors import InputError

app = typer.Typer(help="API keys of the HTTP service.", no_args_is_help=True)

TENANT = typer.Argument(help="Whose key it is: letters, digits, dots, dashes and underscores.")
FILE = typer.Option(
    "--api-keys-file", help="The file to add the key's hash to; GRADER_API_KEYS_FILE by default."
)
WEIGHT = typer.Option(help="The tenant's share of the workers, against others'; 1 by default.")
REQUESTS = typer.Option(help="How many requests a second the key may send.", metavar="N")
SAMPLES = typer.Option(help="How many samples a second the key may send.", metavar="N")


@app.callback()
def _keys() -> None:
    """API keys of the HTTP service."""


@app.command("add")
def add(
    tenant: Annotated[str, TENANT],
    api_keys_file: Annotated[Path | None, FILE] = None,
    weight: Annotated[float | None, WEIGHT] = None,
    requests_per_s: Annotated[float | None, REQUESTS] = None,
    samples_per_s: Annotated[float | None, SAMPLES] = None,
) -> None:
    """Make a key and print it, once: the file gets its hash alone. A running service knows it within a second."""
    from grader.server import keys
    from grader.server.settings import KEYS_FILE_VARIABLE
    from grader.server.settings import api_keys_file as file_of_environment

    file = api_keys_file or file_of_environment()
    if file is None:
        raise InputError(f"name the file of keys: --api-keys-file FILE, or set {KEYS_FILE_VARIABLE}")
    key = keys.add_key(
        file, tenant, weight=weight, requests_per_s=requests_per_s, samples_per_s=samples_per_s
    )
    typer.echo(key)
