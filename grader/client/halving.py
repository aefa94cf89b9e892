"""A request for rewards in two: what a server takes less of than the client thought is asked for in halves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from grader.client.models import RewardsResult

_LISTS_OF_ROWS = ("completions", "task_ids", "tests", "prompts", "reference_cpu_s", "group_ids")


def halved(fields: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the fields of ``POST /v1/rewards`` for the first half of the rows and for the rest.

    None where that cannot be: for a single row, for lists of different lengths, and where the answer describes groups,
    whose rows may be in both halves.
    """
    lists = {name: fields[name] for name in _LISTS_OF_ROWS if fields.get(name) is not None}
    lengths = {len(rows) if isinstance(rows, list | tuple) else 0 for rows in lists.values()}
    if len(lengths) != 1 or fields.get("include_group_features"):
        return None
    count = lengths.pop()
    if count < 2:
        return None
    middle = count // 2
    return [
        {**fields, **{name: rows[part] for name, rows in lists.items()}}
        for part in (slice(middle), slice(middle, None))
    ]


def half_key(key: str, number: int) -> str:
    """Return the idempotency key of a half: the same each time that the whole is asked for with its own."""
    return hashlib.sha256(f"{key} {number}".encode()).hexdigest()[:32]


def joined(parts: Sequence[RewardsResult]) -> RewardsResult:
    """Return the answers to the halves as the one to the whole; ``row`` in ``unjudged`` is that of the whole."""
    unjudged: list[dict[str, Any]] = []
    begin = 0
    for part in parts:
        unjudged += [{**entry, "row": entry["row"] + begin} for entry in part.unjudged]
        begin += len(part.rewards)
    return RewardsResult(
        rewards=[reward for part in parts for reward in part.rewards],
        components=[one for part in parts for one in part.components],
        flags=[one for part in parts for one in part.flags],
        unjudged=unjudged,
        verdicts=_joined_lists([part.verdicts for part in parts]),
        feedback=_joined_lists([part.feedback for part in parts]),
    )


def _joined_lists(lists: Sequence[list[Any] | None]) -> list[Any] | None:
    found = [one for one in lists if one is not None]
    return [item for one in found for item in one] if len(found) == len(lists) else None
