"""The real service, in a process of its own that can be killed, over a grading that says what it graded.

As a script: ``job_service.py '<JSON of the options>'`` serves until a signal comes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

import grader
from grader.dispatch.contract import Batch, PoolState, VerdictFields
from grader.errors import OverloadedError
from grader.server.jobs.store import JobStore

DEADLINE_S = 120.0
STAMP = {"backend": "none", "layers": ()}
_URL = re.compile(r"http://127\.0\.0\.1:\d+")


@dataclass
class Options:
    """``log``: the file that gets a line for every sample that was graded. ``room``: programs in the queue."""

    url: str
    log: str = ""
    sample_s: float = 0.002
    workers: int = 4
    room: int = 1_000
    keys: str = ""
    lease_s: float = 2.0
    silent_s: float = 60.0


class LoggingGrading:
    """Takes ``sample_s`` for each program, several at a time. A program with "wrong" in it has a wrong answer; what is
    not begun in time is not judged."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._slots = asyncio.Semaphore(options.workers)
        self._waiting = 0
        self._log = os.open(options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if options.log else None

    @property
    def stamp(self) -> Mapping[str, Any]:
        return STAMP

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        if self._log is not None:
            os.close(self._log)

    def state(self) -> PoolState:
        return PoolState(workers={"ready": self._options.workers})

    async def grade(self, batch: Batch) -> AsyncIterator[list[VerdictFields]]:
        if self._waiting + len(batch.programs) > self._options.room:
            raise OverloadedError("no room", 0.01)
        self._waiting += len(batch.programs)
        left = len(batch.programs)
        end = None if batch.timeout_s is None else time.monotonic() + batch.timeout_s
        try:
            for program in batch.programs:
                async with self._slots:
                    await asyncio.sleep(self._options.sample_s)
                    self._note("graded", batch.request_id, program.sample_id)
                    left -= 1
                    self._waiting -= 1
                    is_late = end is not None and time.monotonic() > end
                    status = "wrong_answer" if "wrong" in program.source else "passed"
                    status = "infrastructure_error" if is_late else status
                    yield [verdict_of(program.task_id, program.sample_id, status, batch)]
        finally:
            self._waiting -= left
            if left:
                self._note("cut", batch.request_id, "")

    def _note(self, *words: str) -> None:
        if self._log is not None:
            os.write(self._log, ("\t".join(words) + "\n").encode())


def verdict_of(task_id: str, sample_id: str, status: str, batch: Batch) -> VerdictFields:
    is_wrong = status != "passed"
    outcome = {
        "status": status,
        "passed": int(not is_wrong),
        "total": 1,
        "first_failed": 0 if is_wrong else None,
    }
    return {
        "task_id": task_id, "sample_id": sample_id, "status": status, "passed": not is_wrong,
        "groups": dict.fromkeys(batch.groups or (), outcome), "reward": float(not is_wrong), "cpu_s": 0.001,
        "wall_s": 0.001, "peak_memory_bytes": 1, "error": None, "stdout_tail": "", "sandbox": STAMP,
        "cached": False, "attempts": 1, "extraction": None,
    }  # fmt: skip


def body_of(samples: int, *, wrong_every: int = 3, **more: Any) -> dict[str, Any]:
    """A request with so many samples, no two of them alike."""
    texts = (f"x = {n}{'  # wrong' * (n % wrong_every == 0)}" for n in range(samples))
    given = [
        {"task_id": f"Starter/{n % 7}", "sample_id": f"s{n}", "solution": text}
        for n, text in enumerate(texts)
    ]
    return {"suite": "starter", "samples": given, "use_cache": False, **more}


def expected_status(sample_id: str, wrong_every: int = 3) -> str:
    return "wrong_answer" if int(sample_id.removeprefix("s")) % wrong_every == 0 else "passed"


def lines_of(store: JobStore, tenant: str, job_id: str, *, after: int, limit: int) -> list[str]:
    """The recorded verdicts of a job that is there."""
    found = store.look(tenant, job_id, after=after, limit=limit)
    assert found is not None
    lines = found.text.decode().splitlines()
    assert len(lines) == found.count
    return lines


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something to become true, with a deadline that only a broken program meets."""
    end = time.monotonic() + DEADLINE_S
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.005)


@dataclass
class JobService:
    """Starts the service, kills it, and starts it again on the same database."""

    options: Options
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    client: httpx.Client = field(default_factory=httpx.Client)
    starts: int = 0

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        self.starts += 1
        output = self.folder / f"service-{id(self)}-{self.starts}.log"
        environment = os.environ | {"PYTHONPATH": str(Path(grader.__file__).parent.parent)}
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-P", __file__, json.dumps(asdict(self.options))],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip

        def url() -> str | None:
            text = output.read_text()
            assert self.process is not None
            assert self.process.poll() is None, text
            found = _URL.search(text)
            return found[0] if found else None

        base = wait_until(url, "the service listens")
        self.client.close()
        self.client = httpx.Client(base_url=base, timeout=DEADLINE_S)
        wait_until(self._answers, "the service answers")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None
        with suppress(httpx.TransportError):
            return self.client.get("/healthz").status_code == 200
        return False

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, and return what the process ended with."""
        assert self.process is not None
        self.client.close()
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def stop(self) -> None:
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)

    def post(self, body: Mapping[str, Any], **headers: str) -> dict[str, Any]:
        answer = self.client.post("/v1/jobs", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def verdicts(self, job_id: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = self.client.get(f"/v1/jobs/{job_id}/verdicts", params=parameters)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def graded(self) -> list[tuple[str, str]]:
        """The (job, sample) of every sample that was graded, in order."""
        return [(job, sample) for what, job, sample in self._notes() if what == "graded"]

    def cut(self) -> set[str]:
        """The jobs of which a batch was cut off."""
        return {job for what, job, _ in self._notes() if what == "cut"}

    def _notes(self) -> list[list[str]]:
        log = Path(self.options.log)
        return [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []


def main() -> None:
    from grader.server.jobs.part import jobs_part
    from grader.server.jobs.runner import RunnerSettings
    from grader.server.serve import run
    from grader.server.settings import ServerSettings

    options = Options(**json.loads(sys.argv[1]))
    part = jobs_part(
        options.url,
        RunnerSettings(
            retry_s=0.05, poll_s=0.2, sweep_s=0.5, lease_s=options.lease_s, silent_s=options.silent_s
        ),
    )
    keys = Path(options.keys) if options.keys else None
    killed_by = run(ServerSettings(port=0, api_keys_file=keys), LoggingGrading(options), [part])
    if killed_by is not None:
        os._exit(128 + killed_by)


if __name__ == "__main__":
    main()
