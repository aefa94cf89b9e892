"""Rewards: pure functions of a verdict, composed by a small language. ``docs/rewards.md`` describes them."""

from grader.rewards.feedback import feedback_text
from grader.rewards.groups import GroupFeatures, PassRates, group_features
from grader.rewards.model import Context, Reward, RewardResult
from grader.rewards.spec import FUNCTIONS, parse, spec_of_text
from grader.rewards.tamper import Flag, tamper_flags, with_flags

__all__ = [
    "FUNCTIONS",
    "Context",
    "Flag",
    "GroupFeatures",
    "PassRates",
    "Reward",
    "RewardResult",
    "feedback_text",
    "group_features",
    "parse",
    "spec_of_text",
    "tamper_flags",
    "with_flags",
]
