"""Scoring by verifiers' own Rubric (verifiers 0.1), a rollout a call and a group a call."""

import asyncio
import os

import verifiers as vf
from rows import ADD, LOST, RIGHT, WRONG, answer
from verifiers.utils.async_utils import maybe_retry

from grader.integrations.verifiers import grader_group_reward, grader_reward

URL = os.environ["URL"]


def state(text, truth=ADD, info=None):
    return vf.State(
        prompt=[{"role": "user", "content": "Add!"}], completion=[{"role": "assistant", "content": text}],
        answer=truth, info=info or {}, task="default", trajectory=[],
    )  # fmt: skip


def told(states):
    return [
        {"reward": one["reward"], "metrics": one["metrics"], "error": type(one.get("error")).__name__}
        for one in states
    ]


async def main():
    single = vf.Rubric(funcs=[grader_reward(url=URL)], weights=[2.0])
    group = vf.Rubric(funcs=[grader_group_reward(url=URL)])
    if os.environ.get("ROWS") == "lost":
        attempts = []

        async def attempt():
            attempts.append(state(LOST if not attempts else RIGHT))
            await single.score_rollout(attempts[-1])
            return attempts[-1]

        lost = [state(RIGHT), state(LOST)]
        await asyncio.gather(*map(single.score_rollout, lost))
        together = [state(RIGHT), state(LOST)]
        await group.score_group(together)
        broken = [state(RIGHT, truth="{")]
        await single.score_rollout(broken[0])
        final = await maybe_retry(attempt, max_retries=2, initial=0.01, max_wait=0.01)()
        answer({
            "single": told(lost), "group": told(together), "label": told(broken),
            "attempts": len(attempts), "final": told([final]),
        })  # fmt: skip
        return
    states = [state(RIGHT), state(WRONG), state(RIGHT, truth="", info={"tests": ADD})]
    await asyncio.gather(*map(single.score_rollout, states))
    together = [state(RIGHT), state(WRONG)]
    await group.score_group(together)
    answer({"single": told(states), "group": told(together)})


asyncio.run(main())
