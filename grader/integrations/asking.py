"""Asking the service: rows in, scores out, with one request a batch; concurrent single rows are made a batch."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from grader.client import AsyncGraderClient, GraderClient, RetryPolicy, RewardsResult, ServerFailed, Timeouts
from grader.dispatch.gathering import Gatherer
from grader.errors import InfrastructureError
from grader.integrations.options import RewardOptions
from grader.integrations.rows import Piece, Row, pieces_of

_log = logging.getLogger("grader.integrations")
_SHARE_OF_GRADING = 0.75


class NotJudgedError(InfrastructureError):
    """Samples could not be judged: nothing is known of them, so they have no score, and certainly not 0."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of one row. ``reward`` and ``passed`` are None where it could not be judged; ``why`` says why."""

    reward: float | None = None
    passed: bool | None = None
    status: str = "infrastructure_error"
    components: Mapping[str, float | None] = field(default_factory=dict)
    flags: Sequence[str] = ()
    why: str = ""

    @property
    def judged(self) -> bool:
        """Whether it has a reward."""
        return self.reward is not None


def ask(rows: Sequence[Row], options: RewardOptions) -> list[Scored]:
    """Have rows graded; returns what came of each, in their order. No rows, no request.

    Raises InputError for what the service refuses. Where the service cannot be reached, or fails, all rows are
    not judged, if the options say what they score then; otherwise InfrastructureError is raised.
    """
    found: list[Scored] = [Scored()] * len(rows)
    for piece in pieces_of(rows, options):
        try:
            answer = _client(options).rewards(**_timed(piece.fields, options))
            _take(found, piece, answer)
        except InfrastructureError as error:
            _not_judged(error, options)
    return found


async def ask_async(rows: Sequence[Row], options: RewardOptions) -> list[Scored]:
    """Do as :func:`ask` does, without blocking the event loop."""
    found: list[Scored] = [Scored()] * len(rows)
    pieces = await asyncio.to_thread(lambda: list(pieces_of(rows, options))) if len(rows) > 256 else None
    for piece in pieces if pieces is not None else pieces_of(rows, options):
        try:
            answer = await _of_loop().client(options).rewards(**_timed(piece.fields, options))
            _take(found, piece, answer)
        except InfrastructureError as error:
            _not_judged(error, options)
    return found


async def ask_one(row: Row, options: RewardOptions) -> Scored:
    """Have one row graded, in one request with others that are asked for within the next few milliseconds."""
    return await _of_loop().gatherer.submit(options.key, (row, options))


async def aclose() -> None:
    """Close the connections of the running event loop. Only needed by programs that go on after their training."""
    held = _of_process.loops.pop(asyncio.get_running_loop(), None)
    for client in held.clients.values() if held else ():
        await client.aclose()


def close() -> None:
    """Close the connections that synchronous adapters have made in this process."""
    with _of_process.lock:
        for client in _of_process.clients.values():
            client.close()
        _of_process.clients.clear()


def score_of(scored: Scored, options: RewardOptions) -> float:
    """Return the score of a row. Raises NotJudgedError for one without, if the options do not say what it scores."""
    if scored.reward is not None:
        return float(scored.reward)
    if options.infrastructure_error_score is None:
        raise NotJudgedError(
            f"a sample could not be judged: {scored.why or 'the grader did not answer'}. Give "
            "infrastructure_error_score= to have such samples scored"
        )
    log_once("not_judged", f"a sample could not be judged and has infrastructure_error_score: {scored.why}")
    return float(options.infrastructure_error_score)


def scores_of(scored: Sequence[Scored], options: RewardOptions) -> list[float]:
    """Return the score of each row. Raises NotJudgedError."""
    return [score_of(one, options) for one in scored]


_seen: Counter[str] = Counter()


def log_once(kind: str, message: str) -> None:
    """Log the first event of a kind, then the tenth, the hundredth and so on: a trainer repeats its mistakes."""
    _seen[kind] += 1
    count = _seen[kind]
    if str(count).rstrip("0") == "1":
        _log.warning("%s (%d so far)", message, count)


def _timed(fields: Mapping[str, Any], options: RewardOptions) -> dict[str, Any]:
    timeout_s = None if options.timeout_s is None else options.timeout_s * _SHARE_OF_GRADING
    return {**fields, "timeout_s": timeout_s}


def _take(found: list[Scored], piece: Piece, answer: RewardsResult) -> None:
    verdicts = answer.verdicts or []
    parts = (answer.rewards, answer.components, answer.flags, verdicts)
    if any(len(part) != len(piece.numbers) for part in parts):
        raise ServerFailed(
            f"the server answered {len(answer.rewards)} rewards for {len(piece.numbers)} completions; "
            "is it of another version?"
        )
    for number, reward, components, flags, verdict in zip(piece.numbers, *parts, strict=True):
        passed = None if reward is None else bool(verdict["passed"])
        found[number] = Scored(reward, passed, str(verdict["status"]), components, flags)
    for entry in answer.unjudged:
        number = piece.numbers[entry["row"]]
        why = f"{entry['type']}: {entry['message']}"
        found[number] = replace(found[number], why=why)
        log_once(str(entry["type"]), f"row {number} could not be judged: {why}")


def _not_judged(error: InfrastructureError, options: RewardOptions) -> None:
    if options.infrastructure_error_score is None:
        raise error
    log_once(type(error).__name__, f"the grader did not answer: {error}")


def _client_options(options: RewardOptions) -> dict[str, Any]:
    more: dict[str, Any] = {"url": options.url, "api_key": options.api_key}
    if options.timeout_s is not None:
        rest_s = options.timeout_s * (1 - _SHARE_OF_GRADING)
        more["retries"] = RetryPolicy(total_s=rest_s)
        more["timeouts"] = Timeouts(connect_s=min(10.0, options.timeout_s), read_s=options.timeout_s)
    return more


def _client_key(options: RewardOptions) -> tuple[Any, ...]:
    return options.url or os.environ.get("GRADER_URL"), options.api_key, options.timeout_s


class _OfProcess:
    """What belongs to one process: connections of synchronous adapters, and what its event loops hold."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clients: dict[tuple[Any, ...], GraderClient] = {}
        self.loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = (
            weakref.WeakKeyDictionary()
        )
        self.inherited: object = None

    def begin_anew(self) -> None:
        """Forget what was inherited by a fork: the parent's connections, and locks that its threads held."""
        inherited = (self.clients, self.loops, self.inherited)
        self.__init__()  # type: ignore[misc]
        self.inherited = inherited  # not collected: that would close sockets with a warning


_of_process = _OfProcess()
os.register_at_fork(after_in_child=_of_process.begin_anew)


def _client(options: RewardOptions) -> GraderClient:
    key = _client_key(options)
    with _of_process.lock:
        if key not in _of_process.clients:
            _of_process.clients[key] = GraderClient(**_client_options(options))
        return _of_process.clients[key]


class _OfLoop:
    """What belongs to one event loop: connections, and what is being gathered."""

    def __init__(self) -> None:
        self.clients: dict[tuple[Any, ...], AsyncGraderClient] = {}
        self.gatherer: Gatherer[str, tuple[Row, RewardOptions], Scored] = Gatherer(_ask_gathered)

    def client(self, options: RewardOptions) -> AsyncGraderClient:
        key = _client_key(options)
        if key not in self.clients:
            self.clients[key] = AsyncGraderClient(**_client_options(options))
        return self.clients[key]


def _of_loop() -> _OfLoop:
    loop = asyncio.get_running_loop()
    held = _of_process.loops.get(loop)
    if held is None:
        held = _of_process.loops[loop] = _OfLoop()
    return held


async def _ask_gathered(_: str, items: list[tuple[Row, RewardOptions]]) -> list[Scored]:
    return await ask_async([row for row, _ in items], items[0][1])
