"""Programs that close the descriptor of the grader's own messages: how they end is no matter of chance."""

from __future__ import annotations

import pytest

ADD = "import os\nos.closerange(3, 100)\nprint(sum(map(int, input().split())), flush=True)\n"
TIMES = 20


def test_a_whole_program_is_what_it_prints_and_exits_with(this_user):
    runs = this_user.run(*[{"source": ADD, "stdin": "3 4\n"}] * TIMES)["runs"]
    assert [(run["output"], run["ended"], run["code"]) for run in runs] == [("7\n", "exited", 0)] * TIMES


@pytest.mark.parametrize(
    ("then", "ended"),
    {
        "os._exit(5)": ("exited", 5, 0),
        "ctypes.string_at(0)": ("signalled", 0, 11),
        "ctypes.CDLL(None).syscall(101, 0, 0, 0, 0)": ("signalled", 0, 31),
    }.items(),
    ids=["exit", "crash", "ptrace"],
)
def test_a_function_is_how_it_ends(this_user, then, ended):
    source = f"import ctypes, os\ndef f():\n    os.close(3)\n    {then}\n"
    runs = this_user.run(*[{"source": source, "entry_point": "f"}] * TIMES)["runs"]
    assert [(run["ended"], run["code"], run["signal"]) for run in runs] == [ended] * TIMES


def test_a_function_that_goes_on_has_ended_without_an_answer(this_user):
    source = "import os, time\ndef f():\n    os.close(3)\n    time.sleep(3600)\n"
    (run,) = this_user.run({"source": source, "entry_point": "f"}, idle_s=0.3)["runs"]
    assert (run["answers"], run["ended"], run["signal"]) == ([], "signalled", 9)
