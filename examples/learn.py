"""A small model learns to write programs from nothing but rewards: GRPO in plain PyTorch, rewarded over HTTP.

    pip install '.[client,server]' torch --extra-index-url https://download.pytorch.org/whl/cpu
    python examples/learn.py --steps 100

It starts a service of its own, unless --url or GRADER_URL names one. What the model writes is the starter suite's
programs, of which it is given all but some operators, comparisons and small numbers: those it has to choose, one
after the other. It begins with random numbers as its weights and sees neither tests nor right programs; what it
gets is the reward of each program that it has written. docs/examples.md says more.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tokenize
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from grader.client import GraderClient
from grader.suites import registry

KINDS = (("+", "-", "*", "//", "%"), ("<", "<=", ">", ">=", "==", "!="), ("0", "1", "2", "3"))
VOCABULARY = [token for kind in KINDS for token in kind]
MOST_HOLES = 5

# Half for passing, half for the share of tests passed: at first nearly nothing passes.
REWARD = {"sum": ["binary", {"name": "fraction", "min_tests": 1}], "weights": [0.5, 0.5]}
# Programs with a wrong operator often never end, and right ones need a millisecond.
LIMITS = {"time_floor_s": 0.1, "memory_bytes": 256 << 20}

GROUP = 32
LEARNING_RATE = 0.003
PASSES = 2
CLIP = 0.2
ENTROPY_WEIGHT = 0.1


@dataclass(frozen=True)
class Sketch:
    """A program with holes: ``parts`` are the texts around them, ``kinds`` say which tokens each of them takes."""

    task_id: str
    parts: list[str]
    kinds: list[int]

    def filled(self, tokens: Sequence[int]) -> str:
        """Return what a model would answer: the program with the tokens in its holes, in a fence."""
        chosen = [VOCABULARY[token] for token in tokens[: len(self.kinds)]]
        program = "".join(part + token for part, token in zip(self.parts, [*chosen, ""], strict=True))
        return f"```python\n{program}\n```"


def sketch_of(task_id: str, program: str) -> Sketch:
    """Take tokens out of a program: up to MOST_HOLES of those after its docstring, spread evenly."""
    lines = program.splitlines(keepends=True)
    begins = [0]
    for line in lines:
        begins.append(begins[-1] + len(line))
    found, in_body = [], False
    for token in tokenize.generate_tokens(io.StringIO(program).readline):
        in_body = in_body or (token.type == tokenize.STRING and token.string.startswith('"""'))
        kind = next((number for number, kind in enumerate(KINDS) if token.string in kind), None)
        if in_body and kind is not None:
            start = begins[token.start[0] - 1] + token.start[1]
            found.append((start, start + len(token.string), kind))
    holes = [found[number * len(found) // MOST_HOLES] for number in range(MOST_HOLES)] if found else []
    holes = sorted(set(holes))
    edges = [0, *(edge for start, end, _ in holes for edge in (start, end)), len(program)]
    parts = [program[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return Sketch(task_id, parts, [kind for _, _, kind in holes])


class Policy(nn.Module):
    """A recurrent network that chooses a token for each hole, having read the task's number and its own choices."""

    def __init__(self, sketches: Sequence[Sketch], width: int = 64) -> None:
        super().__init__()
        self.tasks = nn.Embedding(len(sketches), width)
        self.tokens = nn.Embedding(len(VOCABULARY) + 1, width)
        self.cell = nn.GRUCell(width, width)
        self.head = nn.Linear(width, len(VOCABULARY))
        # [task, hole, token]: whether the hole takes the token; past the last hole only token 0 is, which says nothing.
        allowed = torch.zeros(len(sketches), MOST_HOLES, len(VOCABULARY), dtype=torch.bool)
        for number, sketch in enumerate(sketches):
            for hole in range(MOST_HOLES):
                kind = KINDS[sketch.kinds[hole]] if hole < len(sketch.kinds) else VOCABULARY[:1]
                allowed[number, hole, [VOCABULARY.index(token) for token in kind]] = True
        self.register_buffer("allowed", allowed)

    def forward(self, tasks: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Choose tokens, or take those ``chosen``; returns them, their log-probabilities, entropies [rows, holes]."""
        state = torch.tanh(self.tasks(tasks))
        before = torch.full_like(tasks, len(VOCABULARY))
        tokens, log_probabilities, entropies = [], [], []
        for hole in range(MOST_HOLES):
            state = self.cell(self.tokens(before), state)
            logits = self.head(state).masked_fill(~self.allowed[tasks, hole], -1e9)
            choice = torch.distributions.Categorical(logits=logits)
            before = choice.sample() if chosen is None else chosen[:, hole]
            tokens.append(before)
            log_probabilities.append(choice.log_prob(before))
            entropies.append(choice.entropy())
        return torch.stack(tokens, 1), torch.stack(log_probabilities, 1), torch.stack(entropies, 1)


def advantages_of(rewards: Sequence[float | None]) -> Tensor:
    """GRPO's advantages: each reward against its group's mean, in its group's standard deviations.

    DeepSeekMath, arXiv:2402.03300, section 4.1. A program that could not be judged, whose reward is None, counts
    neither in its group's mean nor in the loss.
    """
    groups = torch.tensor([torch.nan if reward is None else reward for reward in rewards]).view(-1, GROUP)
    centred = groups - groups.nanmean(1, keepdim=True)
    deviations = centred.square().nanmean(1, keepdim=True).sqrt()
    return (centred / (deviations + 1e-4)).nan_to_num(0.0).flatten()


def improve(policy: Policy, optimizer: torch.optim.Optimizer, tasks: Tensor, tokens: Tensor, old: Tensor,
            advantages: Tensor) -> None:  # fmt: skip
    """Make what was better than its group likelier, by PPO's clipped objective."""
    for _ in range(PASSES):
        _, new, entropies = policy(tasks, tokens)
        ratios = (new - old).exp()
        gains = advantages[:, None]
        objective = torch.minimum(ratios * gains, ratios.clamp(1 - CLIP, 1 + CLIP) * gains)
        loss = -(objective + ENTROPY_WEIGHT * entropies).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train(client: GraderClient, sketches: Sequence[Sketch], steps: int) -> Iterator[dict[str, float]]:
    """Train a policy; yields of each step the mean reward, the pass rate, and the seconds that grading took."""
    policy = Policy(sketches)
    optimizer = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE)
    tasks = torch.arange(len(sketches)).repeat_interleave(GROUP)
    for step in range(1, steps + 1):
        with torch.no_grad():
            tokens, old, _ = policy(tasks)
        began = time.monotonic()
        answer = client.rewards(
            suite="starter",
            task_ids=[sketches[task].task_id for task in tasks.tolist()],
            completions=[
                sketches[task].filled(row) for task, row in zip(tasks.tolist(), tokens.tolist(), strict=True)
            ],
            reward=REWARD,
            limits=LIMITS,
        )
        grading_s = time.monotonic() - began
        improve(policy, optimizer, tasks, tokens, old, advantages_of(answer.rewards))
        judged = [reward for reward in answer.rewards if reward is not None]
        passed = [parts["binary"] for parts in answer.components if parts["binary"] is not None]
        yield {
            "step": step,
            "reward": sum(judged) / max(1, len(judged)),
            "pass_rate": sum(passed) / max(1, len(passed)),
            "not_judged": len(answer.rewards) - len(judged),
            "grading_s": grading_s,
        }


@contextmanager
def serving() -> Iterator[str]:
    """Start a service for as long as it is needed; yields its URL."""
    with tempfile.NamedTemporaryFile("w+") as log:
        command = [sys.executable, "-c", "from grader.cli import main; main()"]
        service = subprocess.Popen([*command, "serve", "--port", "0", "--no-jobs"], stderr=log)
        try:
            while True:
                events = [json.loads(line) for line in Path(log.name).read_text("utf-8").splitlines(keepends=True)
                          if line.startswith("{") and line.endswith("\n")]  # fmt: skip
                url = next((event["url"] for event in events if event["event"] == "serving"), None)
                if url is not None:
                    break
                if service.poll() is not None:
                    raise SystemExit(f"grader serve did not start:\n{Path(log.name).read_text('utf-8')}")
                time.sleep(0.1)
            yield url
        finally:
            service.terminate()
            service.wait()


def svg(history: Sequence[dict[str, float]]) -> str:
    """Draw the pass rate and the mean reward of each step."""
    width, height, left, top = 640, 320, 50, 30
    right, bottom = width - 20, height - 40
    last = max(2, len(history))

    def line(name: str, colour: str) -> str:
        points = " ".join(
            f"{left + (right - left) * number / (last - 1):.1f},{bottom - (bottom - top) * row[name]:.1f}"
            for number, row in enumerate(history)
        )
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'

    grid = "".join(
        f'<line x1="{left}" x2="{right}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>'
        f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{share:.0%}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
        for y in [bottom - (bottom - top) * share]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>{grid}'
        f"{line('reward', '#d80')}{line('pass_rate', '#06c')}"
        f'<text x="{left}" y="{top - 12}" fill="#06c">pass rate</text>'
        f'<text x="{left + 70}" y="{top - 12}" fill="#d80">mean reward</text>'
        f'<text x="{left}" y="{bottom + 20}">step 1</text>'
        f'<text x="{right}" y="{bottom + 20}" text-anchor="end">step {len(history)}</text></svg>\n'
    )


def main() -> None:
    """Train, print each step, and write learn.csv and learn.svg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--tasks", type=int, default=0, help="only so many of the suite's tasks; 0, the default: all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--url", default=os.environ.get("GRADER_URL"), help="a service that is already running"
    )
    parser.add_argument("--output", type=Path, default=Path(), help="the folder for learn.csv and learn.svg")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the service is ended too
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # the network is small, and the programs need the processors
    tasks = list(registry.load("starter").tasks.values())[: options.tasks or None]
    sketches = [sketch_of(task.task_id, task.reference) for task in tasks]
    history = []
    with serving() if options.url is None else _already(options.url) as url, GraderClient(url) as client:
        for row in train(client, sketches, options.steps):
            history.append(row)
            print(
                "step {step:4d}  reward {reward:.3f}  pass rate {pass_rate:.3f}  {grading_s:.2f} s".format(
                    **row
                )
            )
    with (options.output / "learn.csv").open("w", newline="") as file:
        writer = csv.DictWriter(
            file, fieldnames=["step", "reward", "pass_rate", "not_judged"], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows({name: round(value, 4) for name, value in row.items()} for row in history)
    (options.output / "learn.svg").write_text(svg(history), "utf-8")


@contextmanager
def _already(url: str) -> Iterator[str]:
    yield url


if __name__ == "__main__":
    main()
