"""Options, and how rows become requests."""

from __future__ import annotations

import pickle

import pytest

from grader.client import NotFound, RequestRefused, ServerUnavailable
from grader.client.bodies import encode_json
from grader.errors import InputError
from grader.integrations import rows as rows_module
from grader.integrations.options import RewardOptions
from grader.integrations.rows import check_lengths, make_row, pieces_of

TESTS = {"inputs": [[1]], "outputs": [2], "fn_name": "f"}


@pytest.mark.parametrize(
    "given",
    [
        {"ulr": "http://x"},
        {"timeout_s": 0},
        {"timeout_s": "1"},
        {"infrastructure_error_score": "0"},
        {"infrastructure_error_score": True},
        {"suite": 7},
    ],
)
def test_wrong_options_are_refused(given):
    with pytest.raises(InputError):
        RewardOptions.of(given)


def test_options_of_the_environment(monkeypatch):
    monkeypatch.setenv("GRADER_SUITE", "starter")
    monkeypatch.setenv("GRADER_REWARD", '{"name": "fraction"}')
    monkeypatch.setenv("GRADER_INFRASTRUCTURE_ERROR_SCORE", "-0.5")
    found = RewardOptions.from_environment()
    assert (found.suite, found.reward, found.infrastructure_error_score) == (
        "starter",
        {"name": "fraction"},
        -0.5,
    )
    assert RewardOptions.of({"suite": "other"}, found).reward == {"name": "fraction"}
    monkeypatch.setenv("GRADER_REWARD", "{")
    with pytest.raises(InputError, match="GRADER_REWARD"):
        RewardOptions.from_environment()
    monkeypatch.setenv("GRADER_REWARD", "binary")
    monkeypatch.setenv("GRADER_INFRASTRUCTURE_ERROR_SCORE", "none")
    with pytest.raises(InputError, match="GRADER_INFRASTRUCTURE_ERROR_SCORE"):
        RewardOptions.from_environment()


def test_parallel_lists():
    assert check_lengths(a=[1, 2], b=None, c="xy") == 2
    assert check_lengths() == 0
    with pytest.raises(InputError, match="2 a, 1 b"):
        check_lengths(a=[1, 2], b=[1])


@pytest.mark.parametrize("completion", [None, 7, b"x", {"role": "assistant"}])
def test_completions_that_are_no_text(completion):
    with pytest.raises(InputError, match=r"truths\[0\]: its completion"):
        make_row(completion, TESTS, "truths[0]")


def test_a_batch_is_one_request():
    rows = [make_row(f"x = {n}", TESTS, "t") for n in range(100)]
    (piece,) = pieces_of(rows, RewardOptions(reward="tiered"))
    assert piece.numbers == list(range(100))
    assert piece.fields["tests"] == [TESTS] * 100
    assert piece.fields["reward"] == "tiered"
    assert "prompts" not in piece.fields


def test_rows_of_several_suites():
    labels = ["A/1", TESTS, {"suite": "b", "task_id": "B/1"}, "A/2"]
    rows = [make_row("x", label, "t") for label in labels]
    found = {piece.fields.get("suite"): piece for piece in pieces_of(rows, RewardOptions(suite="a"))}
    assert found["a"].numbers == [0, 3]
    assert found["a"].fields["task_ids"] == ["A/1", "A/2"]
    assert found["b"].numbers == [2]
    assert found[None].numbers == [1]


def test_a_task_without_a_suite():
    with pytest.raises(InputError, match=r"row 1: 'A/1' is the name of a task"):
        list(pieces_of([make_row("x", TESTS, "t"), make_row("x", "A/1", "t")], RewardOptions()))


def test_what_is_too_large_is_split(monkeypatch):
    monkeypatch.setattr(rows_module, "MAX_BYTES", 1000)
    monkeypatch.setattr(rows_module, "MAX_ROWS", 10)
    rows = [make_row("x" * (300 if n < 6 else 1), TESTS, "t") for n in range(30)]
    pieces = list(pieces_of(rows, RewardOptions()))
    assert [number for piece in pieces for number in piece.numbers] == list(range(30))
    assert [len(piece.numbers) for piece in pieces[:2]] == [2, 2]
    assert max(len(piece.numbers) for piece in pieces) == 10


@pytest.mark.parametrize("script", ["ascii", "漢字かな交じり文", "🐍" * 3, "lone \ud800"])
def test_requests_are_as_large_as_they_are_taken_for(monkeypatch, script):
    monkeypatch.setattr(rows_module, "MAX_BYTES", 20_000)
    tests = {"kind": "stdio", "inputs": [script], "outputs": [script]}
    rows = [make_row(script * 20, dict(tests), "t", prompt=script * 30) for _ in range(100)]
    pieces = list(pieces_of(rows, RewardOptions()))
    assert [number for piece in pieces for number in piece.numbers] == list(range(100))
    bodies = [len(encode_json(piece.fields, "it")) for piece in pieces]
    assert max(bodies) < 20_000 + 1000
    assert len(pieces) < 2 + sum(bodies) / 18_000


@pytest.mark.parametrize(
    "error", [RequestRefused("m", 422, {"a": 1}), NotFound("m", 404, {}), ServerUnavailable("m", None)]
)
def test_errors_cross_processes(error):
    """AReaL, Ray and verl's prime call adapters in other processes."""
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), vars(found)) == (type(error), "m", vars(error))
