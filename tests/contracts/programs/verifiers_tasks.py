"""Tasks of verifiers.v1: one with our reward, and verifiers' own task for NeMo-Gym's servers with our URL."""

import asyncio
import os

import verifiers.v1 as vf
from rows import ADD, LOST, RIGHT, WRONG, answer
from verifiers.v1.tasksets.nemo_gym import NeMoGymData, NeMoGymTask, NeMoGymTaskConfig
from verifiers.v1.tasksets.nemo_gym.toolset import NeMoGymState

from grader.integrations.verifiers import grader_task

URL = os.environ["URL"]


class CodeData(vf.TaskData):
    answer: str = ""


class CodeTask(grader_task(url=URL), vf.Task[CodeData, vf.State]):
    pass


def trace_of(task, text, state):
    nodes = [
        vf.MessageNode(message={"role": "user", "content": "Add!"}, parent=None, sampled=False),
        vf.MessageNode(message=vf.AssistantMessage(content=text), parent=0, sampled=True),
    ]
    return vf.Trace(
        task=vf.TraceTask(type=type(task).__name__, data=task.data), agent=vf.AgentInfo(config=vf.AgentConfig()),
        nodes=nodes, state=state,
    )  # fmt: skip


async def scored(task, text, state, setup=False):
    trace = trace_of(task, text, state)
    try:
        if setup:
            await task.setup(trace, None)
        await task.score(trace, None)
    except Exception as error:
        return [type(error).__name__, str(error)]
    return {"reward": trace.reward, "info": trace.info}


async def main():
    code = CodeTask(CodeData(idx=0, prompt="Add!", answer=ADD))
    row = {
        "responses_create_params": {"input": [{"role": "user", "content": "Add!"}]},
        "verifier_metadata": {"unit_tests": {"inputs": ["1\n2", "3\n4"], "outputs": ["3", "7"], "fn_name": "add"}},
        "_ng_task_index": 7,
    }  # fmt: skip
    gym = NeMoGymTask(NeMoGymData(idx=0, prompt="Add!", row=row), NeMoGymTaskConfig(resources_url=URL))
    texts = {"lost": LOST} if os.environ.get("ROWS") == "lost" else {"right": RIGHT, "wrong": WRONG}
    answer({
        "task": {name: await scored(code, text, vf.State()) for name, text in texts.items()},
        "nemo gym": {name: await scored(gym, text, NeMoGymState(), setup=True) for name, text in texts.items()},
    })  # fmt: skip


asyncio.run(main())
