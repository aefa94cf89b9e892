"""An environment made by SkyRL-gym's own registry."""

import os

import skyrl_gym
from rows import ADD, RIGHT, WRONG, answer

skyrl_gym.register("grader", entry_point="grader.integrations.skyrl:GraderEnv")
PROMPT = [{"role": "user", "content": "Add!"}]


def play(action):
    extras = {"reward_spec": {"method": "rule", "ground_truth": ADD}, "max_turns": 1}
    env = skyrl_gym.make("grader", env_config={"url": os.environ["URL"]}, extras=extras)
    begun = env.init(PROMPT)
    step = env.step(action)
    env.close()
    return [list(begun), step, type(env).aggregate_metrics([env.get_metrics()])]


answer([play(RIGHT), play(WRONG), play("I do not know.")])
