"""verl's own client against `/run_code`: one request for each test case, each on a connection of its own.

    python loadtest/bench_run_code.py [--seconds 30] [--connections 256] [--processes 2] [--url http://host:port]
                                      [--python .../bin/python] [--workers N] [--late 1] [--most-p99 3]

`verl_traffic.py` calls verl's `compute_score` in an environment that has verl: that of --python, or else the one that
tests/contracts/test_verl_sandbox.py has made. Samples have 8 test cases of right and wrong programs, ones that fail,
that do not compile, that sleep, flood, read much, or go beyond a limit; every case is held against what its program
must have done. Without --url a service is started. Printed are throughput, latencies (of requests that were tried
again, from the first try on), and what went wrong. The exit code is 1 for a wrong result, a connection that failed or
a p99 of --most-p99 seconds or more: a tenth of verl's time-out of 30 s.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_CLIENT = Path(__file__).with_name("verl_traffic.py")
# verl's import takes seconds, and what is in flight at the end has its retries.
_BESIDES_S = 300.0


@dataclass
class Tally:
    """What all client processes saw."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    wall_s: float = 0.0
    failed: int = 0
    wrong: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, found: dict[str, Any]) -> None:
        """Add what one process printed."""
        self.latencies += found["latencies"]
        self.statuses.update(found["statuses"])
        self.kinds.update(found["kinds"])
        self.in_flight += found["most_in_flight"]
        self.wall_s = max(self.wall_s, found["wall_s"])
        self.failed += found["failed"]
        self.wrong += found["wrong"]
        self.shown += found["shown"]

    @property
    def p99_s(self) -> float:
        """The 0.99 quantile of the latencies."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]


def verl_python() -> Path:
    """Return the interpreter of the environment with verl that the contract tests have made."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grader-tests" / "contracts"
    for folder in sorted(cache.glob("verl-*")):
        if (folder / "complete").exists():
            return folder / "bin" / "python"
    raise SystemExit("no environment with verl: run tests/contracts/test_verl_sandbox.py, or give --python")


def _drive(url: str, given: argparse.Namespace) -> Tally:
    shares = [given.connections // given.processes] * given.processes
    shares[0] += given.connections - sum(shares)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clients = [
        subprocess.Popen(
            [given.python or verl_python(), _CLIENT, f"{url}/run_code",
             *map(str, (share, given.seconds, seed, given.late))],
            stdout=subprocess.PIPE, text=True, env={**environment, "NO_PROXY": "*"},
        )
        for seed, share in enumerate(shares)
    ]  # fmt: skip
    tally = Tally()
    try:
        for client in clients:
            said, _ = client.communicate(timeout=given.seconds + _BESIDES_S)
            if client.returncode:
                raise SystemExit(f"a client ended with {client.returncode}")
            tally.add(json.loads(said.rstrip().rpartition("\n")[2]))
    finally:
        for client in clients:
            client.kill()
            client.wait()
    return tally


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


def _print(tally: Tally) -> None:
    requests = len(tally.latencies)
    rate = requests / (tally.wall_s or 1.0)
    print(f"{requests} requests in {tally.wall_s:.1f} s: {rate:.0f}/s on {os.cpu_count()} processors,"
          f" clients included; at most {tally.in_flight} in flight; load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print("  " + ", ".join(f"{name} {count}" for name, count in tally.kinds.most_common()))
    if requests:
        print(f"latency: p50 {statistics.median(tally.latencies):.3f} s, p99 {tally.p99_s:.3f} s, "
              f"most {max(tally.latencies):.3f} s")  # fmt: skip
    statuses = ", ".join(f"{count} x {status}" for status, count in tally.statuses.most_common())
    print(f"wrong results: {tally.wrong}; failed requests: {tally.failed}; answers: {statuses}")
    for line in tally.shown:
        print(f"  {line}")


def main() -> None:
    """Start the service if there is none, have verl's client use it, and print what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--processes", type=int, default=2, help="that the connections are shared by")
    parser.add_argument(
        "--late", type=float, default=1.0, help="of a thousand requests: go beyond a time limit of 1 s"
    )
    parser.add_argument("--most-p99", type=float, default=3.0, help="seconds; as many or more are a failure")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--python", type=Path, help="of an environment with verl")
    parser.add_argument("--url", help="of a service that runs")
    given = parser.parse_args()
    service, url = (None, given.url) if given.url else _started(given.workers)
    try:
        tally = _drive(url, given)
    finally:
        if service is not None:
            service.terminate()
            service.wait()
    _print(tally)
    is_slow = not tally.latencies or tally.p99_s >= given.most_p99
    sys.exit(bool(is_slow or tally.wrong or tally.failed))


if __name__ == "__main__":
    main()
