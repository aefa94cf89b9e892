import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.scoring.bootstrap import RESAMPLES, _draws, bootstrap_ci95

values = st.floats(0, 1)


@given(st.integers(2, 30).flatmap(lambda n: st.lists(st.lists(values, min_size=n, max_size=n), max_size=4)))
def test_each_column_is_as_if_it_were_alone(columns):
    together = bootstrap_ci95(columns)
    for column, interval in zip(columns, together, strict=True):
        assert interval == pytest.approx(bootstrap_ci95([column])[0])
        assert min(column) - 1e-9 <= interval[0] <= interval[1] <= max(column) + 1e-9


def test_it_is_the_plain_percentile_bootstrap():
    column = [0.0, 0.2, 0.9, 1.0, 0.5]
    drawn = _draws(5)
    resamples = [[column[task] for task in drawn[begin : begin + 5]] for begin in range(0, len(drawn), 5)]
    means = sorted(map(statistics.fmean, resamples))
    assert len(means) == RESAMPLES
    assert bootstrap_ci95([column]) == [pytest.approx((means[25], means[-26]))]


@pytest.mark.parametrize("tasks", [2, 3, 129, 164, 255, 256])
def test_every_task_is_as_likely_to_be_drawn_as_the_others(tasks):
    counts = Counter(_draws(tasks))
    assert sorted(counts) == list(range(tasks))
    # Pearson's statistic is near its degrees of freedom, with a standard deviation of the root of twice that.
    statistic = sum((count - RESAMPLES) ** 2 / RESAMPLES for count in counts.values())
    assert statistic < tasks - 1 + 5 * (2 * (tasks - 1)) ** 0.5


def test_same_input_same_interval():
    column = [i % 3 / 2 for i in range(40)]
    assert bootstrap_ci95([column]) == bootstrap_ci95([column])


def test_the_interval_has_the_width_of_theory():
    (interval,) = bootstrap_ci95([[1.0] * 200 + [0.0] * 200])
    expected = 1.96 * (0.25 / 400) ** 0.5
    assert interval == pytest.approx((0.5 - expected, 0.5 + expected), abs=0.01)


@pytest.mark.parametrize("columns", [[[0.5]], [[]], [[1.0], [0.0]]])
def test_fewer_than_two_tasks_have_no_interval(columns):
    assert bootstrap_ci95(columns) == [None] * len(columns)


def test_no_columns():
    assert bootstrap_ci95([]) == []
