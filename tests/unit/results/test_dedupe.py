import random
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader import dedupe
from grader.dedupe import Deduplicator, Families, grade_once
from grader.extraction import program_identity
from grader.worker.program import Program

# What a source text means to the fake engine: its tree, without the comment, decides whether it passes.
PASSING = ["def f(): return 1", "def f(): return 1  # again", "def f():\n    return 1", "def f(): return 2"]
FAILING = [
    "def f(): return 3",
    "def f(): return 3  # again",
    "\ndef f(): return 3",
    "def f(:",
    "def f(: # again",
]
ODD = ["", "\ud800", "a\0b"]


class FakeEngine:
    """Grades with a window of running programs; loses some; yields in random order."""

    def __init__(self, seed=0, window=3, losses=(), loss="CellLostError", printed=""):
        self.loss = loss
        self.printed = printed
        self.ran = []
        self.rounds = 0
        self.losses = set(losses)
        self._random = random.Random(seed)
        self._window = window

    def grade(self, programs):
        self.rounds += 1
        programs = iter(programs)
        running = list(islice(programs, self._window))
        while running:
            program = running.pop(self._random.randrange(len(running)))
            self.ran.append(program)
            yield self.verdict(program)
            running += islice(programs, self._window - len(running))

    def verdict(self, program):
        status, error = "passed" if program.source in PASSING else "wrong_answer", program.source
        if program.sample_id in self.losses:
            status, error = "infrastructure_error", {"type": self.loss, "message": "", "line": None}
        return {
            "task_id": program.task_id,
            "sample_id": program.sample_id,
            "status": status,
            "error": error,
            "stdout_tail": self.printed,
            "extraction": program.how,
            "cached": False,
        }


def programs(sources, task="T/0"):
    return [
        Program(task, f"{task}:{number}", source, f"how {number}") for number, source in enumerate(sources)
    ]


def graded(engine, given, **options):
    return {verdict["sample_id"]: verdict for verdict in grade_once(engine.grade, given, **options)}


def test_a_copy_of_a_passed_program_has_its_own_name():
    engine = FakeEngine()
    found = graded(engine, programs(PASSING[:3]))
    assert len(engine.ran) == 1
    copies = [verdict for verdict in found.values() if verdict["cached"]]
    assert len(copies) == 2
    assert [verdict["extraction"] for verdict in found.values()] == [
        f"how {sample_id[-1]}" for sample_id in found
    ]


def test_failures_are_shared_only_between_equal_texts():
    engine = FakeEngine()
    found = graded(engine, programs(FAILING[:3] * 4))
    assert sorted(program.source for program in engine.ran) == sorted(FAILING[:3])
    for sample_id, verdict in found.items():
        assert verdict["error"] == FAILING[int(sample_id.split(":")[1]) % 3]


def test_nothing_is_shared_between_tasks():
    engine = FakeEngine()
    graded(engine, programs(PASSING[:1], "T/0") + programs(PASSING[:1], "T/1"))
    assert len(engine.ran) == 2


def test_a_lost_sample_is_never_copied():
    engine = FakeEngine(losses=["T/0:0"])
    found = graded(engine, programs(PASSING[:1] * 4))
    assert [program.sample_id for program in engine.ran] == ["T/0:0", "T/0:1"]
    assert [found[f"T/0:{n}"]["status"] for n in range(4)] == ["infrastructure_error"] + ["passed"] * 3


def test_that_tests_are_broken_is_copied():
    engine = FakeEngine(losses=["T/0:0"], loss="BrokenTests")
    found = graded(engine, programs(PASSING[:1] * 4))
    assert [program.sample_id for program in engine.ran] == ["T/0:0"]
    assert {verdict["status"] for verdict in found.values()} == {"infrastructure_error"}


def test_all_are_lost():
    engine = FakeEngine(losses=[f"T/0:{n}" for n in range(5)])
    found = graded(engine, programs(FAILING[:1] * 5))
    assert len(engine.ran) == 5
    assert {verdict["status"] for verdict in found.values()} == {"infrastructure_error"}


@pytest.mark.parametrize("source", ["\ud800", "a\0b", "def f(:", ""])
def test_what_cannot_be_parsed_is_still_graded(source):
    assert len(graded(FakeEngine(), programs([source] * 3))) == 3


def test_tasks_known_to_have_one_program_are_not_looked_into():
    engine = FakeEngine()
    graded(engine, programs(PASSING[:1] * 2), alone={"T/0"})
    assert len(engine.ran) == 2


def test_programs_are_parsed_only_where_others_have_the_same_outline(monkeypatch):
    parsed = []

    def noting(source):
        parsed.append(source)
        return program_identity(source)

    monkeypatch.setattr(dedupe, "program_identity", noting)
    alone, first, again, reversed_ = "a = b", "c = d # 1", "c = d # 2", "d = c"
    graded(FakeEngine(), programs([alone, first, first, again, reversed_]))
    assert sorted(parsed) == sorted([first, again, reversed_])


def printing(number, status="wrong_answer", characters=2000):
    return {
        "sample_id": str(number),
        "status": status,
        "error": None,
        "stdout_tail": "x" * characters,
        "extraction": None,
    }


@pytest.mark.parametrize("status", ["passed", "wrong_answer"])
def test_only_the_latest_of_verdicts_with_much_printed_text_are_kept(status):
    families = Families(most_printed=10_000)
    dedupe = Deduplicator(families=families)
    for number in range(20):
        given = Program("T/0", str(number), f"x{number} = 1")
        (identity,) = dedupe.identify([given])
        dedupe.admit(given, identity)
        assert dedupe.runnable.popleft() is given
        dedupe.settle(printing(number, status))
    copied = []
    for number in range(20):
        again = Program("T/0", f"again {number}", f"x{number} = 1")
        (identity,) = dedupe.identify([again])
        dedupe.admit(again, identity)
        copied += [number] * len(dedupe.copies)
        dedupe.copies.clear()
    assert copied == [15, 16, 17, 18, 19]
    dedupe.leave()
    assert len(families) == 0
    assert families.printed == 0


def test_all_verdicts_with_little_printed_text_are_kept():
    engine = FakeEngine(printed="x" * 100)
    graded(engine, programs([f"x{number} = 1" for number in range(20)] * 2))
    assert len(engine.ran) == 20


@given(st.lists(st.sampled_from(PASSING + FAILING), max_size=25), st.integers(0, 5), st.integers(0, 6000))
def test_each_sample_gets_its_verdict_however_few_are_kept(sources, seed, most_printed):
    engine = FakeEngine(seed, printed="x" * 2000)
    families = Families(most_printed=most_printed)
    dedupe, verdicts = Deduplicator(families=families), []
    given_programs = programs(sources)
    for program, identity in zip(given_programs, dedupe.identify(given_programs), strict=True):
        dedupe.admit(program, identity)
    while dedupe.runnable:
        verdict = engine.verdict(dedupe.runnable.popleft())
        dedupe.settle(verdict)
        verdicts += [verdict, *dedupe.copies]
        dedupe.copies.clear()
    assert sorted(verdict["sample_id"] for verdict in verdicts) == sorted(p.sample_id for p in given_programs)
    assert dedupe.waiting == 0


def test_programs_are_pulled_lazily():
    pulled = []

    def source():
        for number in range(100):
            pulled.append(number)
            yield Program("T/0", str(number), f"def f(): return {number + 10}")

    verdicts = grade_once(FakeEngine(window=3).grade, source())
    next(verdicts)
    assert len(pulled) <= 4
    verdicts.close()


def test_one_round_is_enough_without_duplicates():
    engine = FakeEngine()
    graded(engine, programs([f"x = {number}" for number in range(20)]))
    assert engine.rounds == 1


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(PASSING + FAILING + ODD)), max_size=25),
    st.integers(0, 5),
    st.integers(1, 6),
    st.sets(st.integers(0, 24), max_size=5),
)
def test_each_sample_gets_one_verdict_and_the_right_one(pairs, seed, window, lost):
    given_programs = [Program(task, str(n), source, None) for n, (task, source) in enumerate(pairs)]
    engine = FakeEngine(seed, window, map(str, lost))
    verdicts = list(grade_once(engine.grade, given_programs))
    assert sorted(verdict["sample_id"] for verdict in verdicts) == sorted(p.sample_id for p in given_programs)
    by_id = {program.sample_id: program for program in given_programs}
    for verdict in verdicts:
        program = by_id[verdict["sample_id"]]
        assert verdict["task_id"] == program.task_id
        if verdict["status"] == "wrong_answer":
            assert verdict["error"] == program.source
        if verdict["status"] == "passed":
            assert program.source in PASSING
        if verdict["status"] == "infrastructure_error":
            assert not verdict["cached"]
    texts = {
        (program.task_id, program.source) for program in engine.ran if program.sample_id not in engine.losses
    }
    unlost = [program for program in engine.ran if program.sample_id not in engine.losses]
    unparsed = [program for program in unlost if program.source in ODD + FAILING[3:]]
    assert len(unlost) - len(unparsed) == len({text for text in texts if text[1] not in ODD + FAILING[3:]})
