"""verl's own scoring by SandboxFusion, from many threads, with every result checked; ``bench_run_code.py`` starts it.

Runs in verl's environment, and so without the grader. Arguments: the URL of ``/run_code``, how many requests may be in
flight, seconds, a seed, and how many requests of a thousand go beyond a time limit. Prints one line of JSON.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

# Of verl's module nothing is replaced: two of its calls are timed and counted.
_scoring: Any = import_module("verl.utils.reward_score.sandbox_fusion")
_api: Any = import_module("verl.utils.reward_score.sandbox_fusion.utils")

_MEMORY_MIB = 1024
_TIMEOUT_S = 10
_SHORT_TIMEOUT_S = 1
_CASES = 8
_SHOWN = 10


@dataclass(frozen=True)
class Kind:
    """A kind of sample: its share, its program, and for a number what goes in and what verl is to make of it.

    ``made`` returns standard input, the output that is expected, and the one that there is (None: any).
    """

    name: str
    weight: int
    code: str
    status: str
    exit_code: Callable[[int], int | None]
    made: Callable[[int], tuple[str, str | None, str | None]]
    more: dict[str, Any] = field(default_factory=dict)
    timeout_s: int = _TIMEOUT_S
    assertion: Callable[[int], str] | None = None


def _numbers(n: int) -> tuple[str, str, str]:
    total = f"{sum(n * k % 1009 for k in range(200)) + n}\n"
    return f"{n}\n" + " ".join(str(n * k % 1009) for k in range(200)) + "\n", total, total


def _same(text: str) -> tuple[str, str]:
    return text, text


_KINDS = (
    Kind("right", 45, "n = int(input())\nprint(sum(map(int, input().split())) + n)\n", "success", lambda _: 0,
         _numbers),
    Kind("wrong", 15, "print(int(input().split()[0]) + 1)\n", "wrong_answer", lambda _: 0,
         lambda n: (f"{n}\n", f"{n + 2}\n", f"{n + 1}\n")),
    Kind("function", 10, "def add(a, b):\n    return a + b\n", "success", lambda _: 0,
         lambda n: (f"{n}\n{n}", f"{2 * n}", f"{2 * n}\n"), {"fn_name": "add"}),
    Kind("asserted", 5, "def add(a, b):\n    return a + b\n", "success", lambda _: 0, lambda n: (f"{n}", None, ""),
         assertion=lambda n: f"assert add({n}, 1) == {n + 1}"),
    Kind("raises", 8, "print([][int(input())])\n", "runtime_error", lambda _: 1, lambda n: (f"{n}\n", "", "")),
    Kind("exits", 3, "import sys\nprint('x')\nsys.exit(int(input()) % 200 + 1)\n", "runtime_error",
         lambda n: n % 200 + 1, lambda n: (f"{n}\n", "x\n", "x\n")),
    Kind("no_program", 3, "def f(:\n    return 1\n", "runtime_error", lambda _: 1, lambda n: (f"{n}", "", "")),
    Kind("sleeps", 4, "import time\ntime.sleep(0.05)\nprint(input())\n", "success", lambda _: 0,
         lambda n: (f"{n}\n", *_same(f"{n}\n"))),
    Kind("floods", 3, "n = int(input())\nprint(str(n % 10) * 300_000)\n", "success", lambda _: 0,
         lambda n: (f"{n}\n", *_same(str(n % 10) * 300_000 + "\n"))),
    Kind("reads", 3, "import sys\nprint(len(sys.stdin.read()))\n", "success", lambda _: 0,
         lambda n: ("x" * (100_000 + n), *_same(f"{100_000 + n}\n"))),
)  # fmt: skip
# Each of them holds a worker for a second, so that they have one case: eight at a time would measure nothing else.
_LATE = (
    Kind("spins", 1, "while True:\n    pass\n", "timeout", lambda _: None, lambda n: (f"{n}", "", ""),
         timeout_s=_SHORT_TIMEOUT_S),
    Kind("stays", 1, "import time\nprint('up', flush=True)\ntime.sleep(60)\n", "timeout", lambda _: None,
         lambda n: (f"{n}", "", "up\n"), timeout_s=_SHORT_TIMEOUT_S),
)  # fmt: skip


@dataclass
class Tally:
    """What was seen: latencies in seconds from a request's first try to its last, and what went wrong."""

    latencies: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=Counter)
    kinds: dict[str, int] = field(default_factory=Counter)
    most_in_flight: int = 0
    wall_s: float = 0.0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class _Watch:
    """Times verl's requests as they are made."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._lock = threading.Lock()
        self._in_flight = 0
        self._call, self._post = _api.call_sandbox_api, _api.requests.post
        _api.call_sandbox_api, _api.requests.post = self._called, self._posted

    def _called(self, *arguments: Any, **options: Any) -> Any:
        with self._lock:
            self._in_flight += 1
            self._tally.most_in_flight = max(self._tally.most_in_flight, self._in_flight)
        began = time.perf_counter()
        try:
            return self._call(*arguments, **options)
        finally:
            with self._lock:
                self._in_flight -= 1
                self._tally.latencies.append(time.perf_counter() - began)

    def _posted(self, *arguments: Any, **options: Any) -> Any:
        answer = self._post(*arguments, **options)
        with self._lock:
            self._tally.statuses[str(answer.status_code)] += 1
        return answer


def _score(url: str, semaphore: threading.Semaphore, kind: Kind, numbers: list[int], tally: Tally) -> None:
    made = [kind.made(number) for number in numbers]
    tests = {
        "inputs": [stdin for stdin, _, _ in made],
        "outputs": [wanted for _, wanted, _ in made],
        **kind.more,
    }
    if kind.assertion is not None:
        tests["assert_case"] = [kind.assertion(number) for number in numbers]
    score, found = _scoring.compute_score(
        url, semaphore, _MEMORY_MIB, f"```python\n{kind.code}```", tests, timeout=kind.timeout_s
    )
    tally.kinds[kind.name] += len(numbers)
    if score != (1.0 if kind.status == "success" else 0.0) or len(found) != len(numbers):
        tally.wrong.append(f"{kind.name}: score {score} of {len(found)} cases")
    for number, (_, _, printed), case in zip(numbers, made, found, strict=False):
        if case.get("api_request_error"):
            tally.failed.append(f"{kind.name} {number}: {case['api_request_error']:.300}")
            continue
        wanted = {"status": kind.status, "exit_code": kind.exit_code(number), "stdout": printed}
        differing = {name: case.get(name) for name, value in wanted.items() if case.get(name) != value}
        if differing:
            tally.wrong.append(f"{kind.name} {number}: {differing!r:.300}")


def main() -> None:
    """Score until the time is over."""
    url, in_flight, seconds, seed, late = sys.argv[1], *map(float, sys.argv[2:])
    logging.disable(logging.CRITICAL)  # verl logs each request
    tally, semaphore = Tally(), threading.Semaphore(int(in_flight))
    _Watch(tally)
    began = time.monotonic()
    until = began + seconds

    def work(index: int) -> None:
        chance = random.Random(seed * 1000 + index)
        weights = [kind.weight for kind in _KINDS]
        while time.monotonic() < until:
            is_late = chance.random() < late / 1000 * _CASES
            kinds = _LATE if is_late else chance.choices(_KINDS, weights)
            try:
                numbers = [chance.randrange(100_000) for _ in range(1 if is_late else _CASES)]
                _score(url, semaphore, chance.choice(kinds), numbers, tally)
            except (
                Exception
            ) as error:  # a thread that ends unseen would leave the load smaller than it is said to be
                tally.failed.append(f"{type(error).__name__}: {error}")

    # Half as many again as are needed: samples begin and end, and what is in flight should stay the same.
    threads = [threading.Thread(target=work, args=(n,)) for n in range(max(1, int(1.5 * in_flight / _CASES)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.wall_s = time.monotonic() - began
    failures = {"failed": len(tally.failed), "wrong": len(tally.wrong)}
    shown = {"shown": [*tally.wrong[:_SHOWN], *tally.failed[:_SHOWN]]}
    print(json.dumps({**vars(tally), **failures, **shown}))


if __name__ == "__main__":
    main()
