"""verl's own reward managers with our functions, configured and loaded as its trainer does."""

import asyncio
import functools
import os

import numpy as np
import torch
from omegaconf import OmegaConf
from rows import ADD, ASSERTED, ECHO, ECHOES, EXIT, LOST, RIGHT, WRONG, answer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import NaiveRewardManager as LoopNaive
from verl.experimental.reward_loop.reward_manager import RateLimitedRewardManager
from verl.trainer.ppo.reward import get_custom_reward_fn, load_reward_manager
from verl.workers.reward_manager import BatchRewardManager, NaiveRewardManager, PrimeRewardManager

URL = os.environ["URL"]
ROWS = [(RIGHT, ADD), (WRONG, ADD), (ECHOES, ECHO), (RIGHT, ASSERTED), (EXIT, ASSERTED)]


def tokenizer():
    """A byte-level tokenizer without merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={one: n for n, one in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="Ā")


TOKENIZER = tokenizer()


def batch(rows):
    ids = [TOKENIZER(text, add_special_tokens=False)["input_ids"] for text, _ in rows]
    width = max(map(len, ids))
    responses = torch.tensor([one + [0] * (width - len(one)) for one in ids])
    prompts = torch.tensor([TOKENIZER("Add!")["input_ids"]] * len(rows))
    mask = torch.tensor([[1] * prompts.shape[1] + [1] * len(one) + [0] * (width - len(one)) for one in ids])
    truths = np.array([{"ground_truth": truth} for _, truth in rows], dtype=object)
    return DataProto.from_dict(
        {"prompts": prompts, "responses": responses, "attention_mask": mask},
        non_tensors={
            "data_source": np.array(["taco"] * len(rows), dtype=object),
            "reward_model": truths,
            "extra_info": np.array([{"index": n} for n in range(len(rows))], dtype=object),
        },
    )


def config(name, **reward_kwargs):
    function = {
        "path": "pkg://grader.integrations.verl",
        "name": name,
        "reward_kwargs": {"url": URL, **reward_kwargs},
    }
    return OmegaConf.create({"reward": {
        "custom_reward_function": function, "reward_kwargs": reward_kwargs,
        "reward_manager": {"source": "register", "name": "naive"}, "num_workers": 1,
    }})  # fmt: skip


def function(name, **reward_kwargs):
    return get_custom_reward_fn(config(name, **reward_kwargs))


def legacy(manager, rows):
    found = manager(batch(rows), return_dict=True)
    extra = {name: list(map(float, values)) for name, values in found.get("reward_extra_info", {}).items()}
    return {"rewards": found["reward_tensor"].sum(-1).tolist(), "extra": extra}


async def singles(manager, rows):
    data = batch(rows)
    found = await asyncio.gather(*(manager.run_single(data[n : n + 1]) for n in range(len(rows))))
    return [{"reward": one["reward_score"], "extra": one["reward_extra_info"]} for one in found]


def in_loop(manager_class, settings, rows, compute_score):
    async def run():
        made = manager_class(config=settings, tokenizer=TOKENIZER, compute_score=compute_score)
        return await singles(made, rows)

    return asyncio.run(run())


def own_manager(rows, **options):
    settings = config("compute_score", **options)
    settings.reward.reward_kwargs = {"url": URL, **options}
    settings.reward.custom_reward_function.path = None
    settings.reward.reward_manager = {
        "source": "importlib", "name": "GraderRewardManager", "module": {"path": "pkg://grader.integrations.verl"},
    }  # fmt: skip

    async def run():
        return await singles(load_reward_manager(settings, TOKENIZER), rows)

    return asyncio.run(run())


def raised(call):
    try:
        return ["returned", call()]
    except Exception as error:
        return [type(error).__name__, str(error)]


def main():
    if os.environ.get("ROWS") == "lost":
        rows = [(RIGHT, ADD), (LOST, ADD)]
        limited = function("compute_score_async", infrastructure_error_score=-0.5)
        answer({
            "naive": raised(lambda: legacy(NaiveRewardManager(TOKENIZER, 0, function("compute_score")), rows)),
            "batch": raised(lambda: legacy(BatchRewardManager(TOKENIZER, 0, function("compute_score_batch")), rows)),
            "batch scored": legacy(
                BatchRewardManager(
                    TOKENIZER, 0, function("compute_score_batch", infrastructure_error_score=-0.5)
                ), rows),
            "prime": legacy(PrimeRewardManager(TOKENIZER, 0, function("compute_score_prime")), rows),
            "prime label": legacy(PrimeRewardManager(TOKENIZER, 0, function("compute_score_prime")), [(RIGHT, "{")]),
            "prime scored": legacy(
                PrimeRewardManager(
                    TOKENIZER, 0, function("compute_score_prime", infrastructure_error_score=-0.5)
                ), rows),
            "limited": in_loop(RateLimitedRewardManager, config("compute_score_async"), rows, limited),
            "own": raised(lambda: own_manager(rows)),
        })  # fmt: skip
        return
    batched = functools.partial(function("compute_score_batch"))
    answer({
        "naive": legacy(NaiveRewardManager(TOKENIZER, 0, function("compute_score")), ROWS),
        "batch": legacy(BatchRewardManager(TOKENIZER, 0, batched), ROWS),
        "prime": legacy(PrimeRewardManager(TOKENIZER, 0, function("compute_score_prime")), ROWS),
        "loop": in_loop(LoopNaive, config("compute_score_async"), ROWS, function("compute_score_async")),
        "loop sync": in_loop(LoopNaive, config("compute_score"), ROWS, function("compute_score")),
        "own": own_manager(ROWS, components=["tiered", "tiered.base"], reward="tiered"),
        "task": legacy(
            BatchRewardManager(TOKENIZER, 0, function("compute_score_batch", suite="starter")),
            [(os.environ["REFERENCE"], os.environ["TASK"]), (WRONG, os.environ["TASK"])],
        ),
    })  # fmt: skip


if __name__ == "__main__":
    main()
