"""What one set of a worker's reports leads to goes to a worker in one message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grader.dispatch.contract import Batch
from grader.dispatch.driver import Driver
from grader.dispatch.state import DispatcherConfig
from grader.engines.pool import Listener, PoolFailed, WorkerReady, WorkerSaid
from grader.errors import InfrastructureError
from grader.limits import Limits
from grader.suites.inline import inline_suite, inline_task
from grader.worker.execution import Executed, Execution
from grader.worker.messages import Cancel, Grade, Graded, Prepare, Prepared, Ran
from grader.worker.program import Program


class RecordingPool:
    """One worker, which does what the test says."""

    name, workers = "recording", 1

    def __init__(self, folder: Path) -> None:
        self.cache = folder
        self.sent: list[list[int]] = []
        self.jobs: list[Any] = []

    async def start(self, listener: Listener) -> None:
        self.say = listener
        listener(WorkerReady("w", "here", {}, "key"))

    async def close(self) -> None:
        """Nothing is there to be ended."""

    def send(self, worker: str, messages: Sequence[Any]) -> None:
        self.sent.append([message.number for message in messages if not isinstance(message, Cancel)])
        self.jobs += messages

    def demand(self, jobs: int) -> None:
        """There is one worker, whatever there is to do."""


def ran(number: int) -> Ran:
    return Ran(number, Executed("exited", 0, 0, b"", b"", 0.0, 0.0, 0))


def test_reports_that_come_together_are_answered_together(tmp_path: Path) -> None:
    async def main() -> list[list[int]]:
        pool: Any = RecordingPool(tmp_path)
        config = DispatcherConfig(default_cost_s=10.0, alone_s=3600.0)
        driver = Driver(pool, config)
        await driver.start()
        runs = [
            asyncio.ensure_future(driver.execute(Execution(str(n)), Limits(), tenant="t", timeout_s=60.0))
            for n in range(2 * config.min_in_flight)
        ]
        while len(pool.sent) < config.min_in_flight:
            await asyncio.sleep(0)
        held = [number for numbers in pool.sent for number in numbers]
        pool.sent.clear()
        pool.say(WorkerSaid("w", list(map(ran, held))))
        answer = list(pool.sent)
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        await driver.close()
        return answer

    (message,) = asyncio.run(main())
    assert len(message) == DispatcherConfig().min_in_flight


def test_a_failure_that_comes_with_a_verdict_comes_after_it(tmp_path: Path) -> None:
    task = inline_task({"inputs": ["1"], "outputs": ["1"]}, "tests")
    suite = inline_suite([task])
    programs = [Program(task.task_id, name, "x = 1") for name in "ab"]

    async def main() -> tuple[list[Any], Exception]:
        pool: Any = RecordingPool(tmp_path)
        driver = Driver(pool)
        await driver.start()
        found: list[Any] = []

        async def graded() -> None:
            async for verdicts in driver.grade(Batch(request_id="r", suite=suite, programs=programs)):
                found.extend(verdicts)

        grading = asyncio.ensure_future(graded())
        while not any(isinstance(job, Grade) for job in pool.jobs):
            for job in pool.jobs:
                if isinstance(job, Prepare):
                    pool.say(WorkerSaid("w", [Prepared(job.number)]))
            await asyncio.sleep(0)
        job = next(job for job in pool.jobs if isinstance(job, Grade))
        verdict = {"sample_id": job.program.sample_id, "status": "passed", "cpu_s": 0.0, "wall_s": 0.0}
        pool.say(WorkerSaid("w", [Graded(job.number, verdict)]))
        pool.say(PoolFailed(InfrastructureError("no worker will ever work again")))
        (error,) = await asyncio.wait_for(asyncio.gather(grading, return_exceptions=True), 60)
        await driver.close()
        return found, error

    found, error = asyncio.run(main())
    assert [verdict["sample_id"] for verdict in found] == ["a"]
    assert isinstance(error, InfrastructureError)
