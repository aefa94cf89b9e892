"""The reward that a service was started with: that of requests which name none."""

from __future__ import annotations

import json

import pytest

from grader.errors import InputError
from grader.server.settings import ServerSettings, reward_of

FLAGGED = {"sum": ["binary", {"name": "flags", "values": {"exit_call": -2}}]}
CHEATS = "```python\nimport os\ndef f(x):\n    os._exit(0)\n```"
HONEST = "```python\ndef f(x):\n    return x\n```"
LABEL = {"inputs": [[1]], "outputs": [1], "fn_name": "f"}


@pytest.mark.parametrize(("named", "expected"), [(None, [-1.0, 1.0]), ("binary", [1.0, 1.0])])
def test_a_request_that_names_none_has_it(compat, named, expected):
    front = compat("sandbox-fusion", reward=FLAGGED)
    body = {"completions": [CHEATS, HONEST], "tests": [LABEL] * 2, "reward": named}
    found = front.post("/v1/rewards", body).json()
    assert found["rewards"] == expected
    assert ("flags" in found["components"][0]) is (named is None)


@pytest.mark.parametrize(("query", "expected"), [("", -1.0), ("?reward=binary", 1.0)])
def test_so_have_the_endpoints_of_trainers(compat, query, expected):
    body = {"prompt": "p", "response": CHEATS, "label": json.dumps(LABEL)}
    assert compat("slime", reward=FLAGGED).post(f"/slime/reward{query}", body).json() == expected
    body = {"query": ["p" + CHEATS], "prompts": ["p"], "labels": [json.dumps(LABEL)]}
    answer = compat("openrlhf", reward=FLAGGED).post(f"/openrlhf/reward{query}", body).json()
    assert answer["rewards"] == [expected]


def test_where_it_comes_from(monkeypatch):
    monkeypatch.delenv("GRADER_REWARD", raising=False)
    assert reward_of(None) is None
    monkeypatch.setenv("GRADER_REWARD", json.dumps(FLAGGED))
    assert reward_of(None) == FLAGGED
    assert reward_of("fraction") == "fraction"


@pytest.mark.parametrize("text", ["{", "no", '{"name": "flags", "values": {"no": 1}}', "[1]"])
def test_one_that_there_is_not_is_refused_at_the_start(text):
    with pytest.raises(InputError, match=r"^--reward"):
        ServerSettings(reward=reward_of(text))
