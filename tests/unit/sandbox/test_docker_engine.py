"""What an operator is told when containers cannot be had. No daemon is needed here."""

import json
import os
import platform
import socket
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from grader.errors import InputError, SandboxError
from grader.sandbox import docker_engine, docker_orphans, docker_seccomp, factory, images, rootfs, seccomp
from grader.sandbox.options import CellOptions

docker = pytest.importorskip("docker")


def test_no_daemon(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(
        SandboxError, match=r"no Docker daemon answers at unix:///nowhere.*start it"
    ) as raised:
        docker_engine.connect()
    assert factory.unavailable_reason(CellOptions(sandbox="docker")) == str(raised.value)


def test_a_daemon_elsewhere(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    with pytest.raises(SandboxError, match="a daemon on this machine"):
        docker_engine.connect()


def test_no_sdk(monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(SandboxError, match=r"pip install '\.\[docker\]'"):
        docker_engine.connect()


def test_a_daemon_that_is_being_restarted_is_waited_for(monkeypatch, tmp_path):
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listener:

        def begin(_seconds):
            if not path.exists():
                listener.bind(str(path))
                listener.listen()

        monkeypatch.setattr(docker_engine.time, "sleep", begin)
        new = SimpleNamespace(api_version="1.44")
        monkeypatch.setattr(docker, "APIClient", lambda **_: new)
        assert docker_engine.connect(patience_s=60.0) is new


def test_an_old_daemon(monkeypatch):
    old = SimpleNamespace(api_version="1.39", version=lambda: {"Version": "18.09"}, close=lambda: None)
    monkeypatch.setattr(docker, "APIClient", lambda **_: old)
    monkeypatch.setattr(docker_engine, "_knock", lambda *_: None)
    with pytest.raises(SandboxError, match=r"18\.09 \(API 1\.39\); cells need 20\.10"):
        docker_engine.connect()


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        ("No such image: grader/python:x", "the image is missing", "grader images build"),
        ("Unknown runtime specified runsc", "not registered", "daemon.json"),
        ("write /var/lib/docker/x: no space left on device", "disk is full", "docker system df"),
        (
            "OCI runtime create failed: error loading seccomp filter into kernel",
            "seccomp profile",
            "libseccomp",
        ),
        ("failed to create shim: unable to apply cgroup configuration", "control group", "delegated"),
        ("Get https://registry/v2/: dial tcp: lookup registry: no such host", "the registry", "--offline"),
        ("manifest for python:3.99.1-slim not found: manifest unknown", "no base image", "--offline"),
        ("something else", "something else", ""),
    ],
)
def test_the_daemons_errors_are_explained(said, cause, remedy):
    with pytest.raises(SandboxError) as raised, docker_engine.explained("cannot make a container"):
        raise docker.errors.APIError("500 Server Error", explanation=said)
    text = str(raised.value)
    assert text.startswith("cannot make a container: ")
    assert cause in text
    assert remedy in text


def test_a_runtime_that_is_not_registered():
    client = SimpleNamespace(
        info=lambda: {"Runtimes": {"runc": {"path": "runc"}, "gv": {"path": "/usr/bin/runsc"}}}
    )
    assert docker_engine.is_gvisor(client, "gv")
    assert not docker_engine.is_gvisor(client, "runc")
    with pytest.raises(SandboxError, match=r"'runsc' is not registered.*it has gv, runc"):
        docker_engine.is_gvisor(client, "runsc")


@pytest.mark.parametrize(("default", "found"), [("gv", True), ("runc", False), (None, False)])
def test_the_default_runtime_may_be_gvisor_too(default, found):
    info = {
        "DefaultRuntime": default,
        "Runtimes": {"runc": {"path": "runc"}, "gv": {"path": "/usr/bin/runsc"}},
    }
    assert docker_engine.is_gvisor(SimpleNamespace(info=lambda: info), None) is found


class Daemon:
    """Has one image, with the labels that it was built with; keeps what a build was given."""

    def __init__(self, **labels):
        self.labels = labels and {images.RUNNER_LABEL: rootfs.runner_digest()} | labels

    def inspect_image(self, _wanted):
        if not self.labels:
            raise docker.errors.NotFound("no such image")
        return {"Id": "sha256:1", "Config": {"Labels": self.labels}}

    def build(self, *, fileobj, labels, buildargs, **_):
        with tarfile.open(fileobj=fileobj) as context:
            self.files = context.getnames()
        self.labels, self.arguments = labels, buildargs
        return []

    def close(self):
        pass


def test_the_official_image_is_taken_in_this_interpreters_version(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADER_CACHE_DIR", str(tmp_path))
    daemon = Daemon()
    monkeypatch.setattr(docker_engine, "connect", lambda: daemon)
    assert images.build("python", offline=False) == "sha256:1"
    assert daemon.arguments == {"PYTHON": platform.python_version()}
    assert daemon.labels[images.PYTHON_LABEL] == platform.python_version()
    assert {"Dockerfile", "runner/supervisor.py", "rootfs.py"} <= set(daemon.files)
    assert not [name for name in daemon.files if "__pycache__" in name]
    for name in images.PACKAGES:
        recipe = (Path(__file__).parents[3] / "sandbox_images" / name / "Dockerfile").read_text()
        assert [line for line in recipe.splitlines() if line.startswith("FROM")] == [
            "FROM python:${PYTHON}-slim AS made",
            "FROM scratch",
        ]


def test_an_image_with_another_interpreter_is_refused_under_the_tag_of_this_ones():
    ours = images.reference()
    for labels in ({images.ROOT_LABEL: ""}, {images.PYTHON_LABEL: "3.2.1"}):
        with pytest.raises(
            SandboxError, match=r"not this machine's .*docker image rm grader/python-sc.*--offline"
        ):
            images.find(Daemon(**labels), ours)
    for labels in ({images.PYTHON_LABEL: platform.python_version()}, {images.ROOT_LABEL: "0123"}):
        assert images.find(Daemon(**labels), ours).id == "sha256:1"
    assert images.find(Daemon(**{images.PYTHON_LABEL: "3.2.1"}), "named/by:hand").id == "sha256:1"


def test_options_that_do_not_go_together():
    with pytest.raises(InputError, match="--sandbox docker"):
        CellOptions(runtime="runsc")
    with pytest.raises(InputError, match="no sandbox 'chroot'"):
        CellOptions(sandbox="chroot")
    assert CellOptions().backend == "namespaces"


def test_an_unknown_image():
    with pytest.raises(InputError, match="give one of python, python-scientific"):
        images.reference("perl")


def test_an_image_is_named_after_everything_in_it(monkeypatch):
    before = images.reference()
    assert before != images.reference("python")
    monkeypatch.setattr("grader.sandbox.rootfs.runner_digest", lambda: "0" * 64)
    assert images.reference() != before


def test_the_published_seccomp_profile_is_ours():
    published = Path(__file__).parents[3] / "sandbox_images" / "seccomp.json"
    again = "python -m grader.sandbox.docker_seccomp > sandbox_images/seccomp.json"
    assert published.read_text() == docker_seccomp.text(), f"make it again: {again}"


def test_the_profile_allows_no_call_that_kills_a_sample_but_those_of_the_runner():
    allowed = {name for rule in docker_seccomp.profile()["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"
               for name in rule["names"]}  # fmt: skip
    assert allowed & set(seccomp._KILLED) == {"mount", "unshare"}
    json.dumps(docker_seccomp.profile())


def test_only_an_owner_that_lives_keeps_a_container():
    own = docker_orphans.own_labels()[docker_orphans.OWNER_LABEL]
    machine, pid, started = own.rsplit("/", 2)
    assert pid == str(os.getpid())
    assert not docker_orphans.is_orphan(own, "running")
    assert not docker_orphans.is_orphan(own, "exited")
    assert docker_orphans.is_orphan(f"{machine}/{pid}/{int(started) + 1}", "running")
    assert docker_orphans.is_orphan(f"{machine}/4194304/1", "running")


@pytest.mark.parametrize("owner", ["", "elsewhere/1/2/3", "a/b", "boot/4026531836/x/5"])
def test_of_another_machine_only_what_has_ended_is_an_orphan(owner):
    assert not docker_orphans.is_orphan(owner, "running")
    assert docker_orphans.is_orphan(owner, "exited")


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("grader/python:none", "make it with `grader images build python --offline`"),
        ("nope", "there is no image nope here: leave --image out"),
        ("sha256:12", "there is no image sha256:12 here: leave --image out"),
    ],
)
def test_the_remedy_for_a_missing_image_makes_that_image_or_none(wanted, says):
    with pytest.raises(SandboxError, match=says):
        images.find(Daemon(), wanted)
