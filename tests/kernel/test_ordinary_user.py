"""The whole grader without root: the command line, its workers and cells, as a user who owns next to nothing."""

from __future__ import annotations

import json

SUITE = {
    "task_id": "T/0",
    "entry_point": "f",
    "groups": [
        {"name": "base", "kind": "function", "tests": [{"args": [n], "expected": n * n} for n in range(5)]}
    ],
}
PROGRAMS = {
    "right": ("def f(n):\n    return n * n\n", "passed"),
    "wrong": ("def f(n):\n    return n + n\n", "wrong_answer"),
    "numpy": ("import numpy\ndef f(n):\n    return int(numpy.square(n))\n", "passed"),
    "hangs": ("def f(n):\n    while True: pass\n", "time_limit"),
    "hoards": ("def f(n):\n    return len(bytearray(b'x' * (1 << 40)))\n", "memory_limit"),
    "attacks": (
        "import ctypes\ndef f(n):\n    ctypes.CDLL(None).unshare(0x10000000)\n",
        "security_violation",
    ),
}
_MAIN = "from grader.cli import main; main()"


def test_an_ordinary_user_grades_samples(ordinary_user):
    """Standard input and output carry everything, so that no file has to be readable for two users."""
    script = (
        "import json, os, sys, tempfile\nfrom pathlib import Path\nimport grader\n"
        "job = json.load(sys.stdin)\n"
        "with tempfile.TemporaryDirectory(dir=os.environ['HOME']) as folder:\n"
        "    suite = Path(folder, 'suite.jsonl')\n"
        "    suite.write_text(json.dumps(job['suite']) + '\\n')\n"
        "    verdicts = grader.grade(job['samples'], suite=str(suite), workers=2,\n"
        "                            limits=grader.Limits(time_floor_s=0.5))\n"
        "    json.dump([verdict.model_dump() for verdict in verdicts], sys.stdout)\n"
    )
    samples = [
        {"task_id": "T/0", "sample_id": name, "solution": source} for name, (source, _) in PROGRAMS.items()
    ]
    ended = ordinary_user.command(["-c", script], input=json.dumps({"suite": SUITE, "samples": samples}))
    assert ended.returncode == 0, ended.stderr
    verdicts = {verdict["sample_id"]: verdict for verdict in json.loads(ended.stdout)}
    assert {name: verdict["status"] for name, verdict in verdicts.items()} == {
        name: status for name, (_, status) in PROGRAMS.items()
    }
    for verdict in verdicts.values():
        assert {"userns", "netns", "seccomp", "readonly_root"} <= set(verdict["sandbox"]["layers"])


def test_the_doctor_says_what_an_ordinary_user_has(ordinary_user):
    ended = ordinary_user.command(["-c", _MAIN, "doctor"])
    assert ended.returncode == 0, ended.stderr + ended.stdout
    for name in ("userns", "seccomp", "landlock", "cgroup"):
        assert name in ended.stdout
