"""What a client waits for: one sample by HTTP against the same in this process, and a batch behind another's queue.

    python loadtest/bench_latency.py [--samples 300] [--queued 50000] [--batches 9] [--at-most-ms M] [--at-most-ratio R]

First, one sample after the other is graded in this process and by an idle service with as many workers, in turns; the
medians and their difference are printed. Then a tenant sends a request of ``--queued`` samples, which all wait in the
dispatcher's queue, and another sends batches of 64: their median is printed beside that of the same batches alone on a
service with half the workers, which is what two tenants of equal weight may expect of each other. Ends with 1 where the
difference is more than ``--at-most-ms``, or the ratio of the two medians more than ``--at-most-ratio``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from grader.dispatch.blocking import BlockingEngine
from grader.dispatch.making import PoolOptions, make_pool
from grader.limits import Limits
from grader.suites import registry
from grader.worker.program import Program

_SUITE = "starter"
_BATCH = 64
_WARM_UP = 20
_GRADER = [sys.executable, "-c", "from grader.cli import main; main()"]


def main() -> int:
    """Measure both, and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--queued", type=int, default=50_000)
    parser.add_argument("--batches", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at-most-ms", type=float, default=float("inf"))
    parser.add_argument("--at-most-ratio", type=float, default=float("inf"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        more_ms = _compare_one_sample(Path(folder), given.samples, given.workers)
        ratio = _compare_tenants(Path(folder), given.queued, given.batches, given.workers)
    return int(more_ms > given.at_most_ms or ratio > given.at_most_ratio)


def _compare_one_sample(folder: Path, count: int, workers: int) -> float:
    suite = registry.load(_SUITE)
    pool = make_pool(PoolOptions(workers=workers))
    by_http, in_process = [], []
    with (
        BlockingEngine(pool, suite, limits=Limits()) as engine,
        _service(folder / "latency", workers) as (url, keys),
        _client(url, keys[0]) as client,
    ):
        for number, sample in enumerate(_samples(count + _WARM_UP)):
            program = Program(sample["task_id"], sample["sample_id"], sample["solution"])
            in_process.append(_seconds(partial(_graded_here, engine, program)))
            by_http.append(_seconds(partial(_graded, client, [sample])))
            if number == _WARM_UP:
                by_http, in_process = [], []
    ours, theirs = statistics.median(in_process) * 1e3, statistics.median(by_http) * 1e3
    print(f"one sample, p50 of {count}: {ours:.2f} ms in this process, {theirs:.2f} ms by HTTP, "
          f"{theirs - ours:.2f} ms more")  # fmt: skip
    return theirs - ours


def _compare_tenants(folder: Path, queued: int, batches: int, workers: int) -> float:
    alone = _batch_seconds(folder / "alone", max(1, workers // 2), 0, batches)
    shared = _batch_seconds(folder / "shared", workers, queued, batches)
    print(f"a batch of {_BATCH}, p50 of {batches}: {alone * 1e3:.0f} ms alone with half the workers, "
          f"{shared * 1e3:.0f} ms beside another's {queued} samples: ratio {shared / alone:.2f}")  # fmt: skip
    return shared / alone


def _batch_seconds(folder: Path, workers: int, queued: int, batches: int) -> float:
    times = []
    with (
        _service(folder, workers) as (url, keys),
        _client(url, keys[0]) as small,
        _client(url, keys[1]) as big,
    ):
        _graded(small, list(_samples(_BATCH)))
        with _queued(big, queued) if queued else contextlib.nullcontext():
            for number in range(1, batches + 1):
                samples = list(_samples(_BATCH, begin=number * _BATCH))
                times.append(_seconds(partial(_graded, small, samples)))
            if queued:
                left = _waiting(small)
                print(f"{left} of {queued} samples still waited when the last batch was done")
                if not left:
                    sys.exit(
                        "the other tenant's queue was empty too early to compare with; give more --queued"
                    )
    return statistics.median(times)


@contextlib.contextmanager
def _queued(client: httpx.Client, count: int) -> Iterator[None]:
    """Have another tenant's samples wait, all of one request; what is left of them at the end is cancelled."""
    accept = {"accept": "application/x-ndjson"}
    with client.stream(
        "POST", "/v1/grade", json=_request(list(_samples(count, prefix="big"))), headers=accept
    ) as it:
        it.raise_for_status()
        reading = threading.Thread(target=_read, args=(it,))
        reading.start()
        until = time.monotonic() + 120
        while _waiting(client) < 0.9 * count:
            if time.monotonic() > until:
                sys.exit("the samples do not all come to wait")
            time.sleep(0.2)
        yield
        it.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        reading.join()


def _read(answer: httpx.Response) -> None:
    """Read verdicts until the connection is closed: a client that reads none holds up its own answer alone."""
    with contextlib.suppress(httpx.HTTPError):
        for _ in answer.iter_raw():
            pass


def _waiting(client: httpx.Client) -> int:
    """How many samples of the other tenant wait, as the metrics have it (looked at once a second)."""
    line = 'grader_queue_depth_samples{priority="interactive",tenant="big"} '
    other = 'grader_queue_depth_samples{tenant="big",priority="interactive"} '
    for said in client.get("/metrics").text.splitlines():
        if said.startswith((line, other)):
            return int(float(said.split()[-1]))
    return 0


def _graded_here(engine: BlockingEngine, program: Program) -> None:
    for verdict in engine.grade([program]):
        if not verdict["passed"]:
            sys.exit(f"a wrong verdict: {verdict}")


def _graded(client: httpx.Client, samples: list[dict[str, Any]]) -> None:
    answer = client.post("/v1/grade", json=_request(samples))
    answer.raise_for_status()
    if not all(verdict["passed"] for verdict in answer.json()["verdicts"]):
        sys.exit(f"a wrong verdict: {answer.text[:1000]}")


def _request(samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {"suite": _SUITE, "samples": samples, "use_cache": False}


def _samples(count: int, begin: int = 0, prefix: str = "sample") -> Iterator[dict[str, Any]]:
    tasks = list(registry.load(_SUITE).tasks.values())
    for number in range(begin, begin + count):
        task = tasks[number % len(tasks)]
        source = f"# {prefix} {number}\n{task.reference}"
        yield {"task_id": task.task_id, "sample_id": f"{prefix}-{number}", "solution": source}


def _seconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=600)


@contextlib.contextmanager
def _service(folder: Path, workers: int) -> Iterator[tuple[str, list[str]]]:
    """``grader serve`` with the keys of two tenants of equal weight."""
    folder.mkdir()
    environment = {
        **os.environ,
        "GRADER_DATABASE_URL": f"sqlite:///{folder}/jobs.sqlite3",
        "GRADER_API_KEYS_FILE": str(folder / "keys.jsonl"),
    }
    keys = [
        subprocess.run([*_GRADER, "keys", "add", name], env=environment, check=True, capture_output=True, text=True)
        .stdout.split()[-1]
        for name in ("small", "big")
    ]  # fmt: skip
    log = folder / "log"
    with log.open("w") as file:
        command = [*_GRADER, "serve", "--port", "0", "--workers", str(workers)]
        service = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        while '"url": "' not in log.read_text():
            if service.poll() is not None:
                sys.exit(f"the service did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        served = next(line for line in log.read_text().splitlines() if '"url": "' in line)
        url = json.loads(served)["url"]
        while httpx.get(f"{url}/readyz").status_code != httpx.codes.OK:
            time.sleep(0.05)
        yield url, keys
    finally:
        service.terminate()
        service.wait()


if __name__ == "__main__":
    sys.exit(main())
