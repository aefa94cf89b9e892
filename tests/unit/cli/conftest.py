import json
import threading
from typing import ClassVar

import pytest

from grader.errors import SandboxError
from grader.suites import registry
from grader.suites.task import FunctionTests, Suite, Task, TestGroup

TESTS = FunctionTests(lambda: [[1], [2]])


def _suite():
    tasks = [
        Task(f"Toy/{n}", "def f(x):\n", "f", "", (TestGroup("base", TESTS), TestGroup("plus", TESTS)))
        for n in range(3)
    ]
    return Suite("toy+", "v1", "0" * 64, {task.task_id: task for task in tasks})


def _verdict(program):
    """The source's first word is what becomes of it: passed, base, plus, lost."""
    word = program.source.split()[0] if program.source.split() else "no_code"
    passed = {"status": "passed", "passed": 2, "total": 2, "first_failed": None}
    failed = {"status": "wrong_answer", "passed": 1, "total": 2, "first_failed": 1}
    groups = {
        "passed": {"base": passed, "plus": passed},
        "plus": {"base": passed, "plus": failed},
        "base": {"base": failed, "plus": None},
    }.get(word, {"base": None, "plus": None})
    status = {"passed": "passed", "lost": "infrastructure_error", "no_code": "no_code"}.get(
        word, "wrong_answer"
    )
    return {
        "task_id": program.task_id,
        "sample_id": program.sample_id,
        "status": status,
        "passed": status == "passed",
        "groups": groups,
        "reward": None,
        "cpu_s": 0.25,
        "wall_s": 0.5,
        "peak_memory_bytes": 1,
        "error": None,
        "stdout_tail": "",
        "sandbox": {"backend": "fake", "layers": ["none"]},
        "cached": False,
        "attempts": 1,
        "extraction": program.how,
    }


class FakeEngine:
    """Stands in for the local engine; remembers what it was made with, and what it graded."""

    made: ClassVar[list] = []
    entered = 0
    fail_with: BaseException | None = None
    fail_after = 0
    workers = 2
    stamp: ClassVar[dict] = {"backend": "fake", "layers": ["none"]}

    def __init__(self, suite, groups, options, reporter):
        self.suite, self.groups, self.options, self.reporter = suite, groups, options, reporter
        self.graded = []
        self.closed = False
        type(self).made.append(self)

    def __enter__(self):
        type(self).entered += 1
        self.reporter.stage("expected answers", 1, 2)
        self.reporter.stage("expected answers", 2, 2)
        return self

    def __exit__(self, *error):
        self.closed = True

    def grade(self, programs):
        for program in programs:
            if self.fail_with and len(self.graded) >= self.fail_after:
                raise self.fail_with
            self.graded.append(program)
            yield _verdict(program)


@pytest.fixture
def suite(monkeypatch):
    made = _suite()
    monkeypatch.setattr(registry, "load", lambda name: made)
    return made


@pytest.fixture
def engines(monkeypatch, suite):
    kind = type("Engine", (FakeEngine,), {"made": []})
    monkeypatch.setattr("grader.run.make_engine", kind)
    for name in ("GRADER_ENGINE", "GRADER_SANDBOX", "GRADER_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    return kind


@pytest.fixture
def samples(tmp_path):
    rows = [
        {"task_id": "Toy/0", "solution": "passed = 1"},
        {"task_id": "Toy/0", "solution": "passed = 1 # again"},
        {"task_id": "Toy/1", "solution": "plus = 1"},
        {"task_id": "Toy/1", "solution": "base = 1"},
        {"task_id": "Toy/2", "solution": "base = 2"},
        {"task_id": "Toy/2", "solution": "base = 2"},
    ]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def broken_sandbox(engines):
    engines.fail_with = SandboxError("no user namespaces; set kernel.unprivileged_userns_clone to 1")
    return engines


@pytest.fixture
def grader(monkeypatch, capsys):
    """Run the command line in this process; gives (exit code, stdout, stderr)."""
    from grader import cli

    monkeypatch.setattr("signal.signal", lambda *args: None)
    assert threading.current_thread() is threading.main_thread()

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["grader", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run
