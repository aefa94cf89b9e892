"""verl's traffic: one request for each test case, each on a connection of its own, from many threads at the same time.

    python loadtest/bench_run_code.py [--seconds 30] [--connections 256] [--workers 2] [--url http://host:port]

Without ``--url`` a service is started. Requests are verl's but for the programs: right and wrong ones, ones that
fail, that do not compile, that sleep, flood, read much, or go beyond a limit. As verl's client does, a 504 is tried
again, up to three times in all, after 1 s and 2 s, and nothing else is. Every result is held against what the program
must have done. Printed are throughput, latencies (of requests that were tried again, from the first try on), and what
went wrong; the exit code is 1 if anything did.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TRIES = 3
_CLIENT_TIMEOUT_S = 30.0
_RUN_TIMEOUT_S = 10.0
_SHORT_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Kind:
    """A kind of program: its share of the traffic, and what a request and its right answer are for a number."""

    name: str
    weight: int
    code: str
    stdin: Callable[[int], str | None]
    expected: Callable[[int], tuple[str, int | None, str | None]]  # status, return code, stdout (None: any)
    run_timeout: float = _RUN_TIMEOUT_S


def _numbers(n: int) -> str:
    return f"{n}\n" + " ".join(str(n * k % 1009) for k in range(200)) + "\n"


_SUM = "n = int(input())\nprint(sum(map(int, input().split())) + n)\n"
_KINDS = (
    Kind("right", 60, _SUM, _numbers,
         lambda n: ("Success", 0, f"{sum(n * k % 1009 for k in range(200)) + n}\n")),
    Kind("wrong", 15, "print(int(input().split()[0]) + 1)\n", lambda n: f"{n}\n",
         lambda n: ("Success", 0, f"{n + 1}\n")),
    Kind("raises", 8, "print([][int(input())])\n", lambda n: f"{n}\n", lambda _: ("Failed", 1, "")),
    Kind("exits", 3, "import sys\nprint('x')\nsys.exit(int(input()) % 200 + 1)\n", lambda n: f"{n}\n",
         lambda n: ("Failed", n % 200 + 1, "x\n")),
    Kind("no_program", 3, "def f(:\n    return 1\n", lambda _: None, lambda _: ("Failed", 1, "")),
    Kind("sleeps", 4, "import time\ntime.sleep(0.05)\nprint(input())\n", lambda n: f"{n}\n",
         lambda n: ("Success", 0, f"{n}\n")),
    Kind("floods", 3, "n = int(input())\nprint(str(n % 10) * 300_000)\n", lambda n: f"{n}\n",
         lambda n: ("Success", 0, str(n % 10) * 300_000 + "\n")),
    Kind("reads", 3, "import sys\nprint(len(sys.stdin.read()))\n", lambda n: "x" * (100_000 + n % 1000),
         lambda n: ("Success", 0, f"{100_000 + n % 1000}\n")),
)  # fmt: skip
# Each of these holds a worker for a second: their share is given with --late, in a thousand.
_LATE = (
    Kind("spins", 1, "while True:\n    pass\n", lambda _: None, lambda _: ("Failed", None, ""),
         _SHORT_TIMEOUT_S),
    Kind("stays", 1, "import time\nprint('up', flush=True)\ntime.sleep(60)\n", lambda _: None,
         lambda _: ("Failed", None, "up\n"), _SHORT_TIMEOUT_S),
)  # fmt: skip


@dataclass
class Tally:
    """What the clients saw."""

    latencies: list[float] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    shed: int = 0
    resets: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def _body(kind: Kind, number: int) -> bytes:
    request = {
        "compile_timeout": 10, "run_timeout": kind.run_timeout, "code": kind.code, "stdin": kind.stdin(number),
        "memory_limit_MB": 1024, "language": "python", "files": {}, "fetch_files": [],
    }  # fmt: skip
    return json.dumps(request).encode()


def _mistake(kind: Kind, number: int, answer: dict[str, Any]) -> str:
    status, code, stdout = kind.expected(number)
    run = answer["run_result"]
    wanted = {
        "status": status,
        "return_code": code,
        "run_status": "TimeLimitExceeded" if code is None else "Finished",
        "stdout": stdout,
    }
    found = {
        "status": answer["status"],
        "return_code": run["return_code"],
        "run_status": run["status"],
        "stdout": run["stdout"],
    }
    differing = [name for name, value in wanted.items() if found[name] != value]
    if run["stderr"] is None or (kind.name in ("raises", "no_program") and "Error" not in run["stderr"]):
        differing.append("stderr")
    return ", ".join(f"{name}: {found.get(name)!r:.80}" for name in differing)


def _ask(host: str, port: int, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=_CLIENT_TIMEOUT_S)
    try:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
        connection.request("POST", "/run_code", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _one(host: str, port: int, kind: Kind, number: int, tally: Tally) -> None:
    body = _body(kind, number)
    began = time.perf_counter()
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(attempt)
        try:
            status, said = _ask(host, port, body)
        except OSError as error:
            tally.resets.append(f"{kind.name}: {error!r}")
            return
        if status != 504:
            break
        tally.shed += 1
    tally.latencies.append(time.perf_counter() - began)
    tally.kinds[kind.name] += 1
    mistake = f"HTTP {status}: {said[:200]!r}" if status != 200 else _mistake(kind, number, json.loads(said))
    if mistake:
        tally.wrong.append(f"{kind.name} {number}: {mistake}")


def _clients(
    host: str,
    port: int,
    threads: int,
    seed: int,
    late: float,
    until: float,
    out: multiprocessing.Queue[Tally],
) -> None:
    """Ask from some threads of one process until the time is over."""
    tallies = [Tally() for _ in range(threads)]

    def work(index: int) -> None:
        chance = random.Random(seed * 1000 + index)
        weights = [kind.weight for kind in _KINDS]
        while time.monotonic() < until:
            kinds = _LATE if chance.random() < late else chance.choices(_KINDS, weights)
            _one(host, port, chance.choice(kinds), chance.randrange(100_000), tallies[index])

    running = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    whole = Tally()
    for tally in tallies:
        whole.latencies += tally.latencies
        whole.kinds += tally.kinds
        whole.shed += tally.shed
        whole.resets += tally.resets
        whole.wrong += tally.wrong
    out.put(whole)


def _drive(url: str, given: argparse.Namespace) -> tuple[Tally, float]:
    place = urlsplit(url)
    assert place.hostname
    assert place.port
    out: multiprocessing.Queue[Tally] = multiprocessing.Queue()
    until = time.monotonic() + given.seconds
    shares = [given.connections // given.processes] * given.processes
    shares[0] += given.connections - sum(shares)
    clients = [
        multiprocessing.Process(
            target=_clients, args=(place.hostname, place.port, share, seed, given.late / 1000, until, out)
        )
        for seed, share in enumerate(shares)
    ]
    began = time.monotonic()
    for client in clients:
        client.start()
    whole = Tally()
    for _ in clients:
        tally = out.get(timeout=given.seconds + 120)
        whole.latencies += tally.latencies
        whole.kinds += tally.kinds
        whole.shed += tally.shed
        whole.resets += tally.resets
        whole.wrong += tally.wrong
    wall_s = time.monotonic() - began
    for client in clients:
        client.join()
    return whole, wall_s


def _started(workers: int | None) -> tuple[subprocess.Popen[str], str]:
    command = [str(Path(sys.executable).with_name("grader")), "serve", "--port", "0", "--no-jobs"]
    if workers is not None:
        command += ["--workers", str(workers)]
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert service.stderr is not None
    for line in service.stderr:
        if '"serving"' in line:
            url = str(json.loads(line)["url"])
            break
    else:
        raise SystemExit(f"the service ended with {service.wait()}")
    threading.Thread(target=service.stderr.read, daemon=True).start()  # so that its log never blocks it
    place = urlsplit(url)
    for _ in range(1200):
        connection = http.client.HTTPConnection(str(place.hostname), place.port)
        connection.request("GET", "/readyz")
        is_ready = connection.getresponse().status == 200
        connection.close()
        if is_ready:
            return service, url
        time.sleep(0.1)
    raise SystemExit("no worker is ready")


def _print(tally: Tally, wall_s: float) -> None:
    ordered = sorted(tally.latencies)
    requests = len(ordered)
    print(f"{requests} requests in {wall_s:.1f} s: {requests / wall_s:.0f}/s on {os.cpu_count()} processors, clients "
          "included")  # fmt: skip
    print("  " + ", ".join(f"{name} {count}" for name, count in tally.kinds.most_common()))
    if ordered:
        print(f"latency: p50 {statistics.median(ordered):.3f} s, p99 {ordered[int(requests * 0.99)]:.3f} s, "
              f"most {ordered[-1]:.3f} s")  # fmt: skip
    print(f"wrong results: {len(tally.wrong)}; resets and time-outs: {len(tally.resets)}; 504: {tally.shed}")
    for line in (*tally.wrong[:10], *tally.resets[:10]):
        print(f"  {line}")


def main() -> None:
    """Start the service if there is none, send it verl's traffic, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--processes", type=int, default=2, help="that the connections are shared by")
    parser.add_argument(
        "--late", type=float, default=1.0, help="of a thousand: go beyond a time limit of 1 s"
    )
    parser.add_argument("--workers", type=int)
    parser.add_argument("--url", help="of a service that runs")
    given = parser.parse_args()
    service, url = (None, given.url) if given.url else _started(given.workers)
    try:
        tally, wall_s = _drive(url, given)
    finally:
        if service is not None:
            service.terminate()
            service.wait()
    _print(tally, wall_s)
    sys.exit(bool(tally.wrong or tally.resets or not tally.latencies))


if __name__ == "__main__":
    main()
