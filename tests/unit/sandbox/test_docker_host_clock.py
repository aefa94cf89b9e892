"""Clocks that run while a program only waits for a processor are slowed down to what the host counts."""

import pytest

from grader.sandbox.runner.host_clock import HostClock


def test_without_a_tick_the_clocks_are_believed():
    clock = HostClock()
    assert clock.corrected(0.5) == 0.5
    assert clock.waited == 0


def test_a_starved_container_uses_less_than_its_clocks_show():
    clock = HostClock()
    clock.tick(100.0, 0.0)
    clock.tick(100.1, 0.4)
    before = clock.corrected(0.4)
    assert clock.corrected(1.4) - before == pytest.approx(0.25)
    assert clock.waited == pytest.approx(0.75)


def test_the_containers_own_work_never_makes_a_clock_faster():
    clock = HostClock()
    clock.tick(100.0, 0.0)
    clock.tick(103.0, 0.5)
    assert clock.corrected(1.0) == pytest.approx(1.0)


def test_time_never_runs_backwards():
    clock = HostClock()
    for host, shown in ((5.0, 0.3), (4.0, 0.5), (4.0, 0.2), (6.0, 0.9)):
        before = clock.corrected(0.0)
        clock.tick(host, shown)
        assert clock.corrected(shown) >= before


def test_a_run_begins_at_zero_on_a_machine_as_busy_as_it_was():
    clock = HostClock()
    clock.tick(10.0, 0.0)
    clock.tick(10.5, 1.0)
    clock.begin()
    assert clock.corrected(1.0) == pytest.approx(0.5)
