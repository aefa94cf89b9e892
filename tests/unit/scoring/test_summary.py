import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.limits import Limits
from grader.schema import SuiteIdentity
from grader.scoring import pass_at_k
from grader.scoring.summary import Tally, summarize


def verdict(task="T/0", base="passed", plus="passed", status=None, **fields):
    groups = {}
    for name, found in (("base", base), ("plus", plus)):
        if found != "absent":
            groups[name] = found and {"status": found, "passed": 1, "total": 1, "first_failed": None}
    bad = [found for found in (base, plus) if found not in ("passed", "absent", None)]
    status = status or (bad[0] if bad else "passed")
    return {"task_id": task, "status": status, "groups": groups, "cpu_s": 1.0, "cached": False, **fields}


def summary(verdicts, ks=(1, 2), groups=("base", "plus"), wall_s=2.0, resumed=()):
    tally = Tally(groups)
    for found in resumed:
        tally.add(found, resumed=True)
    for found in verdicts:
        tally.add(found)
    return summarize(
        tally,
        suite=SuiteIdentity(name="s", version="1", sha256="0"),
        ks=ks,
        wall_s=wall_s,
        limits=Limits(),
        sandbox={"backend": "fake", "layers": ["none"]},
        engine="local",
        workers=2,
    )


def test_plus_means_base_and_plus():
    found = summary(
        [
            verdict(),
            verdict(base="wrong_answer", plus=None),
            verdict(base="wrong_answer"),
            verdict(plus="time_limit"),
        ]
    )
    assert found.pass_at_k["base"]["1"] == 0.5
    assert found.pass_at_k["plus"]["1"] == 0.25
    assert found.pass_hat_k["base"]["2"] == pytest.approx(1 / 6)
    assert found.statuses == {"passed": 1, "wrong_answer": 2, "time_limit": 1}


def test_only_requested_groups_count():
    assert summary([verdict(base="absent")], groups=("plus",)).pass_at_k == {"plus": {"1": 1.0, "2": None}}


def test_a_group_that_a_task_does_not_have_is_passed_over():
    found = summary([verdict(base="absent"), verdict("T/1", plus="absent")], ks=(1,))
    assert found.pass_at_k == {"base": {"1": 1.0}, "plus": {"1": 1.0}}


def test_k_above_the_smallest_n_is_unavailable():
    found = summary([verdict("T/0"), verdict("T/0"), verdict("T/1")], ks=(1, 2))
    assert found.pass_at_k["base"] == {"1": 1.0, "2": None}
    assert found.pass_hat_k["base"] == {"1": 1.0, "2": None}
    assert found.pass_at_k_ci95["base"] == {"1": (1.0, 1.0), "2": None}


def test_infrastructure_errors_are_left_out_of_n_and_counted():
    lost = verdict(base=None, plus=None, status="infrastructure_error")
    found = summary([verdict(), lost, verdict(base="wrong_answer", plus=None)], ks=(1, 3))
    assert found.pass_at_k["base"] == {"1": 0.5, "3": None}
    assert found.infrastructure_errors == 1
    assert found.statuses["infrastructure_error"] == 1
    assert found.samples == 3


def test_a_task_that_could_not_be_judged_at_all_makes_no_number():
    lost = verdict("T/1", base=None, plus=None, status="infrastructure_error")
    assert summary([verdict("T/0"), lost]).pass_at_k["base"] == {"1": None, "2": None}


def test_times_count_what_ran():
    found = summary([verdict(), verdict(cached=True)], resumed=[verdict()])
    assert found.cpu_s == 2.0
    assert found.samples_per_s == 1.0  # two in this run's 2 s


@given(
    st.dictionaries(
        st.sampled_from(["T/0", "T/1", "T/2"]), st.lists(st.booleans(), min_size=1, max_size=6), min_size=1
    ),
    st.integers(1, 6),
)
def test_the_mean_is_over_tasks_whatever_their_n(outcomes, k):
    found = summary(
        [
            verdict(task, base="passed" if passed else "runtime_error")
            for task, outcome in outcomes.items()
            for passed in outcome
        ],
        ks=(k,),
    )
    smallest = min(map(len, outcomes.values()))
    expected = None
    if k <= smallest:
        each = [pass_at_k(len(outcome), sum(outcome), k) for outcome in outcomes.values()]
        expected = pytest.approx(sum(each) / len(each))
    assert found.pass_at_k["base"][str(k)] == expected
