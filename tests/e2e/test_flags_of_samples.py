"""Programs that real models wrote have no flag, also none that rests on what happened in the sandbox."""

from __future__ import annotations

import gzip
import json

import pytest

import grader
from grader.rewards import tamper_flags
from grader.status import Status


@pytest.mark.dataset
@pytest.mark.parametrize("name", ["codet5-humaneval", "qwen1.5b-humaneval"])
def test_no_real_sample_has_a_flag_by_its_verdict(samples_dir, sandbox_root, name):
    lines = gzip.decompress((samples_dir / f"{name}.jsonl.gz").read_bytes()).splitlines()
    rows = {row["sample_id"]: row for row in map(json.loads, lines)}
    samples = [
        {"sample_id": sample_id, "task_id": row["task_id"], "solution": row["solution"]}
        for sample_id, row in rows.items()
    ]
    verdicts = [verdict.model_dump() for verdict in grader.grade(samples, suite="humaneval+")]
    assert len(verdicts) == len(samples) > 100
    assert not any(verdict["status"] == Status.INFRASTRUCTURE_ERROR for verdict in verdicts)
    flags = {one["sample_id"]: tamper_flags(rows[one["sample_id"]]["solution"], one) for one in verdicts}
    assert {sample_id: found for sample_id, found in flags.items() if found} == {}
    kinds = {one["error"]["type"] for one in verdicts if one["error"]}
    assert "Tampering" not in kinds
    assert not any(one["status"] == Status.SECURITY_VIOLATION for one in verdicts)
