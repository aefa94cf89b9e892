"""Taking prompts off texts that have prompt and completion in one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.extraction.after_prompt import completion_after, has_special_tokens

CHAT = "<|im_start|>user\nAdd two numbers!<|im_end|>\n<|im_start|>assistant\n"
LLAMA = "<|begin_of_text|>"
TEXTS = st.text(st.sampled_from("ab <|>_\n/s"), max_size=60)


@pytest.mark.parametrize(
    ("query", "prompt", "expected"),
    [
        (f"{CHAT}def f(): pass<|im_end|>", CHAT, "def f(): pass"),
        (f"{CHAT}def f(): pass<|im_end|>\n<|endoftext|>", CHAT, "def f(): pass"),
        (f"{LLAMA}{CHAT}code", CHAT, "code"),
        (f"<s> {CHAT}code</s>", CHAT, "code"),
        (f"{CHAT}    return 1\n", CHAT, "    return 1\n"),
        ("Add two numbers !code", "Add two  numbers!", "code"),  # spaces that a tokenizer changed
        (f"{CHAT[20:]}code", CHAT, "code"),  # a prompt that was cut at its beginning
        ("print(1)", "", "print(1)"),
        (CHAT, CHAT, ""),
        ("something else", CHAT, None),
        ("", CHAT, None),
        ("assistant\ncode", CHAT, None),  # too little of the prompt to be sure
    ],
)
def test_completions(query, prompt, expected):
    assert completion_after(query, prompt) == expected


@given(TEXTS, st.text(st.sampled_from("xyz\n "), max_size=40))
def test_a_prompt_as_it_was_given_is_taken_off(prompt, completion):
    assert completion_after(prompt + completion, prompt) == completion


@given(TEXTS, TEXTS)
def test_any_two_texts(query, prompt):
    found = completion_after(query, prompt)
    assert found is None or found in query


def test_long_texts_without_end():
    assert completion_after("a" * 200_000 + "b", "a" * 300_000) == "b"
    assert completion_after("<|" * 100_000, "|>" * 100_000) is None


def test_special_tokens():
    assert has_special_tokens(CHAT)
    assert not has_special_tokens("if a <b and c|d: pass")
