import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import grader as package
from grader.sandbox import options
from grader.version import __version__


def test_version(grader):
    assert grader("--version") == (0, f"grader {__version__}\n", "")


def test_the_interpreter_runs_the_package_as_the_script_does():
    command = [sys.executable, "-m", "grader", "--version"]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        == f"grader {__version__}\n"
    )


def test_help_names_every_command(grader):
    code, out, _ = grader("--help")
    assert code == 0
    for command in ("score", "doctor", "suites", "serve", "keys", "images", "report"):
        assert command in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "v.jsonl", "-o", "r.html"],
    ],
)
def test_commands_of_later_versions_keep_their_place(grader, arguments):
    code, out, err = grader(*arguments)
    assert (code, out) == (2, "")
    assert "is not available in this version" in err


@pytest.fixture
def built(monkeypatch, tmp_path):
    """What images are asked for; none is made, nor the root folder."""
    asked = []
    monkeypatch.setattr("grader.sandbox.rootfs.prepare_root", lambda *_, **__: tmp_path / "root")
    monkeypatch.setattr("grader.sandbox.debian_root.recipe_key", lambda _packages: "debian-x")
    monkeypatch.setattr(
        "grader.sandbox.images.build",
        lambda name, *, offline, source, on_progress: asked.append((name, offline, source)) or "sha256:0",
    )
    return asked


def test_images_are_built_by_name(grader, built):
    code, out, _ = grader("images", "build", "--offline")
    assert code == 0
    assert built == [("python", True, "machine"), ("python-scientific", True, "machine")]
    assert out.count("sha256:0") == 2
    assert grader("images", "build", "python")[0] == 0
    assert built[2:] == [("python", False, "machine")]
    assert grader("images", "build", "--root-only")[0] == 0
    assert len(built) == 3


def test_an_image_from_debian_is_named_as_it_is_to_be_chosen(grader, built):
    code, out, _ = grader("images", "build", "python", "--offline", "--from", "debian")
    assert (code, built) == (0, [("python", True, "debian")])
    assert out.startswith("grader/python:debian-x-")
    assert out.endswith(" sha256:0\n")
    assert grader("images", "build", "--root-only", "--from", "debian")[0] == 2


def test_an_unknown_image_is_bad_usage(grader, monkeypatch, tmp_path):
    monkeypatch.setattr("grader.sandbox.rootfs.prepare_root", lambda *_, **__: tmp_path / "root")
    code, out, err = grader("images", "build", "perl")
    assert (code, out) == (2, "")
    assert "give one of python, python-scientific" in err


def mechanism(name, ok=True, required=True):
    return SimpleNamespace(
        name=name, ok=ok, required=required, detail="decided by [x]", remedy=f"turn {name} on"
    )


@pytest.fixture
def mechanisms(monkeypatch):
    found = []
    monkeypatch.setattr("grader.sandbox.docker_preflight.report", list)
    monkeypatch.setitem(sys.modules, "grader.sandbox.preflight", SimpleNamespace(report=lambda: found))
    monkeypatch.setattr("grader.sandbox.preflight", sys.modules["grader.sandbox.preflight"], raising=False)
    return found


def test_doctor_is_content(grader, mechanisms):
    mechanisms += [mechanism("seccomp"), mechanism("landlock", ok=False, required=False)]
    code, out, err = grader("doctor")
    assert (code, err) == (0, "")
    assert "decided by [x]" in " ".join(out.split())
    assert "turn landlock on" in " ".join(out.split())
    assert "turn seccomp on" not in " ".join(out.split())


def test_doctor_misses_something(grader, mechanisms):
    mechanisms += [mechanism("seccomp", ok=False)]
    code, _, err = grader("doctor")
    assert code == 3
    assert "missing here: seccomp" in err
    code, out, _ = grader("doctor", "--json")
    assert code == 3
    assert json.loads(out)["mechanisms"][0]["remedy"] == "turn seccomp on"
    assert json.loads(out)["ok"] is False


def test_the_help_names_all_layers_that_may_be_missing(grader, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    shown = " ".join(grader("score", "--help")[1].split())
    for layer in set().union(*options.OPTIONAL_LAYERS.values()):
        assert layer in shown


def test_suites_list(grader):
    code, out, _ = grader("suites", "list", "--json")
    assert code == 0
    names = {info["name"]: info for info in json.loads(out)}
    assert {"humaneval+", "mbpp+"} <= set(names)
    code, out, _ = grader("suites", "list")
    assert code == 0
    assert "humaneval+" in out


def test_suites_show(grader, suite):
    code, out, _ = grader("suites", "show", "toy+")
    assert code == 0
    assert "3, from Toy/0 to Toy/2" in out
    assert "base (in 3 tasks), plus (in 3 tasks)" in out
    assert json.loads(grader("suites", "show", "toy+", "--json")[1])["groups"] == {"base": 3, "plus": 3}


def test_suites_unknown(grader):
    for command in ("show", "pull"):
        code, out, err = grader("suites", command, "no-such-suite")
        assert (code, out) == (2, "")
        assert "no-such-suite" in err


def test_a_closed_pipe_is_quiet():
    code = "import sys, grader.cli; sys.argv = ['grader', '--version']; grader.cli.main()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        run.stdout.close()
        assert run.stderr.read() == b""


def test_starting_is_cheap():
    heavy = {"pydantic", "rich.table", "rich.progress", "numpy", "asyncio", "hypothesis"}
    code = "import sys, grader, grader.cli; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert heavy.isdisjoint(found)
    code = "import sys, grader; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {name for name in found if name.startswith("grader")} == {"grader", "grader.version"}


def test_every_public_name_is_there():
    assert sorted(package.__all__) == dir(package)
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


def test_the_error_stream_may_be_anything(grader, engines, samples, monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert grader("score", samples, "--quiet")[0] == 0


@pytest.mark.parametrize("arguments", [["--version"], ["suites", "list"], ["suites", "list", "--json"]])
def test_a_full_disk_behind_standard_output_is_said_in_one_line(arguments):
    code = f"import sys, grader.cli; sys.argv = ['grader', *{arguments}]; grader.cli.main()"
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert run.stderr == "grader: standard output cannot be written to: No space left on device\n"
    assert run.returncode == 3
