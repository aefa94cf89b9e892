"""``grader suites``: the suites there are, what is in one, and downloading them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from grader.suites.registry import SuiteInfo

app = typer.Typer(help="List, show and download test suites.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="A suite's name, or the path of a suite's file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_suites(as_json: JsonOption = False) -> None:
    """List the suites that have a name, and where their files are on this machine."""
    from grader import settings
    from grader.suites import registry

    settings.data_dir()
    found = registry.available()
    if as_json:
        typer.echo(json.dumps([_as_json(info) for info in found], indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "version", "description", "file"):
        table.add_column(heading, overflow="fold")
    for info in found:
        where = str(info.location) if info.location else "not here: grader suites pull " + info.name
        table.add_row(*map(Text, (info.name, info.version, info.description, where)))
    Console().print(table)


@app.command("show")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print a suite's identity, how many tasks it has, and their test groups."""
    from grader.suites import registry

    suite = registry.load(name)
    groups: dict[str, int] = {}
    for task in suite.tasks.values():
        for group in task.groups:
            groups[group.name] = groups.get(group.name, 0) + 1
    facts: dict[str, Any] = {
        "name": suite.name,
        "version": suite.version,
        "sha256": suite.sha256,
        "tasks": len(suite.tasks),
        "groups": groups,
    }
    if as_json:
        typer.echo(json.dumps({**facts, "task_ids": list(suite.tasks)}, indent=2))
        return
    task_ids = list(suite.tasks)
    facts["tasks"] = f"{len(task_ids)}, from {task_ids[0]} to {task_ids[-1]}"
    facts["groups"] = ", ".join(f"{group} (in {count} tasks)" for group, count in groups.items())
    for label, value in facts.items():
        typer.echo(f"{label:8} {value}")


@app.command("pull")
def pull(name: Annotated[str, typer.Argument(help="A suite's name; see grader suites list.")]) -> None:
    """Download a suite's file to the cache folder, check it, and print where it is."""
    from grader.suites import registry

    typer.echo(registry.pull(name))


def _as_json(info: SuiteInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "aliases": list(info.aliases),
        "version": info.version,
        "description": info.description,
        "licence": info.licence,
        "source": info.source,
        "file_name": info.file_name,
        "sha256": info.sha256,
        "location": str(info.location) if info.location else None,
    }
