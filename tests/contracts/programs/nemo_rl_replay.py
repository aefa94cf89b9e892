"""A step of NeMo-RL's: its two types as its interfaces.py has them (there is no release with them to install)."""

import abc
import os
import sys
import types
from typing import NamedTuple

import torch
from rows import ADD, LOST, RIGHT, WRONG, answer


class EnvironmentReturn(NamedTuple):
    observations: list
    metadata: list
    next_stop_strings: list
    rewards: torch.Tensor
    terminateds: torch.Tensor
    answers: list | None = None


class EnvironmentInterface(abc.ABC):
    @abc.abstractmethod
    def step(self, message_log_batch, metadata): ...

    @abc.abstractmethod
    def global_post_process_and_metrics(self, batch): ...


for name in ("nemo_rl", "nemo_rl.environments", "nemo_rl.environments.interfaces"):
    sys.modules[name] = types.ModuleType(name)
sys.modules[name].EnvironmentInterface = EnvironmentInterface
sys.modules[name].EnvironmentReturn = EnvironmentReturn
from grader.integrations.nemo_rl import grader_environment  # noqa: E402


def log(text):
    return [
        {"role": "user", "content": "Add!", "token_ids": torch.tensor([1])},
        {"role": "assistant", "content": text, "token_ids": torch.tensor([2])},
    ]


def step(texts, **options):
    env = grader_environment()({"url": os.environ["URL"], **options})
    try:
        found = env.step([log(text) for text in texts], [{"ground_truth": ADD}] * len(texts))
    except Exception as error:
        return [type(error).__name__, str(error)]
    batch = {"rewards": found.rewards, "is_end": torch.tensor([1.0] * (len(texts) - 1) + [0.0])}
    return {
        "observations": found.observations, "rewards": found.rewards.tolist(), "answers": found.answers,
        "terminateds": found.terminateds.tolist(), "stops": found.next_stop_strings,
        "metrics": env.global_post_process_and_metrics(batch)[1],
    }  # fmt: skip


answer({"step": step([RIGHT, WRONG, RIGHT]), "lost": step([RIGHT, LOST]),
        "scored": step([RIGHT, LOST], infrastructure_error_score=-1)})  # fmt: skip
