"""Every limit, reached in a real cell. CPU seconds are compared with CPU seconds, never with the clock on the wall."""

from __future__ import annotations

import pytest

MIB = 1 << 20
SPEND = (
    "import time\ndef f(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n"
    "    return s"
)
SPIN = "def f(n=0):\n    while True:\n        n += 1"


def one(user, source, entry_point="f", inputs=None, control_groups=True, **limits):
    wanted = {"source": source, "entry_point": entry_point, "inputs": inputs or [[]]}
    (run,) = user.run(wanted, control_groups=control_groups, **limits)["runs"]
    return run


class TestTime:
    def test_a_loop_ends_at_its_cpu_limit(self, user):
        runs = [one(user, SPIN, time_floor_s=0.3) for _ in range(3)]
        assert all((run["ended"], run["answers"]) == ("cpu_limit", []) for run in runs)
        # The clock that is watched and the account at the end differ a little; the supervisor may have to wait for a
        # processor while the loop has one.
        assert 0.27 <= min(run["cpu_s"] for run in runs) < 1.3

    def test_a_loop_at_the_top_level_ends_too(self, user):
        run = one(user, "while True:\n    pass", time_floor_s=0.3)
        assert run["ended"] == "cpu_limit"

    def test_a_loop_in_c_ends_too(self, user):
        run = one(user, "def f():\n    return sum(iter(int, 1))", time_floor_s=0.3)
        assert run["ended"] == "cpu_limit"

    def test_threads_use_the_time_together(self, user):
        source = (
            "import hashlib, threading\n"
            "def burn():\n    data = bytes(1 << 24)\n    while True: hashlib.sha256(data).digest()\n"
            "def f():\n"
            "    for _ in range(4): threading.Thread(target=burn, daemon=True).start()\n"
            "    threading.Event().wait()"
        )
        runs = [one(user, source, time_floor_s=0.5, idle_s=120.0) for _ in range(3)]
        assert all(run["ended"] == "cpu_limit" for run in runs)
        assert 0.45 <= min(run["cpu_s"] for run in runs) < 2.5

    def test_each_test_has_its_own_time(self, user):
        run = one(user, SPEND, inputs=[[0.3], [0.3], [0.3], [9.0], [0.0]], time_floor_s=0.8)
        assert run["answers"] == [0.3, 0.3, 0.3]
        assert run["ended"] == "cpu_limit"

    def test_a_long_run_has_the_pace_of_its_processor_measured(self, user):
        """Else a limit would be shorter on a processor that neighbours slow down: no two loops take equally long.

        The loops of one run can each be the fastest so far, which leaves 1.0: one of several runs says enough.
        """
        assert any(one(user, SPEND, inputs=[[0.5]])["slowness"] > 1.0 for _ in range(20))
        assert one(user, SPEND, inputs=[[0.0]])["slowness"] == 1.0

    def test_a_group_has_a_limit_of_its_own(self, user):
        run = one(user, SPEND, inputs=[[0.3]] * 9, time_floor_s=5.0, group_time_s=1.0)
        assert run["ended"] == "cpu_limit"
        assert 1 <= len(run["answers"]) < 9

    @pytest.mark.parametrize(
        "source",
        ["import time\ndef f():\n    time.sleep(3600)", "import threading\ndef f():\n    threading.Event().wait()",
         "import signal\ndef f():\n    signal.pause()", "import os\ndef f():\n    os.read(os.pipe()[0], 1)",
         "import select\ndef f():\n    select.select([], [], [], 3600)"],
        ids=["sleep", "lock", "pause", "pipe", "select"],
    )  # fmt: skip
    def test_a_sleeper_ends_at_the_idle_limit(self, this_user, source):
        run = one(this_user, source, idle_s=0.4)
        assert run["ended"] == "idle_limit"
        assert run["cpu_s"] < 20.0

    def test_it_is_told_how_long_a_run_was_idle(self, this_user):
        """Second looks at a sample's long answers have that together: each run by itself is below its limit."""
        nap = "import time\ndef f(seconds):\n    time.sleep(seconds)"
        # Time in which the supervisor itself had no processor is not counted, and may be long.
        short, *longer = (
            one(this_user, nap, inputs=[[seconds]])["idle_s"] for seconds in (1.0, 3.0, 3.0, 3.0)
        )
        assert 0.0 < short <= max(longer)

    def test_without_an_idle_limit_a_sleeper_has_the_tests_own(self, user):
        run = one(user, "import time\ndef f():\n    time.sleep(3600)", time_floor_s=0.4, idle_s=None)
        assert run["ended"] == "idle_limit"

    def test_signals_and_handlers_do_not_lengthen_it(self, user):
        source = (
            "import signal\nfor number in set(signal.Signals) - {9, 19}:\n"
            "    signal.signal(number, lambda *_: None)\n"
            "def f():\n    while True:\n        try:\n            while True: pass\n"
            "        except BaseException: pass"
        )
        assert one(user, source, time_floor_s=0.3)["ended"] == "cpu_limit"


class TestMemory:
    GREEDY = (
        "def f():\n    hoard = []\n    while len(hoard) < 1024:\n        hoard.append(bytearray(b'x' * (1 << 22)))\n"
        "    return len(hoard)"
    )

    def test_a_hoarder_ends_at_the_limit(self, user):
        run = one(user, self.GREEDY, memory_bytes=256 * MIB)
        assert run["answers"] == []
        killed = run["memory_kill"] and run["ended"] == "signalled"
        refused = [error[0] for error in run["raised"]] == ["MemoryError"]
        assert killed or refused
        # Without a control group what the interpreter maps is allowed for on top, generously.
        assert run["peak_memory_bytes"] <= (256 + (64 if killed else 256)) * MIB

    def test_without_control_groups_the_address_space_is_limited(self, user):
        run = one(user, self.GREEDY, memory_bytes=256 * MIB, control_groups=False)
        assert [error[0] for error in run["raised"]] == ["MemoryError"]
        assert run["answers"] == []
        assert run["peak_memory_bytes"] <= (256 + 256) * MIB

    def test_half_of_the_limit_may_be_used(self, user):
        source = "def f():\n    return len(bytearray(b'x' * (1 << 27)))"
        for control_groups in (True, False):
            run = one(user, source, memory_bytes=512 * MIB, control_groups=control_groups)
            assert run["answers"] == [1 << 27]

    def test_the_next_sample_has_the_whole_of_it_again(self, user):
        greedy = {"source": self.GREEDY, "entry_point": "f"}
        modest = {"source": "def f():\n    return len(bytearray(b'x' * (1 << 26)))", "entry_point": "f"}
        runs = user.run(greedy, modest, greedy, modest, memory_bytes=256 * MIB)["runs"]
        assert [run["answers"] for run in runs] == [[], [1 << 26], [], [1 << 26]]
        assert [run["memory_kill"] for run in runs[1::2]] == [False, False]

    def test_a_file_in_memory_counts_too(self, user):
        source = "def f():\n    with open('/tmp/x', 'wb') as file: return file.write(bytes(1 << 20))"
        assert one(user, source, tmp_bytes=8 * MIB)["answers"] == [MIB]


class TestOutput:
    def test_answers_beyond_the_limit_end_the_run(self, user):
        run = one(
            user, "def f(n):\n    return 'x' * 30000", inputs=[[n] for n in range(50)], answer_bytes=200_000
        )
        assert run["ended"] == "output_limit"
        assert len(run["answers"]) < 50

    def test_a_long_answer_is_sent_as_its_digest(self, user):
        run = one(user, "def f():\n    return 'x' * 100000", answer_bytes=50_000)
        assert (run["ended"], run["answers"], run["digests"]) == ("exited", [], 1)

    def test_of_what_is_printed_the_end_is_kept(self, user):
        source = "def f():\n    print('begin', 'x' * 5_000_000, 'end', sep='')\n    return 1"
        run = one(user, source, stdout_bytes=1000)
        assert run["answers"] == [1]
        assert run["stdout_length"] == 1000
        assert run["stdout"].endswith("xxend\n")

    def test_printing_without_end_is_a_matter_of_time(self, user):
        run = one(user, "def f():\n    while True: print('x' * 1000)", time_floor_s=0.3, stdout_bytes=1000)
        assert run["ended"] == "cpu_limit"
        assert run["stdout_length"] == 1000

    def test_a_whole_program_may_print_so_much_and_no_more(self, user):
        source = "import sys\nwhile True: print('x' * 1000)"
        (run,) = user.run({"source": source, "stdin": ""}, answer_bytes=100_000)["runs"]
        assert run["ended"] == "output_limit"
        assert len(run["output"]) < 2_000_000

    def test_a_whole_program_reads_its_input_and_prints_its_output(self, user):
        source = "import sys\nprint(input(), len(sys.stdin.read()))\nsys.exit(3)"
        (run,) = user.run({"source": source, "stdin": "first line\n" + "y" * 200_000})["runs"]
        assert run["output"] == "first line 200000\n"
        assert (run["ended"], run["code"]) == ("exited", 3)


class TestCounts:
    def test_threads(self, user):
        source = (
            "import threading\ndef f():\n    stay, started = threading.Event(), 0\n    try:\n"
            "        for _ in range(500):\n"
            "            threading.Thread(target=stay.wait, daemon=True).start()\n            started += 1\n"
            "    except RuntimeError:\n        return started\n    return started"
        )
        run = one(user, source, threads=30)
        (started,) = run["answers"]
        assert 20 <= started < 30

    def test_open_files(self, user):
        source = (
            "import os\ndef f():\n    opened = []\n    try:\n"
            "        while True: opened.append(os.open('/dev/null', 0))\n"
            "    except OSError as error:\n        return [len(opened), error.errno]"
        )
        ((opened, number),) = one(user, source)["answers"]
        assert opened < 256
        assert number == 24  # EMFILE

    def test_bytes_in_the_scratch_folder(self, user):
        source = (
            "import os\ndef f():\n    total, n = 0, 0\n    try:\n        while True:\n"
            "            with open(f'/tmp/{n}', 'wb', 0) as file: total += file.write(bytes(1 << 16))\n"
            "            n += 1\n"
            "    except OSError as error:\n        return [total, error.errno]"
        )
        ((total, number),) = one(user, source, tmp_bytes=4 * MIB)["answers"]
        assert 3 * MIB < total <= 4 * MIB
        assert number == 28  # ENOSPC

    def test_bytes_of_one_file(self, user):
        source = (
            "def f():\n    try:\n        with open('/tmp/x', 'wb') as file: file.truncate(1 << 40)\n"
            "    except OSError as error:\n        return error.errno"
        )
        assert one(user, source, tmp_bytes=4 * MIB)["answers"] == [27]  # EFBIG

    def test_files_in_the_scratch_folder(self, user):
        source = (
            "import os\ndef f():\n    n = 0\n    try:\n        while n < 100000:\n"
            "            os.close(os.open(f'/tmp/{n}', os.O_CREAT | os.O_WRONLY))\n            n += 1\n"
            "    except OSError as error:\n        return [n, error.errno]"
        )
        ((files, number),) = one(user, source)["answers"]
        assert files <= 4096
        assert number == 28

    def test_a_full_scratch_folder_is_empty_for_the_next(self, user):
        fill = "def f():\n    with open('/tmp/x', 'wb') as file: return file.write(bytes(3 << 20))"
        wanted = {"source": fill, "entry_point": "f"}
        runs = user.run(*[wanted] * 5, tmp_bytes=4 * MIB)["runs"]
        assert [run["answers"] for run in runs] == [[3 * MIB]] * 5


def test_nothing_of_a_run_is_left_in_the_cell(user):
    """Supervisor and zygote stay; threads, sleepers and what was killed do not."""
    sleeper = {"source": "import time\ndef f():\n    time.sleep(3600)", "entry_point": "f"}
    quick = {"source": "def f():\n    return 1", "entry_point": "f"}
    before = user.run(quick)["processes_after"]
    after = user.run(
        quick, sleeper, {"source": SPIN, "entry_point": "f"}, quick, time_floor_s=0.3, idle_s=0.3
    )
    assert after["processes_after"] == before
