"""Samples per second that the service answers where workers do nothing: what is in front of the workers.

    python loadtest/bench_service.py [--clients 8] [--batch 64] [--seconds 5] [--ndjson] [--same N] [--at-least N]

The service, its dispatcher and its local engine are the real ones; the two worker processes answer each job with a
verdict without doing anything. With ``--workers 0`` nothing is behind the service's routes. The expected answers of the
suite are made before. Ends with 1 where fewer than ``--at-least`` samples were answered a second.

Each client is a process with one keep-alive connection that sends one batch after the other. ``--same N`` gives every
task N samples that are the same program apart from a comment, as a trainer's groups often are. Printed are samples per
second, the latencies of batches in milliseconds, and the service's CPU time for a batch, all of which matter: the
clients run on the same processors.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from grader.dispatch.blocking import BlockingEngine
from grader.dispatch.making import PoolOptions, make_pool
from grader.limits import Limits
from grader.suites import registry

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_SERVICE = Path(__file__).parent / "noop_service.py"


def _body(suite: str, batch: int, same: int, client: int) -> bytes:
    tasks = list(registry.load(suite).tasks.values())
    samples = [
        {
            "task_id": tasks[number // same % len(tasks)].task_id,
            "sample_id": f"sample-{number}",
            # Each client's programs are others: none is answered from what another one has run.
            "solution": f"# {number}\n_client = {client}\n{tasks[number // same % len(tasks)].reference}",
        }
        for number in range(batch)
    ]
    return json.dumps({"suite": suite, "samples": samples}).encode()


def _make_expected_answers(name: str, tasks: int) -> None:
    suite = registry.load(name)
    suite = replace(suite, tasks=dict(list(suite.tasks.items())[:tasks]))
    with BlockingEngine(make_pool(PoolOptions()), suite, limits=Limits()):
        pass


def _client(
    port: int, body: bytes, accept: str, until: float, results: multiprocessing.Queue[list[float]]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/json", "Accept": accept}
    latencies = []
    while time.monotonic() < until:
        began = time.perf_counter()
        connection.request("POST", "/v1/grade", body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {said[:500]!r}")
        latencies.append(time.perf_counter() - began)
    results.put(latencies)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _await(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise SystemExit("the service does not answer")


def main() -> int:
    """Start the service, send it batches, and print how fast it was."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--same", type=int, default=1)
    parser.add_argument("--suite", default="humaneval+")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--ndjson", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at-least", type=float, default=0.0)
    given = parser.parse_args()
    bodies = [_body(given.suite, given.batch, given.same, client) for client in range(given.clients)]
    accept = "application/x-ndjson" if given.ndjson else "application/json"
    if given.workers:
        _make_expected_answers(given.suite, given.batch)
    command = [sys.executable, str(_SERVICE), "--port", str(given.port), "--workers", str(given.workers)]
    service = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _await(given.port)
        results: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
        until = time.monotonic() + given.seconds
        clients = [
            multiprocessing.Process(target=_client, args=(given.port, body, accept, until, results))
            for body in bodies
        ]
        before, began = _cpu_s(service.pid), time.monotonic()
        for client in clients:
            client.start()
        latencies = [latency for _ in clients for latency in results.get(timeout=given.seconds + 30)]
        wall_s, cpu_s = time.monotonic() - began, _cpu_s(service.pid) - before
        for client in clients:
            client.join()
    finally:
        service.terminate()
        service.wait()
    return int(_print(latencies, given.batch, wall_s, cpu_s) < given.at_least)


def _print(latencies: list[float], batch: int, wall_s: float, cpu_s: float) -> float:
    """Print how fast it was; return samples a second."""
    requests = len(latencies)
    ordered = sorted(latencies)
    rate = requests * batch / wall_s
    print(f"{rate:.0f} samples/s in batches of {batch}; a batch takes "
          f"{statistics.median(ordered) * 1e3:.1f} ms (median), {ordered[int(requests * 0.99)] * 1e3:.1f} ms (p99), "
          f"and {cpu_s / requests * 1e3:.2f} ms of the service's CPU")  # fmt: skip
    return rate


if __name__ == "__main__":
    sys.exit(main())
