"""Our histograms show what prometheus-client's own would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from grader.telemetry.metrics import BUCKETS_S
from grader.telemetry.seconds import SecondsByLabel

times = st.one_of(st.sampled_from(BUCKETS_S), st.floats(0, 1e6))


@given(st.lists(st.tuples(st.sampled_from(["humaneval+", 'a "quoted" one', "run"]), times), max_size=30))
def test_it_shows_what_the_library_would(observed: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = SecondsByLabel("a_seconds", "Some times.", "suite", BUCKETS_S)
    ours.register(mine)
    other = Histogram("a_seconds", "Some times.", ["suite"], buckets=BUCKETS_S, registry=theirs)
    for suite, seconds in observed:
        mine.of(suite).observe(seconds)
        other.labels(suite).observe(seconds)
    without_dates = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == without_dates


def test_a_name_is_taken_once() -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SecondsByLabel("a_seconds", "Some times.", "suite", BUCKETS_S))
    try:
        registry.register(SecondsByLabel("a_seconds", "Others.", "suite", BUCKETS_S))
    except ValueError:
        return
    raise AssertionError("two metrics have one name")
