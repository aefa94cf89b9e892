"""What the endpoints share that run whole programs: limits, one run for equal programs in flight, and refusals.

What a program printed and how it exited is its own word. Nothing here is a judgement on it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog
from fastapi import Request
from fastapi.responses import Response

from grader.dispatch.contract import Grading
from grader.errors import InfrastructureError, InputError, OverloadedError
from grader.limits import MIB, Limits
from grader.server.answers import to_json
from grader.server.auth import Caller
from grader.server.batches import Owner
from grader.server.observed import Observer
from grader.server.problems import Refused, problem
from grader.server.refusals import note_refusal
from grader.server.service import Service, service_of
from grader.server.streams import JSON, while_connected
from grader.telemetry.requests import note_no_room
from grader.worker.execution import Executed, Execution

_log = structlog.get_logger("grader.server")

MAX_TIME_S = 3600.0
MAX_MEMORY_MIB = 256 * 1024
# The interpreter alone needs about 12 MB.
_LEAST_MEMORY_BYTES = 16 * MIB
_STDERR_BYTES = MIB
_IN_A_THREAD_BYTES = 256 * 1024
_SHARED = "compat_runs"
SIGKILL = 9
TOO_MANY_REQUESTS = 429


@dataclass(frozen=True, slots=True)
class Wanted:
    """A program to be run, and what it may use."""

    execution: Execution
    limits: Limits


def wanted_run(execution: Execution, owner: Owner, *, memory_bytes: int | None = None) -> Wanted:
    """Return what is to be run, with ``memory_bytes`` (None: the default), lowered to the owner's ceilings."""
    memory = Limits().memory_bytes if memory_bytes is None else max(memory_bytes, _LEAST_MEMORY_BYTES)
    # The execution's own time limit is the only one: a run is one step of one group.
    limits = Limits(memory_bytes=memory, group_time_s=execution.time_s + 1.0, stdout_bytes=_STDERR_BYTES)
    if owner.ceilings is not None:
        limits = limits.within(owner.ceilings)
        time_s = min(execution.time_s, owner.ceilings.group_time_s, owner.ceilings.idle_s or MAX_TIME_S)
        execution = replace(execution, time_s=time_s)
    return Wanted(execution, limits)


class _Flight:
    """A run in progress, and how many wait for it."""

    def __init__(self, task: asyncio.Task[Executed]) -> None:
        self.task = task
        self.waiting = 0


class Runs:
    """Runs programs; equal programs that are in flight at the same time, with equal input, share one run.

    A run ends early when nobody waits for it any more.
    """

    def __init__(self, grading: Grading, observer: Observer | None = None) -> None:
        self._grading = grading
        self._observer = observer
        self._flights: dict[object, _Flight] = {}

    async def run(self, wanted: Wanted, owner: Owner, wait_s: float) -> Executed:
        """Run a program that is to be started within ``wait_s`` wall-clock seconds. Errors: ``Grading.execute``."""
        key = _key(wanted, owner)
        flight = self._flights.get(key)
        if flight is None:
            running: Awaitable[Executed] = self._grading.execute(
                wanted.execution, wanted.limits, tenant=owner.tenant, weight=owner.weight, timeout_s=wait_s
            )
            if self._observer is not None:
                running = self._observer.run(running)
            flight = self._flights[key] = _Flight(asyncio.ensure_future(running))
            flight.task.add_done_callback(lambda _: self._forget(key, flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                # Whoever asks for the same from here on needs a run of his own.
                self._forget(key, flight)
                flight.task.cancel()

    def _forget(self, key: object, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _key(wanted: Wanted, owner: Owner) -> object:
    run = wanted.execution
    return (owner.tenant, owner.weight, run.source, run.stdin, run.args, run.fetch, run.time_s,
            tuple(sorted(run.files.items())), wanted.limits)  # fmt: skip


def runs_of(service: Service) -> Runs:
    """Return the one ``Runs`` of a service."""
    runs: Runs = service.shared.setdefault(_SHARED, Runs(service.grading, service.observer))
    return runs


async def run_for(
    request: Request, caller: Caller, wanted: Wanted, *, wait_s: float, answer_s: float | None = None
) -> Executed:
    """Run a program for a client, for as long as it is connected.

    ``answer_s``: wall-clock seconds after which the client will not wait any more. Raises OverloadedError when they are
    over, and what ``Grading.execute`` raises. The request's body must have been read.
    """
    try:
        with caller.taking_samples(1):
            run = runs_of(service_of(request)).run(wanted, caller.owner, wait_s)
            return await asyncio.wait_for(while_connected(request.receive, run), answer_s)
    except TimeoutError:
        raise OverloadedError("the program was started, and did not end while the client waits") from None


@contextmanager
def shed_with(status: int) -> Iterator[None]:
    """Have what says nothing about the program (load, rates, our own failures) refused with one status."""
    try:
        yield
    except Refused as error:
        if error.status not in (TOO_MANY_REQUESTS, 503):
            raise
        if error.status == TOO_MANY_REQUESTS:
            note_no_room()
        wait_s = error.retry_after_s
        raise Refused(
            error.detail, status=status, title=error.title, retry_after_s=wait_s, headers=error.headers
        ) from error
    except InfrastructureError as error:
        is_load = isinstance(error, OverloadedError)
        if is_load:
            note_no_room()
        else:
            _log.error("cannot_grade", error_type=type(error).__name__, error=str(error))
        said = "it could not be done now, which says nothing about the program; send it again"
        title = "Too much load" if is_load else "Cannot grade now"
        wait_s = error.retry_after_s if isinstance(error, OverloadedError) else 1.0
        raise Refused(said, status=status, title=title, retry_after_s=wait_s) from error


@contextmanager
def refused_input(place: str) -> Iterator[None]:
    """Have what is wrong with the input refused with its place."""
    try:
        yield
    except Refused:
        raise
    except InputError as error:
        raise Refused(str(error), place=place) from error


def exit_status(executed: Executed) -> int | None:
    """Return the exit status as ``subprocess`` has it: negative for a signal, None at a time limit.

    What was killed for another limit has the status of a process killed by SIGKILL.
    """
    if executed.ended == "time_limit":
        return None
    if executed.ended == "exited":
        return executed.code
    return -(executed.signal or SIGKILL) if executed.ended == "signalled" else -SIGKILL


def why_killed(executed: Executed, limits: Limits) -> str:
    """Say for which limit a program was killed; "" for one that was not, or for its time."""
    if executed.ended == "memory_limit":
        return f"killed: it needs more memory than its {limits.memory_bytes / MIB:.0f} MiB"
    if executed.ended == "output_limit":
        return f"killed: it printed more than {limits.answer_bytes} bytes"
    return "killed: it tampered with the sandbox" if executed.ended == "stopped" else ""


def stdout_of(executed: Executed) -> str:
    """Return what it printed; bytes that are no UTF-8 are replaced."""
    return executed.stdout.decode("utf-8", "replace")


def stderr_of(executed: Executed, limits: Limits) -> str:
    """Return what it wrote to standard error, and for which limit it was killed."""
    text, why = executed.stderr.decode("utf-8", "replace"), why_killed(executed, limits)
    if not why:
        return text
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{why}\n"


def decoded_files(files: Mapping[str, str | None]) -> dict[str, bytes]:
    """Decode files from base64, those that are null left out. Raises Refused with the place of one that is not."""
    found = {}
    for name, content in files.items():
        if content is not None:
            try:
                found[name] = base64.b64decode(content, validate=True)
            except (binascii.Error, ValueError) as error:
                raise Refused("not base64", place=f"files[{name!r:.100}]") from error
    return found


async def json_answer(make: Callable[[], Any], size: int = 0) -> Response:
    """Return what ``make`` makes as JSON; in a thread where its ``size``, in bytes, is large."""
    if size > _IN_A_THREAD_BYTES:
        return Response(await asyncio.to_thread(lambda: to_json(make())), media_type=JSON)
    return Response(to_json(make()), media_type=JSON)


def error_answer(request: Request, error: Refused, body: Any, *, status: int | None = None) -> Response:
    """Return a refusal whose body, and ``status`` if given, are a foreign contract's, with our headers."""
    note_refusal(request, error)
    found = problem(error.status, error.detail, retry_after_s=error.retry_after_s, headers=error.headers)
    return Response(to_json(body), status or error.status, {**found.headers, "content-type": JSON})
