"""Finding the programs in completions: a millisecond each, of which a request may have a hundred thousand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from grader.run import program_of
from grader.samples import GivenSample
from grader.suites.task import Suite
from grader.worker.program import Program

_SLICE = 64
# The time that programs take to be found goes by the text. A slice has at least one sample, whatever its length.
_SLICE_CHARACTERS = 64 * 1024
# One: it is work for the interpreter's lock, and more threads would only keep the event loop from it.
_finding = ThreadPoolExecutor(1, thread_name_prefix="finding-programs")


async def find_programs(
    samples: Sequence[GivenSample], suite: Suite, deadline: float | None
) -> list[Program]:
    """Return the samples' programs, assembled in a thread, a slice at a time.

    Requests take turns by slices, and one that is cancelled has no further slice. After ``deadline``, which is on the
    event loop's clock, the rest is left empty: nothing of it will be graded.
    """
    loop = asyncio.get_running_loop()
    found: list[Program] = []
    while len(found) < len(samples):
        if deadline is not None and loop.time() >= deadline:
            found += [Program(sample.task_id, sample.sample_id, "") for sample in samples[len(found) :]]
            break
        some = _slice(samples, len(found))
        found += await loop.run_in_executor(_finding, programs_of, some, suite)
    return found


def _slice(samples: Sequence[GivenSample], first: int) -> Sequence[GivenSample]:
    end, characters = first, 0
    while end < min(first + _SLICE, len(samples)) and characters < _SLICE_CHARACTERS:
        characters += len(samples[end].text)
        end += 1
    return samples[first:end]


def programs_of(samples: Sequence[GivenSample], suite: Suite) -> list[Program]:
    """Return the samples' programs. Blocks."""
    return [program_of(sample, suite) for sample in samples]
