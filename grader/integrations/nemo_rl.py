"""NeMo-RL: an environment that grades a batch in one request.

::

    env = ray.remote(max_restarts=-1, max_task_retries=-1)(grader_environment()).remote({"suite": "humaneval+"})

``metadata[i]["ground_truth"]`` is tests or a task's name, in any shape of ``grader.suites.labels``. The configuration
has the options of ``RewardOptions``.

The traps of the contract, and what is done about them:

- Rewards and ends are tensors on the CPU, the ends of floats; all lists have one entry a sample.
- A message log holds the tokens beside the text, and may have several turns: what the assistant said last counts.
- Samples that were cut off are scored 0 in ``global_post_process_and_metrics``, as NeMo-RL's own environments do.
- A reward must be a number. Where a sample could not be judged an error is raised; with ``infrastructure_error_score``
  it has that score. Observations do not tell the model that the grader failed it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from grader.errors import InputError
from grader.integrations.asking import ask, scores_of
from grader.integrations.options import RewardOptions
from grader.integrations.rows import Row, check_lengths, make_row


@functools.cache
def grader_environment() -> type:
    """Return the environment's class, to be made a Ray actor of. Raises ImportError where NeMo-RL is not installed."""
    import torch  # type: ignore[import-not-found,unused-ignore]
    from nemo_rl.environments.interfaces import (  # type: ignore[import-not-found]
        EnvironmentInterface,
        EnvironmentReturn,
    )

    class GraderEnvironment(EnvironmentInterface):  # type: ignore[misc]
        """Grades what the assistant said last. Raises InputError for options that cannot be used."""

        def __init__(self, cfg: Mapping[str, Any] | None = None) -> None:
            self._options = RewardOptions.of(dict(cfg or {}))

        def shutdown(self) -> None:
            """Do nothing: there is nothing to be shut down."""

        def step(
            self, message_log_batch: Sequence[Sequence[Mapping[str, Any]]], metadata: Sequence[Any]
        ) -> Any:
            """Grade a batch. Raises GraderError as the module says."""
            check_lengths(message_log_batch=message_log_batch, metadata=metadata)
            rows = [
                _row(log, given, number)
                for number, (log, given) in enumerate(zip(message_log_batch, metadata, strict=True))
            ]
            found = ask(rows, self._options)
            rewards = torch.tensor(scores_of(found, self._options), dtype=torch.float32)
            return EnvironmentReturn(
                observations=[
                    {"role": "environment", "content": f"Environment: {one.status.replace('_', ' ')}"}
                    if one.judged
                    else {"role": "environment", "content": "Environment: not judged"}
                    for one in found
                ],
                metadata=list(metadata),
                next_stop_strings=[None] * len(found),
                rewards=rewards,
                terminateds=torch.ones_like(rewards),
                answers=None,
            )

        def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
            """Score samples that were cut off 0, and return ``accuracy`` and the share that ended properly."""
            batch["rewards"] = batch["rewards"] * batch["is_end"]
            return batch, {
                "accuracy": (batch["rewards"] == 1).float().mean().item(),
                "mean_reward": batch["rewards"].float().mean().item(),
                "fraction_of_samples_properly_ended": batch["is_end"].float().mean().item(),
                "num_problems_in_batch": batch["is_end"].shape[0],
            }

    return GraderEnvironment


def _row(log: Sequence[Mapping[str, Any]], metadata: Any, number: int) -> Row:
    place = f"metadata[{number}].ground_truth"
    if not isinstance(metadata, Mapping) or metadata.get("ground_truth") is None:
        raise InputError(f"{place}: missing; give tests, or a task's name")
    said = [message["content"] for message in log if message.get("role") == "assistant"]
    if not said or not isinstance(said[-1], str):
        raise InputError(f"message_log_batch[{number}]: the assistant has said nothing in it")
    return make_row(said[-1], metadata["ground_truth"], place, suite=metadata.get("suite"))
