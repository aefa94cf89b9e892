"""AReaL's own wrapper of reward functions: a pool of processes, time-outs and retries."""

import asyncio
import importlib.util
import sys
import types

from rows import ADD, LOST, RIGHT, WRONG, answer

# The package's own __init__ files import what needs a GPU; the wrapper is one module.
FOLDER = importlib.util.find_spec("areal").submodule_search_locations[0]
for name, folder in (("areal", FOLDER), ("areal.api", f"{FOLDER}/api")):
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package
from areal.api.reward_api import AsyncRewardWrapper  # noqa: E402

from grader.integrations.areal import reward_fn  # noqa: E402


async def main():
    wrapper = AsyncRewardWrapper(reward_fn, timeout_seconds=60, max_workers=2)

    async def score(text, **row):
        try:
            return await wrapper("Add!", text, [1], [2], **row)
        except Exception as error:
            return [type(error).__name__, str(error)]

    answer(await asyncio.gather(
        score(RIGHT, ground_truth=ADD), score(WRONG, answer=ADD), score(LOST, tests=ADD), score(RIGHT, other=1),
        score(RIGHT, ground_truth={"inputs": [1]}),
    ))  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())
