"""``grader doctor``: what isolates programs on this machine, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grader.errors import SandboxError

if TYPE_CHECKING:
    from grader.sandbox.preflight import Mechanism


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print every isolation mechanism: whether it is there, what decides that, and how to turn it on."""
    from grader.sandbox import docker_preflight, preflight

    mechanisms = [*preflight.report(), *docker_preflight.report()]
    missing = [mechanism.name for mechanism in mechanisms if mechanism.required and not mechanism.ok]
    if as_json:
        rows = [_as_json(mechanism) for mechanism in mechanisms]
        typer.echo(json.dumps({"ok": not missing, "mechanisms": rows}, indent=2))
    else:
        _print_table(mechanisms)
    if missing:
        raise SandboxError(f"required, and missing here: {', '.join(missing)}; the remedies are listed above")


def _as_json(mechanism: Mechanism) -> dict[str, Any]:
    return {name: getattr(mechanism, name) for name in ("name", "ok", "required", "detail", "remedy")}


def _print_table(mechanisms: Sequence[Mechanism]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("mechanism", "there", "required", "what decides it", "remedy"):
        table.add_column(heading, overflow="fold")
    for mechanism in mechanisms:
        style = "green" if mechanism.ok else "red" if mechanism.required else "yellow"
        table.add_row(
            Text(mechanism.name),
            Text("yes" if mechanism.ok else "no", style=style),
            Text("yes" if mechanism.required else "no"),
            Text(mechanism.detail),
            Text("" if mechanism.ok else mechanism.remedy),
        )
    Console().print(table)
