"""What endpoints that run programs share: limits, sharing of runs, exit statuses."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from grader.dispatch import events
from grader.dispatch.work import Executing
from grader.errors import InfrastructureError, InputError, OverloadedError
from grader.limits import GIB, MIB, Limits
from grader.server.batches import Owner
from grader.server.compat.running import (
    Runs,
    decoded_files,
    exit_status,
    refused_input,
    shed_with,
    stderr_of,
    stdout_of,
    wanted_run,
)
from grader.server.problems import Refused
from grader.worker.execution import Executed, Execution

DONE = Executed("exited", 0, 0, b"out\n", b"err\n", 0.1, 0.2, 1000)


class Counting:
    """Counts runs, and holds them until it is told to let them go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = self.cancelled = 0
        self.go = asyncio.Event()
        self._error = error

    async def execute(self, execution, limits, *, tenant, weight=1.0, timeout_s):
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self._error is not None:
            raise self._error
        return DONE


def test_equal_programs_in_flight_share_a_run():
    async def main():
        grading = Counting()
        runs, owner = Runs(grading), Owner()
        same = [wanted_run(Execution("print(1)", b"x"), owner) for _ in range(5)]
        other = [
            wanted_run(Execution("print(1)", b"y"), owner),
            wanted_run(Execution("print(1)", b"x", time_s=3), owner),
            wanted_run(Execution("print(1)", b"x"), owner, memory_bytes=GIB * 2),
        ]
        asked = [asyncio.create_task(runs.run(one, owner, 1.0)) for one in (*same, *other)]
        asked.append(asyncio.create_task(runs.run(same[0], Owner(tenant="another"), 1.0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert grading.begun == 5
        asked[0].cancel()  # one of those that wait
        await asyncio.sleep(0)
        grading.go.set()
        assert await asyncio.gather(*asked[1:]) == [DONE] * 8
        assert grading.cancelled == 0
        await runs.run(same[0], owner, 1.0)
        assert grading.begun == 6, "what is over is run again"

    asyncio.run(main())


def test_a_run_that_nobody_waits_for_is_cancelled():
    async def main():
        grading = Counting()
        runs, owner = Runs(grading), Owner()
        wanted = wanted_run(Execution("x"), owner)
        asked = [asyncio.create_task(runs.run(wanted, owner, 1.0)) for _ in range(2)]
        await asyncio.sleep(0.01)
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        again = asyncio.create_task(runs.run(wanted, owner, 1.0))
        await asyncio.sleep(0.01)
        assert (grading.begun, grading.cancelled) == (2, 1)
        grading.go.set()
        assert await again == DONE

    asyncio.run(main())


def test_all_that_share_a_run_have_its_error():
    async def main():
        grading = Counting(OverloadedError("full"))
        runs, owner = Runs(grading), Owner()
        wanted = wanted_run(Execution("x"), owner)
        grading.go.set()
        found = await asyncio.gather(
            *(runs.run(wanted, owner, 1.0) for _ in range(3)), return_exceptions=True
        )
        assert [type(one) for one in found] == [OverloadedError] * 3
        assert grading.begun == 1

    asyncio.run(main())


def test_limits():
    run = wanted_run(Execution("x", time_s=100.0), Owner())
    assert run.limits.memory_bytes == Limits().memory_bytes
    assert run.limits.whole_group_time_s(0.0) > 100.0, "no other limit comes before the run's own"
    assert wanted_run(Execution("x"), Owner(), memory_bytes=1).limits.memory_bytes == 16 * MIB
    ceilings = replace(Limits(), memory_bytes=100 * MIB, group_time_s=5.0)
    run = wanted_run(Execution("x", time_s=100.0), Owner(ceilings=ceilings), memory_bytes=GIB)
    assert (run.limits.memory_bytes, run.execution.time_s) == (100 * MIB, 5.0)


@pytest.mark.parametrize(
    ("ended", "code", "number", "status"),
    [
        ("exited", 0, 0, 0),
        ("exited", 3, 0, 3),
        ("signalled", 0, 11, -11),
        ("time_limit", 0, 9, None),
        ("memory_limit", 0, 9, -9),
        ("output_limit", 0, 9, -9),
        ("stopped", 0, 0, -9),
    ],
)
def test_exit_statuses(ended, code, number, status):
    executed = replace(DONE, ended=ended, code=code, signal=number)
    assert exit_status(executed) == status
    said = stderr_of(executed, Limits())
    assert said.startswith("err\n")
    assert ("killed: " in said) == (ended in ("memory_limit", "output_limit", "stopped"))


def test_bytes_that_are_no_text():
    assert stdout_of(replace(DONE, stdout=b"a\xffb")) == "a\ufffdb"
    assert stderr_of(replace(DONE, stderr=b"x", ended="memory_limit"), Limits()).startswith(
        "x\nkilled: it needs"
    )


def test_files():
    assert decoded_files({"a": "aGk=", "b": None, "c": ""}) == {"a": b"hi", "c": b""}
    for wrong in ("a", "%%%%", "aGk=\n\x00"):
        with pytest.raises(Refused, match="not base64"):
            decoded_files({"a": wrong})
    with pytest.raises(Refused) as caught, refused_input("files"):
        Execution("x", files={"/etc/x": b""})
    assert caught.value.errors[0].place == "files"


def test_a_program_that_takes_its_cell_down_has_done_something():
    async def main():
        done = asyncio.get_running_loop().create_future()
        Executing(Execution("x"), Limits(), done).end(events.Violation("it is gone", 2), None, {})
        assert exit_status(await done) == -9

    asyncio.run(main())


def test_what_says_nothing_about_the_program_has_one_status():
    for error in (OverloadedError("full", 3.0), InfrastructureError("gone"), Refused("rate", status=429)):
        with pytest.raises(Refused) as caught, shed_with(504):
            raise error
        assert caught.value.status == 504
        assert "gone" not in caught.value.detail
    for error in (Refused("wrong", status=422), InputError("x")):
        with pytest.raises(type(error)) as kept, shed_with(504):
            raise error
        assert kept.value is error
