"""What the documents name exists, and what users can name is in the documents."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main

from grader.cli import app as command_line
from grader.rewards.spec import FUNCTIONS
from grader.rewards.tamper import Flag
from grader.schema import Sample, Summary, Verdict
from grader.status import Status
from grader.suites.catalogue import PINS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
)
TEXTS = {document.relative_to(ROOT).as_posix(): document.read_text() for document in DOCUMENTS}
ALL_TEXT = "\n".join(TEXTS.values())
# Where a document may leave out the beginning of a path.
FOLDERS = [
    ROOT / part for part in ("", "grader", "grader/sandbox", "grader/sandbox/runner", "grader/dispatch")
]
# Files that are not ours, and documents that name many such.
FOREIGN = {"HumanEval_0/0.py", "scripts/e2b_router.py", "scripts/morph_router.py"}
OF_OTHERS = {"docs/compat.md", "docs/inline-tests.md"}
# Labels of containers; spans and their attributes.
LABELS = {
    *("grader.sandbox", "grader.owner", "grader.queue", "grader.grade", "grader.request_id", "grader.suite"),
    *("grader.samples", "grader.verdicts", "grader.cancelled"),
}
each_document = pytest.mark.parametrize("name", TEXTS)


def sources(folder: str) -> Iterator[Path]:
    return (file for file in (ROOT / folder).rglob("*.py") if "__pycache__" not in file.parts)


def spans(text: str) -> list[str]:
    """What is written as code within a sentence."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def rows(name: str, heading: str) -> list[list[str]]:
    """The cells of the first table of a document whose heading begins so."""
    lines = TEXTS[name].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading}"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")])
    return found


def named(name: str, heading: str, column: int = 0) -> list[str]:
    """What the cells of a column name as code."""
    return [span for row in rows(name, heading) for span in re.findall(r"`([^`]+)`", row[column])]


@each_document
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE) if anchor else []
        slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in slugs, target


@each_document
def test_files_named_are_there(name):
    pattern = re.compile(r"(?<![\w/.$-])(?:[\w-]+/)*[\w-]+(?:\.(?:py|sh|csv|svg|md|toml)|/)(?![\w/])")
    ours = re.compile(r"(grader|tests|loadtest|scripts|examples|docs|sandbox_images|runner)/")
    names = {file.name for folder in ("grader", "tests", "loadtest", "examples") for file in sources(folder)}
    for found in pattern.findall(re.sub(r"https?://\S+|\]\([^)\s]*\)", "", TEXTS[name])):
        if found in FOREIGN or not (ours.match(found) or (name not in OF_OTHERS and found.endswith(".py"))):
            continue
        assert found in names or any((folder / found).exists() for folder in FOLDERS), found


def test_tests_named_are_there():
    known = {file.name for file in sources("tests")}
    known.update(
        name for file in sources("tests") for name in re.findall(r"def (test_\w+)", file.read_text())
    )
    fields = {"test_list", "test_code", "test_s", "test_add", "test_program", "test_program_stdio"}
    shown = set(re.findall(r"\btest_\w+(?:\.py)?", ALL_TEXT))
    assert len(shown) > 20
    assert shown - known - fields - {name.removesuffix(".py") for name in known} == set()


def test_environment_variables():
    ours = re.compile(r"\bGRADER_[A-Z][A-Z_]*[A-Z]\b")
    used = {name for file in sources("grader") for name in ours.findall(file.read_text())}
    elsewhere = {
        name
        for folder in ("tests", "loadtest")
        for f in sources(folder)
        for name in ours.findall(f.read_text())
    }
    written = set(ours.findall(ALL_TEXT))
    assert used - written == set(), "in the code, and in no document"
    assert written - used - elsewhere == set(), "in a document, and nowhere in the code"
    assert used <= set(named("docs/cli.md", "variable")), "missing in the table of docs/cli.md"


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(command_line)))


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_in_the_documents(path):
    words = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", TEXTS["docs/cli.md"] + TEXTS["docs/http.md"]))
    assert {name for name in options(COMMANDS[path]) if name.startswith("--")} - words - {"--help"} == set()
    if not hasattr(COMMANDS[path], "commands"):
        assert f"grader {' '.join(path)}" in TEXTS["docs/cli.md"]


def command_calls() -> Iterator[tuple[str, list[str]]]:
    """Each call of the command line in a code block or a span, as its words."""
    for name, text in TEXTS.items():
        blocks = re.findall(r"```(?:sh|console|)\n(.*?)```", text, re.DOTALL) + re.findall(
            r"^    (grader .*)", text, re.M
        )
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        for line in [*lines, *spans(text)]:
            if match := re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(grader [a-z-].*)", line.partition(" #")[0]):
                yield name, shlex.split(match[1].replace("[", "").replace("]", "").replace("'", ""))


def test_calls_of_the_command_line_are_understood():
    calls = list(command_calls())
    assert len(calls) > 20
    for name, words in calls:
        path: tuple[str, ...] = ()
        while len(words) > len(path) + 1 and (*path, words[len(path) + 1]) in COMMANDS:
            path = (*path, words[len(path) + 1])
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert path or given, (name, words)
        assert given - options(COMMANDS[path]) == set(), (name, words)


@pytest.mark.parametrize(
    ("name", "heading", "path"), [("docs/cli.md", "flag", ("score",)), ("docs/http.md", "option", ("serve",))]
)
def test_tables_of_options(name, heading, path):
    shown = set(re.findall(r"--[a-z][a-z-]*", " ".join(row[0] for row in rows(name, heading))))
    known = {option for option in options(COMMANDS[path]) if option.startswith("--")} - {"--help"}
    assert shown == known


def routes() -> dict[str, set[str]]:
    from fastapi.routing import APIRoute

    from grader.server.app import create_app
    from grader.server.compat.catalogue import APIS
    from grader.server.parts import standard_parts
    from grader.server.settings import ServerSettings

    found: dict[str, set[str]] = {}
    for compat in [()] + [(name,) for name in APIS]:
        grading: Any = None  # Nothing is graded: the application is made, and not started.
        app = create_app(ServerSettings(), grading, standard_parts("sqlite:////nowhere/jobs.sqlite3", compat))
        for route in app.state.routes:
            assert isinstance(route, APIRoute)
            found.setdefault(re.sub(r"\{\w+\}", "{}", route.path_format), set()).update(route.methods or ())
    return found


def test_endpoints():
    known = routes()
    texts = re.sub(r"\{\w+\}|/v1/suites/\w+/tasks", lambda m: "{}" if m[0][0] == "{" else m[0], ALL_TEXT)
    assert [path for path in known if f"`{path}" not in texts and f" {path}" not in texts] == []
    for method, path in re.findall(r"\b(GET|POST|DELETE) (/[\w/{}-]*)", texts):
        assert method in known.get(path, set()) or path in {"/", "/docs"}, f"{method} {path}"


def test_metrics():
    text = (ROOT / "grader/telemetry/metrics.py").read_text()
    in_code = {name.removesuffix("_total") for name in re.findall(r'"(grader_[a-z_]+)"', text)}
    in_table = {name.removesuffix("_total") for name in named("docs/metrics.md", "name")}
    assert in_table == in_code
    for name in set(re.findall(r"\bgrader_[a-z_]*(?:total|seconds|samples|failed)\b", ALL_TEXT)):
        assert name.removesuffix("_total") in in_code, name


def test_tables_of_fields_and_names():
    statuses = TEXTS["docs/cli.md"].partition("| status |")[2].partition("\n\n")[0]
    assert {status for status in Status if f"`{status}`" not in statuses} == set()
    verdict, summary = TEXTS["docs/cli.md"].partition("## A verdict")[2].split("## The summary")
    assert {field for field in Verdict.model_fields if f"`{field}`" not in verdict} == set()
    assert {field for field in Summary.model_fields if f"`{field}`" not in summary} == set()
    assert {field for field in Sample.model_fields if f"`{field}`" not in TEXTS["docs/cli.md"]} == set()
    assert set(named("docs/rewards.md", "name")) == set(FUNCTIONS)
    assert set(named("docs/rewards.md", "flag")) == set(Flag)


def test_table_of_suites():
    shown = {row[0].strip("`"): row for row in rows("docs/suites.md", "name")}
    assert list(shown) == [pin.name for pin in PINS]
    for pin in PINS:
        _, aliases, version, _, file, licence = shown[pin.name]
        assert tuple(re.findall(r"`([^`]+)`", aliases)) == pin.aliases
        assert (version, licence) == (pin.version, pin.licence)
        assert pin.sha256 is None or file == f"`{pin.file_name}`"


def test_table_of_compatible_apis():
    from grader.server.compat.catalogue import APIS

    assert named("docs/compat.md", "`--compat`") == list(APIS)


def test_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"pip install '\.\[([\w,]+)\]'", ALL_TEXT):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), extras
    # What is called so on PyPI is another project's.
    for folder in ("grader", "examples", "loadtest"):
        assert [file for file in sources(folder) if "pip install 'grader[" in file.read_text()] == []
    assert "pip install 'grader[" not in ALL_TEXT


def names_of_module(module: str) -> set[str] | None:
    """The names that a module of ours defines, from its source; None if there is no such module."""
    file = ROOT / (module.replace(".", "/") + ".py")
    if not file.exists():
        file = ROOT / module.replace(".", "/") / "__init__.py"
    if not file.exists():
        return None
    if module == "grader":
        return set(dir(importlib.import_module("grader")))
    tree = ast.parse(file.read_text())
    found = {child.stem for child in file.parent.iterdir()} if file.name == "__init__.py" else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


@each_document
def test_names_of_modules_exist(name):
    for block in re.findall(r"^```python\n(.*?)^```$", TEXTS[name], re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "grader":
                known = names_of_module(str(node.module))
                assert known is not None, node.module
                assert {alias.name for alias in node.names} <= known, node.module
    for dotted in re.findall(r"(?<![\w./@-])grader(?:\.[A-Za-z_]\w*)+", TEXTS[name]):
        if dotted in LABELS:
            continue
        module, _, last = dotted.rpartition(".")
        assert names_of_module(dotted) is not None or last in (names_of_module(module) or set()), dotted


def test_numbers():
    from grader.client import bodies as client_bodies
    from grader.client import grading
    from grader.client.config import Timeouts
    from grader.client.retries import RetryPolicy
    from grader.dispatch.config import DispatcherConfig
    from grader.integrations import areal, rows
    from grader.limits import GIB, MIB, Limits
    from grader.samples import MAX_LINE_BYTES
    from grader.server import bodies, idempotency, models, protocol
    from grader.server.jobs import database, retention
    from grader.server.jobs.records import Bounds
    from grader.server.jobs.runner import RunnerSettings
    from grader.server.settings import ServerSettings
    from grader.suites import inline
    from grader.worker import eviction

    served, jobs, running, retries = ServerSettings(), Bounds(), RunnerSettings(), RetryPolicy()
    queue, limits = DispatcherConfig(), Limits()
    said = {
        "docs/cli.md": [
            f"A line may have up to {MAX_LINE_BYTES // MIB} MiB",
            f"| `--time-floor S` | {limits.time_floor_s:g} | CPU seconds that every test may take",
            f"| `--time-factor F` | {limits.time_factor:g} |",
            f"| `--memory-limit BYTES` | {limits.memory_bytes // GIB} GiB |",
            f"the last {limits.stdout_bytes // 1024} KiB of what the program printed",
            f"{areal.AREAL_TIMEOUT_S:g} s",
        ],
        "docs/http.md": [
            f"at most {served.max_body_bytes // MIB} MiB (`--max-body-bytes`)",
            f"zstd windows up to {bodies._ZSTD_WINDOW_BYTES // MIB} MiB",
            f"no whole request head for {served.header_s:g} s",
            f"(or one of more than {protocol.MAX_HEAD_BYTES // 1024} KiB)",
            f"no piece of a body for {served.body_idle_s:g} s, no whole body for {served.body_s:g} s",
            f"reads nothing of its answer for {served.write_s:g} s; an idle one after {served.keep_alive_s:g} s",
            f"There may be {served.max_connections:,} connections",
            f"full with {queue.max_samples:,} samples or {queue.max_bytes // GIB} GiB",
        ],
        "docs/jobs.md": [
            f"| `GRADER_JOBS_KEEP_DAYS` | days that a finished job is kept | {jobs.finished_s / 86_400:g} |",
            f"| `GRADER_JOBS_UNFINISHED` | unfinished jobs that one tenant may have | {jobs.unfinished_jobs} |",
            f"at the same time | {running.jobs_at_once} |",
            f"than it may, or has more than {jobs.finished_jobs:,}",
            f"| what the jobs of one tenant may take | {jobs.tenant_bytes // GIB} GiB |",
            f"Running jobs keep up to {running.most_unrecorded:,} verdicts in memory",
            f"not been heard of for {running.lease_s:g} s",
            f"up to {sum(database._POOL[name] for name in ('pool_size', 'max_overflow'))} connections, "
            f"{database._CLIENT_THREADS} of them for what clients ask",
            f"counting {retention._ROW_BYTES} bytes more for the row of each",
            f"1 to {idempotency.MAX_KEY_CHARACTERS} visible ASCII characters",
            f"known for {jobs.key_s / 3600:g} hours",
            f"up to {idempotency.DEFAULT_MAX_ANSWER_BYTES // MIB} MiB each and {jobs.answer_bytes // GIB} GiB in all",
        ],
        "docs/client.md": [
            f"After {retries.attempts} tries in a row that brought nothing new, or {retries.total_s:g} s",
            f"a silence of {Timeouts().read_s / 60:g} minutes",
            f"put aside for {retries.aside_s:g} s",
            f"A batch of more than {grading.Bounds().samples:,} samples or {grading.Bounds().bytes // MIB} MiB",
            f"Bodies from {client_bodies.COMPRESSED_FROM_BYTES // 1024} kB up",
        ],
        "docs/rewards.md": [f"A completion may have {models.MAX_TEXT_CHARACTERS // MIB} Mi characters"],
        "docs/inline-tests.md": [
            f"A task may have {inline.MAX_TESTS} tests, and {inline.MAX_CHARACTERS // MIB} Mi characters",
            f"when they take more than {eviction.MAX_BYTES // GIB} GiB",
        ],
        "docs/trainers.md": [f"split at {rows.MAX_ROWS} rows or {rows.MAX_BYTES // MIB} MiB"],
        "docs/dispatcher.md": [
            f"up to {queue.batch_s * 1000:g} ms of estimated work",
            f"No item has more than {('no', 'one', 'two', 'three', 'four')[queue.max_attempts]} attempts",
            f"{queue.overhead_s * 1000:g} ms that a worker needs for any sample",
            f"a weight of {queue.learning_rate:g} for the latest sample",
        ],
        "docs/sandbox.md": [
            f"{limits.tmp_bytes // MIB} MiB, 4,096 files",
            f"CPU time of a test group | {limits.group_time_s:g} s",
        ],
    }
    for name, phrases in said.items():
        text = " ".join(TEXTS[name].split())
        assert [phrase for phrase in phrases if phrase not in text] == [], name
    assert "grader.pass_at_k(n=10, c=3, k=5)  # 0.9167" in TEXTS["README.md"]
    assert round(importlib.import_module("grader").pass_at_k(n=10, c=3, k=5), 4) == 0.9167


def test_targets_of_make():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {
        word
        for pair in re.findall(r"`make ([a-z]+)|^make ([a-z]+) +#", ALL_TEXT, re.MULTILINE)
        for word in pair
    }
    assert {"quickstart", "test"} <= shown - {""} <= targets


def test_architecture_has_every_module_and_its_layers_are_those_that_are_checked():
    shown = [
        {
            span.rstrip("/").removesuffix(".py").replace("/", ".")
            for span in re.findall(r"`([\w./]+)`", row[0])
        }
        for row in rows("ARCHITECTURE.md", "module")
    ]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = [{part.strip() for part in layer.split("|")} for layer in contracts[0]["layers"]]
    everything = set().union(*checked)
    assert everything == {module for row in shown for module in row}
    order = {module: level for level, layer in enumerate(checked) for module in layer}
    levels = [[order[module] for module in row] for row in shown]
    assert all(max(above) <= min(below) for above, below in itertools.pairwise(levels)), levels
