"""OpenRLHF's own client of remote rewards: over HTTP, and with our file."""

from __future__ import annotations

from pathlib import Path

import pytest

import grader.integrations

# The first test of a machine makes the environments.
pytestmark = pytest.mark.timeout(1800)

FILE = str(Path(grader.integrations.__file__).with_name("openrlhf.py"))
LOGS = {"passed": [1.0], "flagged": [0.0]}


@pytest.fixture(scope="module")
def found(verl_environment, service):
    return verl_environment.run("openrlhf_remote.py", URL=service.url, GRADER_URL=service.url, FILE=FILE)


@pytest.fixture(scope="module")
def lost(verl_environment, noop_service):
    url = noop_service.url
    return verl_environment.run("openrlhf_remote.py", URL=url, GRADER_URL=url, FILE=FILE, ROWS="lost")


def test_many_single_samples_at_once(found):
    assert found["http"] == [[1.0 if n % 3 else 0.0] for n in range(48)]


def test_an_answer(found):
    assert found["one"] == {"rewards": [1.0], "scores": [1.0], "extra_logs": LOGS}


def test_several_servers(found):
    assert [one["rewards"] for one in found["two servers"]] == [[1.0, 1.0], [1.0]]


def test_the_reward_function_file(found):
    assert [one["rewards"] for one in found["file"]] == [[1.0], [0.0]]
    assert found["file"][0]["extra_logs"] == LOGS | {"infrastructure_error": [0.0]}


def test_what_could_not_be_judged_is_sent_again_and_never_0(lost, noop_service):
    assert lost["http"][0] == "RuntimeError"
    requests = [one for one in noop_service.events("request") if one["path"] == "/openrlhf/reward"]
    assert [one["status"] for one in requests] == [503] * 5
    assert lost["file"][0] == "NotJudgedError"


def test_what_cannot_be_graded_is_an_error(lost):
    assert lost["file label"][0] == "SuiteError"
    assert lost["file query"] == ["InputError", "queries[0]: does not begin with prompts[0]"]
