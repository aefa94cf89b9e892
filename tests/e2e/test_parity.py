"""Real models' samples pass and fail as EvalPlus recorded it of them."""

from __future__ import annotations

import gzip
import json

import pytest


def recorded(file):
    """(base, base and plus) by sample: whether EvalPlus passes it. Its ``plus`` does not ask for ``base``."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert {row["evalplus"][group] for row in rows for group in ("base", "plus")} <= {
        "pass",
        "fail",
        "timeout",
    }
    return {
        row["sample_id"]: (
            row["evalplus"]["base"] == "pass",
            row["evalplus"]["base"] == row["evalplus"]["plus"] == "pass",
        )
        for row in rows
    }


def passed(verdict):
    """The same of one of our verdicts, where ``plus`` is null if ``base`` has failed."""
    base, plus = (verdict["groups"][group] for group in ("base", "plus"))
    base_passed = base is not None and base["status"] == "passed"
    return base_passed, base_passed and plus is not None and plus["status"] == "passed"


@pytest.mark.dataset
@pytest.mark.parametrize("name", ["qwen1.5b-humaneval", "codet5-humaneval"])
def test_every_verdict_on_humaneval_plus_is_evalplus_s(name, data_dir, samples_dir, command):
    file = samples_dir / f"{name}.jsonl.gz"
    theirs = recorded(file)
    verdicts = command.score(file, "humaneval+")
    assert len(verdicts) == len(theirs) == 164
    ours = {verdict["sample_id"]: passed(verdict) for verdict in verdicts}
    assert ours == theirs
    assert all(verdict["passed"] == ours[verdict["sample_id"]][1] for verdict in verdicts)
