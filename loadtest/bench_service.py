"""Samples per second that the service answers over a grading that does nothing: what is in front of the workers.

    python loadtest/bench_service.py [--clients 8] [--batch 64] [--seconds 5] [--ndjson] [--same N]

Each client is a process with one keep-alive connection that sends one batch after the other. ``--same N`` gives every
task N samples that are the same program apart from a comment, as a trainer's groups often are. Printed are samples per
second, the latencies of batches in milliseconds, and the service's CPU time for a batch, all of which matter: the
clients run on the same processors.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from grader.suites import registry

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_SERVICE = Path(__file__).parent / "noop_service.py"


def _body(suite: str, batch: int, same: int) -> bytes:
    tasks = list(registry.load(suite).tasks.values())
    samples = [
        {
            "task_id": tasks[number // same % len(tasks)].task_id,
            "sample_id": f"sample-{number}",
            "solution": f"# {number}\n{tasks[number // same % len(tasks)].reference}",
        }
        for number in range(batch)
    ]
    return json.dumps({"suite": suite, "samples": samples}).encode()


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
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the service does not answer")


def main() -> None:
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
    given = parser.parse_args()
    body = _body(given.suite, given.batch, given.same)
    accept = "application/x-ndjson" if given.ndjson else "application/json"
    service = subprocess.Popen([sys.executable, _SERVICE, "--port", str(given.port)], stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        _await(given.port)
        results: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
        until = time.monotonic() + given.seconds
        arguments = (given.port, body, accept, until, results)
        clients = [multiprocessing.Process(target=_client, args=arguments) for _ in range(given.clients)]
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
    _print(latencies, given.batch, wall_s, cpu_s)


def _print(latencies: list[float], batch: int, wall_s: float, cpu_s: float) -> None:
    requests = len(latencies)
    ordered = sorted(latencies)
    print(f"{requests * batch / wall_s:.0f} samples/s in batches of {batch}; a batch takes "
          f"{statistics.median(ordered) * 1e3:.1f} ms (median), {ordered[int(requests * 0.99)] * 1e3:.1f} ms (p99), "
          f"and {cpu_s / requests * 1e3:.2f} ms of the service's CPU")  # fmt: skip


if __name__ == "__main__":
    main()
