from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.rewards import GroupFeatures, PassRates, group_features

OUTCOMES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([True, False, None])))


def test_groups_of_which_nothing_can_be_learnt():
    keys = ["a", "b", "a", "c", "b", "c", "d", "d"]
    passed = [True, False, True, True, False, None, None, None]
    found = group_features(keys, passed)
    assert list(found) == ["a", "b", "c", "d"]
    assert [(one.all_pass, one.all_fail, one.pass_rate) for one in found.values()] == [
        (True, False, 1.0),
        (False, True, 0.0),
        (True, False, 1.0),
        (False, False, None),
    ]
    assert found["c"] == GroupFeatures(size=2, judged=1, passed=1)
    assert group_features([], []) == {}
    with pytest.raises(ValueError, match="shorter"):
        group_features(["a", "b"], [True])


@given(OUTCOMES)
def test_counts_add_up(outcomes):
    found = group_features([key for key, _ in outcomes], [one for _, one in outcomes])
    assert sum(one.size for one in found.values()) == len(outcomes)
    assert sum(one.judged for one in found.values()) == sum(one is not None for _, one in outcomes)
    assert not any(one.all_pass and one.all_fail for one in found.values())


def test_pass_rates_follow_a_task():
    rates = PassRates(weight=0.5)
    assert rates.rate("t") is None
    assert rates.update("t", GroupFeatures(2, 0, 0)) is None
    assert rates.update("t", GroupFeatures(2, 2, 1)) == 0.5
    assert rates.update("t", GroupFeatures(1, 1, 1)) == 0.75
    assert rates.update("t", GroupFeatures(2, 2, 0)) == pytest.approx(0.75 * 0.25)
    assert rates.update("t", GroupFeatures(3, 0, 0)) == rates.rate("t")


def test_pass_rates_are_bounded_and_forget_the_oldest():
    rates = PassRates(capacity=2)
    for task in ("a", "b", "a", "c"):
        rates.update(task, GroupFeatures(1, 1, 1))
    assert len(rates) == 2
    assert rates.rate("b") is None
    assert rates.rate("a") == 1.0
    for bad in ({"weight": 0}, {"weight": 1.5}, {"capacity": 0}):
        with pytest.raises(ValueError, match="weight"):
            PassRates(**bad)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(lambda pair: pair[1] <= pair[0])))
def test_a_pass_rate_stays_between_0_and_1(groups):
    rates = PassRates()
    for judged, passed in groups:
        mean = rates.update("t", GroupFeatures(8, judged, passed))
        assert mean is None or 0.0 <= mean <= 1.0
