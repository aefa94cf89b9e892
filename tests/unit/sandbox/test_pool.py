"""When a warm pool makes cells; the cells are made up."""

from __future__ import annotations

import contextlib
import threading
import time
from types import SimpleNamespace

import pytest

from grader import api
from grader.sandbox import pool
from grader.sandbox.pool import WarmPool
from grader.sandbox.renewal import Renewal


class Maker:
    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        return SimpleNamespace(check_alive=lambda: None, receive=lambda _: [], close=lambda: None)


@contextlib.contextmanager
def warm(monkeypatch, **options):
    monkeypatch.setattr(pool, "_LOOK_S", 0.01)
    maker = Maker()
    made = WarmPool(maker, Renewal(**options))
    made.enter()
    try:
        yield made, maker
    finally:
        made.close()


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_spare_is_made_as_soon_as_the_first_cell_is_taken(monkeypatch):
    with warm(monkeypatch, spares=2) as (cells, maker):
        cells.take()
        until(lambda: maker.made == 3)


def test_a_short_run_pays_for_no_spare(monkeypatch):
    with warm(monkeypatch, spares_after_s=600.0) as (cells, maker):
        cells.take()
        time.sleep(0.2)
        assert maker.made == 1


def test_a_cell_that_is_asked_for_before_that_is_made_all_the_same(monkeypatch):
    with warm(monkeypatch, spares_after_s=600.0) as (cells, maker):
        cells.take()
        cells.take()
        assert maker.made == 2
        assert cells.take_ready() is None
        until(lambda: maker.made == 3)
        until(lambda: cells.take_ready() is not None)


def test_spares_are_made_when_the_time_has_come(monkeypatch):
    with warm(monkeypatch, spares_after_s=0.3) as (cells, maker):
        cells.take()
        until(lambda: maker.made == 2)


def test_numbers_that_make_no_sense():
    for options in ({"spares": 0}, {"max_age_s": 0}, {"spares_after_s": -1.0}):
        with pytest.raises(ValueError, match=r"must be positive|number of seconds"):
            Renewal(**options)


def test_every_way_to_grade_in_containers_limits_their_age_and_runs(monkeypatch):
    monkeypatch.delenv("GRADER_SANDBOX", raising=False)

    def renewal(sandbox, one_shot=False):
        return api._cells(sandbox, None, None, "namespaces", one_shot, ()).renewal

    assert renewal("docker") == Renewal(spares_after_s=5.0)
    assert renewal("docker", one_shot=True) == Renewal(one_shot=True)
    assert renewal("namespaces") is renewal(None) is None
    monkeypatch.setenv("GRADER_SANDBOX", "docker")
    assert renewal(None) == Renewal(spares_after_s=5.0)


def test_an_error_that_nobody_foresaw_costs_one_cell_and_not_the_pool(monkeypatch, caplog):
    monkeypatch.setattr(pool, "_TRY_AGAIN_S", 0.01)
    closed = []

    def broken(*_):
        raise AttributeError("nobody foresaw this")

    def close():
        closed.append(1)
        broken()

    with warm(monkeypatch, spares=1) as (cells, maker):
        make, cells._make = cells._make, broken
        asked = threading.Thread(target=cells.take)
        asked.start()
        until(lambda: "could not be made" in caplog.text)
        cells._make = lambda: SimpleNamespace(check_alive=broken, receive=lambda _: [], close=close)
        until(lambda: closed)  # looked at, and destroyed
        cells._make = make
        until(lambda: maker.made)
        assert cells.take()
        asked.join()
    assert "could not be looked at" in caplog.text
    assert "could not be destroyed" in caplog.text
