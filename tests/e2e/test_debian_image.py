"""An image from Debian's packages: chosen by name, it gives the verdicts that the usual one gives."""

from __future__ import annotations

import os

import pytest

from grader.sandbox import docker_engine, factory, images
from grader.sandbox.options import CellOptions

# So that samples that hang or hoard cost less; the others need far less than this anyway.
QUICK = ("--time-floor", "1", "--memory-limit", str(256 << 20))


@pytest.fixture(scope="module")
def debian_image(debian_packages):
    missing = factory.unavailable_reason(CellOptions(sandbox="docker"))
    if missing:
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    images.build()
    images.build(source="debian")
    return images.reference(source="debian")


def test_verdicts_are_those_of_the_usual_image(
    debian_image, command, starter_samples, starter_expected, tools
):
    in_docker = ("--sandbox", "docker", *QUICK)
    debian = command.score(starter_samples, "starter", *in_docker, "--image", debian_image)
    usual = command.score(starter_samples, "starter", *in_docker)
    assert {verdict["sample_id"]: verdict["status"] for verdict in debian} == starter_expected
    assert tools.judged(debian) == tools.judged(usual)


def test_expected_answers_are_kept_apart(debian_image):
    client = docker_engine.connect()
    try:
        debian, usual = (images.find(client, wanted) for wanted in (debian_image, images.reference()))
    finally:
        client.close()
    assert debian.root_key != usual.root_key
    assert debian.id != usual.id


def test_an_image_that_was_not_made_is_no_reason_for_another(debian_image, command, starter_samples):
    ended = command(
        "score", starter_samples, "--suite", "starter", "--sandbox", "docker",
        "--image", "grader/python:debian-bookworm-0-0",
    )  # fmt: skip
    assert ended.returncode == 3
    assert "grader images build python --offline --from debian" in ended.stderr
