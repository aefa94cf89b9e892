"""SkyRL-gym: an environment of one step, which grades the model's answer.

::

    skyrl_gym.register("grader", entry_point="grader.integrations.skyrl:GraderEnv")

``extras["reward_spec"]["ground_truth"]`` is tests or a task's name, in any shape of ``grader.suites.labels``. Options
are fields of the environment's configuration (``environment.skyrl_gym.grader``).

The traps of the contract, and what is done about them:

- ``step`` is synchronous and runs in a thread a sample: each sample is a request; the service grades them side by side.
- ``init`` is called with a whole prompt, and has to give it back.
- A reward must be a number. Where a sample could not be judged an error is raised, which ends the generation; with
  ``infrastructure_error_score`` it has that score, and the metadata and metrics say ``infrastructure_error``.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from grader.errors import InputError
from grader.integrations.asking import Scored, ask, score_of
from grader.integrations.options import RewardOptions
from grader.integrations.rows import make_row

if TYPE_CHECKING:
    GraderEnv: Any


def __getattr__(name: str) -> Any:
    if name == "GraderEnv":
        return _env_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _env_class() -> type:
    """Make the environment's class, whose base class is SkyRL's. Raises ImportError where that is not installed."""
    from skyrl_gym.envs.base_text_env import BaseTextEnv  # type: ignore[import-not-found]

    class GraderEnv(BaseTextEnv):  # type: ignore[misc]
        """Grades one answer. Raises InputError at once for options and ground truths that cannot be used."""

        def __init__(self, env_config: Any = None, extras: Any = None) -> None:
            super().__init__()
            self._options = RewardOptions.of(dict(env_config or {}))
            spec = (extras or {}).get("reward_spec") or {}
            if spec.get("ground_truth") is None:
                raise InputError("extras.reward_spec.ground_truth: missing; give tests, or a task's name")
            self._ground_truth = spec["ground_truth"]
            self._suite = ((extras or {}).get("extra_info") or {}).get("suite")
            make_row("", self._ground_truth, "extras.reward_spec.ground_truth")
            self._scored: Scored | None = None

        def step(self, action: str) -> dict[str, Any]:
            """Grade the answer; the episode is over then. Raises GraderError as the module says."""
            row = make_row(action, self._ground_truth, "extras.reward_spec.ground_truth", suite=self._suite)
            scored = self._scored = ask([row], self._options)[0]
            return {
                "observations": [],
                "reward": score_of(scored, self._options),
                "done": True,
                "metadata": {
                    "status": scored.status,
                    "infrastructure_error": not scored.judged,
                    "flags": list(scored.flags),
                },
            }

        def get_metrics(self) -> dict[str, float]:
            """Return ``passed``, ``infrastructure_error`` and ``flagged``, each 0 or 1."""
            if self._scored is None:
                return {}
            return {
                "passed": float(bool(self._scored.passed)),
                "infrastructure_error": float(not self._scored.judged),
                "flagged": float(bool(self._scored.flags)),
            }

    return GraderEnv
