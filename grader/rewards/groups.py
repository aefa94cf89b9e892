"""What group-relative training (GRPO and its kin) wants to know of the completions of one prompt.

A group whose members all pass, or all fail, has no advantage to learn from: a trainer leaves it out, or a curriculum
chooses tasks whose pass rate lies between.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class GroupFeatures:
    """One group. ``size`` counts its members, ``judged`` those that could be judged; ``pass_rate`` is over these,
    None where there are none. ``all_pass`` and ``all_fail`` speak of the judged members."""

    size: int
    judged: int
    passed: int

    @property
    def pass_rate(self) -> float | None:
        """The share of the judged members that passed."""
        return self.passed / self.judged if self.judged else None

    @property
    def all_pass(self) -> bool:
        """Whether every judged member passed."""
        return 0 < self.judged == self.passed

    @property
    def all_fail(self) -> bool:
        """Whether no judged member passed."""
        return self.judged > 0 == self.passed


def group_features(keys: Sequence[Key], passed: Sequence[bool | None]) -> dict[Key, GroupFeatures]:
    """Return the features of each group, in the order in which groups begin.

    ``keys`` says, a member, which group it is of: a task id, or the index of a prompt; ``passed`` is None for a member
    that could not be judged. Raises ValueError where their lengths differ.
    """
    found: dict[Key, list[int]] = {}
    for key, one in zip(keys, passed, strict=True):
        counts = found.setdefault(key, [0, 0, 0])
        counts[0] += 1
        counts[1] += one is not None
        counts[2] += bool(one)
    return {key: GroupFeatures(*counts) for key, counts in found.items()}


class PassRates:
    """Pass rates a task over time: exponential means, of the tasks seen last.

    The mean after a group of ``n`` judged members, of which a share ``r`` passed, is
    ``m + (1 - (1 - weight)**n) * (r - m)``: what ``n`` updates by single members would make of it, had each of them
    passed with the share. The first group is the mean as it is. Safe to use from several threads.
    """

    def __init__(self, weight: float = 0.05, capacity: int = 100_000) -> None:
        if not 0.0 < weight <= 1.0 or capacity < 1:
            raise ValueError(
                f"weight is {weight} and capacity {capacity}; give 0 < weight <= 1 and capacity >= 1"
            )
        self._weight, self._capacity = weight, capacity
        self._means: OrderedDict[Hashable, float] = OrderedDict()
        self._lock = threading.Lock()

    def update(self, task: Hashable, group: GroupFeatures) -> float | None:
        """Take a group in; returns the task's mean, None where nothing of it was ever judged."""
        with self._lock:
            mean, rate = self._means.pop(task, None), group.pass_rate
            if rate is not None:
                share = 1.0 - (1.0 - self._weight) ** group.judged
                mean = rate if mean is None else mean + share * (rate - mean)
            if mean is not None:
                self._means[task] = mean
                if len(self._means) > self._capacity:
                    self._means.popitem(last=False)
            return mean

    def rate(self, task: Hashable) -> float | None:
        """Return the task's mean; None where it is not known."""
        with self._lock:
            return self._means.get(task)

    def __len__(self) -> int:
        return len(self._means)
