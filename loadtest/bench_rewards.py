"""A trainer's step, through the adapters for TRL and verl, against `grader score` on the same samples.

    python loadtest/bench_rewards.py FILE.jsonl.gz ... [--prompts 512] [--completions 16] [--scale 1]
                                     [--repeats 3] [--workers N] [--distinct] [--most-ratio 1.1]

The files' samples are dealt out to prompts, a task each, and repeated as often as it takes; --scale 0.125 makes it an
eighth of the prompts. With --distinct no two programs are the same, so that each of them is run. A file with "mbpp" in
its name is graded against MBPP+, others against HumanEval+; GRADER_DATA_DIR must have the suite.

The service is started before anything is measured, as it is for a trainer; `grader score` starts its workers each
time. Printed are wall-clock and CPU seconds of each, all processes counted, their ratios to those of `grader score` in
the same round, and the CPU seconds of the service's own process. With --most-ratio the exit code is 1 where a path's
median ratio of wall-clock time is above it, or a reward differs from that of `grader score`. Wall-clock times mean
something on an idle machine only; the ratio of CPU times holds on a busy one too.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import measure

from grader.integrations import asking
from grader.integrations.trl import code_reward
from grader.integrations.verl import compute_score_async, compute_score_batch

_GRADER = (sys.executable, "-P", "-c", "from grader.cli import main; main()")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Step:
    """What a trainer has at a step: parallel lists."""

    suite: str
    task_ids: list[str]
    completions: list[str]

    def write(self, file: Path) -> Path:
        """Write it as samples for `grader score`."""
        rows = zip(self.task_ids, self.completions, strict=True)
        lines = [json.dumps({"task_id": task_id, "completion": text}) + "\n" for task_id, text in rows]
        file.write_text("".join(lines), "utf-8")
        return file

    def head(self) -> Step:
        """Its first sample of each task."""
        first = dict(zip(reversed(self.task_ids), reversed(self.completions), strict=True))
        return Step(self.suite, list(first), list(first.values()))


def make_step(files: Sequence[Path], prompts: int, completions: int, *, distinct: bool) -> Step:
    """Deal the files' samples out: a task a prompt, and of its samples as many as there are completions."""
    suites = {"mbpp+" if "mbpp" in file.name else "humaneval+" for file in files}
    if len(suites) > 1:
        raise SystemExit("the files are of two suites; give those of one")
    of_task: dict[str, list[str]] = {}
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                of_task.setdefault(row["task_id"], []).append(row["solution"])
    supplies = {task_id: itertools.cycle(programs) for task_id, programs in of_task.items()}
    task_ids: list[str] = []
    texts: list[str] = []
    for task_id in itertools.islice(itertools.cycle(of_task), prompts):
        for _ in range(completions):
            mark = f"\n_number = {len(texts)}\n" if distinct else "\n"
            task_ids.append(task_id)
            texts.append(f"```python\n{next(supplies[task_id])}{mark}```")
    return Step(suites.pop(), task_ids, texts)


def score(step: Step, folder: Path, workers: int) -> tuple[list[float | None], measure.Usage]:
    """Grade it as the command line does."""
    output = folder / "verdicts.jsonl"
    used = measure.run(
        [*_GRADER, "score", step.write(folder / "samples.jsonl"), "--suite", step.suite, "--workers",
         str(workers), "--output", output, "--quiet"],
    )  # fmt: skip
    # A row without sample_id is called <task_id>:<n>, the n-th of its task.
    found = {
        row["sample_id"]: row["reward"] for row in map(json.loads, output.read_text("utf-8").splitlines())
    }
    numbers: dict[str, Iterator[int]] = {}
    rewards = [
        found[f"{task_id}:{next(numbers.setdefault(task_id, itertools.count()))}"]
        for task_id in step.task_ids
    ]
    return rewards, used


def through_trl(step: Step, url: str) -> list[float | None]:
    """Reward it as TRL's trainers ask for it."""
    reward = code_reward(url=url, suite=step.suite)

    async def main() -> list[float | None]:
        try:
            return await reward(
                prompts=[""] * len(step.completions),
                completions=step.completions,
                completion_ids=[[]] * len(step.completions),
                task_id=step.task_ids,
            )
        finally:
            await asking.aclose()

    return asyncio.run(main())


def through_verl_batch(step: Step, url: str) -> list[float | None]:
    """Reward it as verl's manager ``batch`` asks for it."""
    sources = [step.suite] * len(step.completions)
    scored = compute_score_batch(sources, step.completions, step.task_ids, None, url=url, suite=step.suite)
    asking.close()
    return [one["score"] for one in scored]


def through_verl_loop(step: Step, url: str) -> list[float | None]:
    """Reward it as verl's reward loop asks for it: each sample by itself, all at the same time."""

    async def main() -> list[dict[str, float]]:
        rows = zip(step.completions, step.task_ids, strict=True)
        try:
            return await asyncio.gather(
                *(compute_score_async("", text, task, None, url=url, suite=step.suite) for text, task in rows)
            )
        finally:
            await asking.aclose()

    return [one["score"] for one in asyncio.run(main())]


@contextmanager
def serving(workers: int, folder: Path) -> Iterator[tuple[str, int]]:
    """Start the service; yields its URL and its process id."""
    log = folder / "service.log"
    command = [*_GRADER, "serve", "--port", "0", "--no-jobs", "--workers", str(workers)]
    with log.open("w") as out:
        service = subprocess.Popen(command, stderr=out, stdout=subprocess.DEVNULL)
    try:
        while True:
            lines = [line for line in log.read_text("utf-8").splitlines() if '"event": "serving"' in line]
            if lines:
                break
            if service.poll() is not None:
                raise SystemExit(f"grader serve did not start:\n{log.read_text('utf-8')}")
            time.sleep(0.1)
        yield json.loads(lines[0])["url"], service.pid
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait()


def _own_cpu_s(pid: int) -> float:
    """CPU seconds of a process."""
    return sum(_times(pid)[:2]) * _TICK_S


def _whole_cpu_s(pid: int) -> float:
    """CPU seconds of a process and of all that it has started, those that have ended among them."""
    total, left = 0.0, [pid]
    while left:
        one = left.pop()
        with suppress(OSError):  # it has ended meanwhile: its parent has its times
            total += sum(_times(one)) * _TICK_S
            for thread in Path(f"/proc/{one}/task").glob("*/children"):
                left += map(int, thread.read_text().split())
    return total


def _times(pid: int) -> list[int]:
    """User and system time of a process, and of the children that it has waited for, in ticks: proc_pid_stat(5)."""
    return [int(field) for field in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--completions", type=int, default=16)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--distinct", action="store_true")
    parser.add_argument("--most-ratio", type=float, help="of wall-clock time; above it the exit code is 1")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the service is ended too
    prompts = max(1, round(args.prompts * args.scale))
    step = make_step(args.files, prompts, args.completions, distinct=args.distinct)
    programs = len(set(zip(step.task_ids, step.completions, strict=True)))
    print(
        f"{prompts} prompts x {args.completions} of {step.suite}, {programs} different; load {os.getloadavg()[0]:.1f}"
    )
    paths: dict[str, Callable[[Step, str], list[float | None]]] = {
        "TRL": through_trl,
        "verl, batch": through_verl_batch,
        "verl, reward loop": through_verl_loop,
    }
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    differing = 0
    with tempfile.TemporaryDirectory() as name, serving(args.workers, Path(name)) as (url, pid):
        folder = Path(name)
        score(step.head(), folder, args.workers)  # makes expected answers that are missing
        through_trl(step.head(), url)
        for number in range(args.repeats):
            expected, base = score(step, folder, args.workers)
            print(f"round {number + 1}: grader score {base.wall_s:.2f} s, CPU {base.cpu_s:.2f} s")
            for path, reward in paths.items():
                rewards, used, own_cpu_s = _measured(reward, step, url, pid)
                ratios[path].append((used.wall_s / base.wall_s, used.cpu_s / base.cpu_s))
                others = sum(mine != theirs for mine, theirs in zip(rewards, expected, strict=True))
                differing += others
                print(
                    f"  {path:18} {used.wall_s:7.2f} s, ratio {used.wall_s / base.wall_s:.3f}; CPU {used.cpu_s:.2f} s,"
                    f" ratio {used.cpu_s / base.cpu_s:.3f}, service's own {own_cpu_s:.2f} s; {others} rewards differ"
                )
    most = _print_ratios(ratios)
    sys.exit(args.most_ratio is not None and (differing > 0 or most > args.most_ratio))


def _print_ratios(ratios: dict[str, list[tuple[float, float]]]) -> float:
    """Print the medians; returns the largest one of wall-clock time."""
    most = 0.0
    for path, found in ratios.items():
        wall, cpu = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"{path:18} median ratio of wall-clock time {wall:.3f}, of CPU time {cpu:.3f}")
        most = max(most, wall)
    return most


def _measured(
    reward: Callable[[Step, str], list[float | None]], step: Step, url: str, pid: int
) -> tuple[list[float | None], measure.Usage, float]:
    """Rewards, what they took here and in the service, and the CPU seconds of the service's own process."""
    own, whole, here, began = _own_cpu_s(pid), _whole_cpu_s(pid), time.process_time(), time.perf_counter()
    rewards = reward(step, url)
    wall_s = time.perf_counter() - began
    cpu_s = time.process_time() - here + _whole_cpu_s(pid) - whole
    return rewards, measure.Usage(wall_s, cpu_s), _own_cpu_s(pid) - own


if __name__ == "__main__":
    main()
