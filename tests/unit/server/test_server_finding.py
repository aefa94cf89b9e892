"""Programs are found in completions a slice at a time, by turns, and as long as somebody wants them."""

from __future__ import annotations

import asyncio

import pytest

from grader.samples import GivenSample
from grader.server import finding
from grader.server.finding import find_programs, programs_of
from grader.suites import registry
from grader.worker.program import Program

SLICE = 64
SLICE_CHARACTERS = 64 * 1024
STARTER = registry.load("starter")


def samples_of(count: int, name: str = "s") -> list[GivenSample]:
    return [GivenSample("Starter/1", f"{name}{n}", f"```python\nx = {n}\n```", False) for n in range(count)]


@pytest.fixture
def looked_at(monkeypatch) -> list[str]:
    """The samples that programs were looked for in, in that order."""
    seen: list[str] = []

    def find(samples, suite):
        seen.extend(sample.sample_id for sample in samples)
        return programs_of(samples, suite)

    monkeypatch.setattr(finding, "programs_of", find)
    return seen


@pytest.mark.parametrize("count", [0, 1, SLICE, SLICE + 1, 3 * SLICE])
def test_programs_are_those_of_the_samples_in_their_order(count):
    samples = samples_of(count)
    assert asyncio.run(find_programs(samples, STARTER, None)) == programs_of(samples, STARTER)


@pytest.mark.parametrize(
    ("lengths", "slices"),
    [
        ([SLICE_CHARACTERS] * 3 + [1] * (SLICE + 3), [1, 1, 1, SLICE, 3]),
        ([SLICE_CHARACTERS // 2] * 5, [2, 2, 1]),
        ([1, 10 * SLICE_CHARACTERS, 1], [2, 1]),
        ([0] * (SLICE + 1), [SLICE, 1]),
    ],
)
def test_a_slice_ends_with_its_samples_or_its_text(monkeypatch, lengths, slices):
    seen: list[int] = []

    def find(samples, suite):
        seen.append(len(samples))
        return programs_of(samples, suite)

    monkeypatch.setattr(finding, "programs_of", find)
    samples = [GivenSample("Starter/1", f"s{n}", "x" * length, True) for n, length in enumerate(lengths)]
    assert len(asyncio.run(find_programs(samples, STARTER, None))) == len(samples)
    assert seen == slices


def test_after_the_deadline_none_is_looked_for(looked_at):
    async def main() -> list[Program]:
        return await find_programs(samples_of(3), STARTER, asyncio.get_running_loop().time())

    found = asyncio.run(main())
    assert [(one.sample_id, one.source) for one in found] == [("s0", ""), ("s1", ""), ("s2", "")]
    assert looked_at == []


def test_requests_take_turns(looked_at):
    async def main() -> None:
        many = asyncio.create_task(find_programs(samples_of(20 * SLICE), STARTER, None))
        await asyncio.sleep(0)
        await find_programs(samples_of(1, "few"), STARTER, None)
        assert not many.done()
        await many

    asyncio.run(main())
    assert looked_at.index("few0") <= 3 * SLICE


def test_a_request_that_is_cancelled_has_no_further_slice(looked_at):
    async def main() -> None:
        many = asyncio.create_task(find_programs(samples_of(50 * SLICE), STARTER, None))
        while not looked_at:
            await asyncio.sleep(0.001)
        many.cancel()
        await asyncio.wait((many,))
        await find_programs(samples_of(1, "after"), STARTER, None)
        assert many.cancelled()

    asyncio.run(main())
    assert looked_at[-1] == "after0"
    assert len(looked_at) < 25 * SLICE
