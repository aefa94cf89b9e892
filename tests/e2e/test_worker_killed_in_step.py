"""Killing workers in the middle of a training step changes no reward."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from typing import Any

import pytest

from grader.integrations import asking
from grader.integrations.verl import compute_score_batch

COPIES = 6


@pytest.fixture
def serving(watched: Any) -> Any:
    process = watched.start("serve", "--port", 0, "--no-jobs", "--workers", 2)
    url = next(found["url"] for line in process.stderr if (found := json.loads(line))["event"] == "serving")
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
    reader.start()
    yield process, url
    asking.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0, "".join(lines)[-3000:]
    reader.join(60)


def test_killing_workers_in_a_step_changes_no_reward(
    serving: Any, tools: Any, starter_samples: Any, starter_expected: dict[str, str]
) -> None:
    process, url = serving
    samples = [json.loads(line) for line in starter_samples.read_text("utf-8").splitlines()]
    # Copies with a comment of their own are programs of their own, so that each of them is run.
    rows = [
        (sample.get("solution") or sample["completion"], sample)
        for sample in samples
        if starter_expected[sample["sample_id"]] != "time_limit"
    ]
    texts = [f"{text}\n# copy {copy}\n" for copy in range(COPIES) for text, _ in rows]
    truths = [sample["task_id"] for _, sample in rows] * COPIES
    options = {"url": url, "suite": "starter"}
    undisturbed = compute_score_batch(["x"] * len(texts), texts, truths, **options)

    killed: set[int] = set()
    done = threading.Event()

    def kill() -> None:
        while len(killed) < 3 and not done.wait(0.15):
            for worker in tools.children_of(process.pid):
                if worker not in killed and tools.children_of(worker):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                    killed.add(worker)
                    break

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        disturbed = compute_score_batch(
            ["x"] * len(texts), [f"{text}\n" for text in texts], truths, **options
        )
    finally:
        done.set()
        killer.join()
    assert killed, "no worker was killed while the step was graded"
    assert [one["score"] for one in disturbed] == [one["score"] for one in undisturbed]
    assert all(one["infrastructure_error"] == 0.0 for one in disturbed)
    expected = [float(starter_expected[sample["sample_id"]] == "passed") for _, sample in rows] * COPIES
    assert [one["score"] for one in undisturbed] == expected
