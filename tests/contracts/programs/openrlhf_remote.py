"""OpenRLHF's own client of remote rewards: over HTTP, and with our file."""

import asyncio
import importlib.util
import os
import sys
import types

from rows import ADD, LOST, RIGHT, WRONG, answer

# The packages' own __init__ files import what needs a GPU; the client is one module.
FOLDER = importlib.util.find_spec("openrlhf").submodule_search_locations[0]
for name, folder in (("openrlhf", FOLDER), ("openrlhf.utils", f"{FOLDER}/utils")):
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package
from openrlhf.utils.agent import SingleTurnAgentExecutor  # noqa: E402

URL = os.environ["URL"]
PROMPT = "<|im_start|>user\nAdd!\n```python\nprint('not this')\n```<|im_end|>\n<|im_start|>assistant\n"


def query(response):
    return f"<s>{PROMPT}{response}<|im_end|>"


async def over_http(executor, responses):
    return await asyncio.gather(
        *(executor._fetch_rewards_via_http([query(one)], [PROMPT], [ADD]) for one in responses)
    )


async def main():
    http = SingleTurnAgentExecutor(f"{URL}/openrlhf/reward?reward=binary")
    if os.environ.get("ROWS") == "lost":
        found = {}
        file = SingleTurnAgentExecutor(os.environ["FILE"])
        for name, call in (
            ("http", http._fetch_rewards_via_http([query(LOST)], [PROMPT], [ADD])),
            ("file", file._fetch_rewards_via_func([query(LOST)], [PROMPT], [ADD])),
            ("file label", file._fetch_rewards_via_func([query(RIGHT)], [PROMPT], ["{"])),
            ("file query", file._fetch_rewards_via_func(["Other: x"], [PROMPT], [ADD])),
        ):
            try:
                found[name] = ["returned", await call]
            except Exception as error:
                found[name] = [type(error).__name__, str(error)]
        answer(found)
        return
    responses = [RIGHT if n % 3 else WRONG for n in range(48)]
    two = SingleTurnAgentExecutor([f"{URL}/openrlhf/reward", f"{URL}/openrlhf/reward?reward=tiered"])
    file = SingleTurnAgentExecutor(os.environ["FILE"])
    answer({
        "http": [one[0]["rewards"] for one in await over_http(http, responses)],
        "one": (await over_http(http, [RIGHT]))[0][0],
        "two servers": await two._fetch_rewards_via_http([query(RIGHT)] * 3, [PROMPT] * 3, [ADD] * 3),
        "file": await file._fetch_rewards_via_func([query(RIGHT), query(WRONG)], [PROMPT] * 2, [ADD] * 2),
    })  # fmt: skip


asyncio.run(main())
