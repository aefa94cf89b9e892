"""A few steps of TRL's own ``GRPOTrainer`` with the reward function for it.

GRADER_URL names the service, STEPS how many steps, FOLDER where TRL may write.
The model is a tiny, randomly initialised Llama. Its tokens are fragments of programs, of which it writes two after
the head of a function: by chance it is right often enough for rewards to differ. Beside the service's reward there
is another one that finds the same out by itself, so that the two can be compared in what TRL logs: a JSON array
on standard output, with an object a step.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from grader.integrations.trl import code_reward

PROMPT = "def f(x):\n"
FRAGMENTS = ["    return x+1", "    return x+2", "    return x", "+1", "-1", "+0", "*1", "*x"]
SPECIAL = ["<pad>", "<eos>", "<unk>"]
INPUTS = [0, 1, 5, -3]


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, PROMPT, *FRAGMENTS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    longest_first = sorted([PROMPT, *FRAGMENTS], key=len, reverse=True)
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


def model(tokens: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=64, bos_token_id=None,
            pad_token_id=tokens.pad_token_id, eos_token_id=tokens.eos_token_id,
        )
    )  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Two tasks, as tests in JSON text, and one row that the reward is not meant for."""
    made: list[dict[str, Any]] = [{"prompt": PROMPT, "tests": None, "add": None}]
    for add in (1, 2, 3):
        tests = {"kind": "function", "entry_point": "f", "inputs": [[x] for x in INPUTS],
                 "expected": [x + add for x in INPUTS]}  # fmt: skip
        made.append({"prompt": PROMPT, "tests": json.dumps(tests), "add": add})
    return made


def found_out_here(completions: list[str], add: list[int | None], **_: Any) -> list[float | None]:
    """The same reward, by running the programs in this process: there are less than a hundred of them."""
    return [
        None if n is None else float(_is_right(text, n)) for text, n in zip(completions, add, strict=True)
    ]


def _is_right(text: str, add: int) -> bool:
    names: dict[str, Any] = {}
    try:
        exec(text if text.startswith(PROMPT) else PROMPT + text, names)
    except SyntaxError:
        return False
    return [names["f"](x) for x in INPUTS] == [x + add for x in INPUTS]


def main() -> None:
    tokens = tokenizer()
    trainer = GRPOTrainer(
        model=model(tokens),
        processing_class=tokens,
        reward_funcs=[code_reward(column="tests"), found_out_here],
        train_dataset=Dataset.from_list(rows()),
        args=GRPOConfig(
            output_dir=os.environ["FOLDER"], max_steps=int(os.environ["STEPS"]),
            per_device_train_batch_size=64, num_generations=16,
            max_completion_length=2, learning_rate=0.01, beta=0.0, logging_steps=1, save_strategy="no",
            report_to="none", disable_tqdm=True, use_cpu=True, bf16=False, seed=3,
        ),
    )  # fmt: skip
    trainer.train()
    print(json.dumps([entry for entry in trainer.state.log_history if "reward" in entry]))


if __name__ == "__main__":
    main()
