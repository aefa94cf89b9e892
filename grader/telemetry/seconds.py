"""Histograms of seconds that are cheap to add to: four times a verdict, thousands of times a second.

prometheus-client's own takes a lock and asks each bucket in turn. These belong to one thread, and are handed over to
the library when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Seconds:
    """What was observed under one label. ``bounds`` are the upper bounds of the buckets, in ascending order."""

    __slots__ = ("_bounds", "_counts", "_total_s")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total_s = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count a time, so many ``times``. A bucket has what is at most its bound."""
        self._counts[bisect_left(self._bounds, seconds)] += times
        self._total_s += seconds * times

    def add_to(self, family: HistogramMetricFamily, label: str) -> None:
        """Add the buckets, which are cumulative, and the sum."""
        names = (*map(floatToGoString, self._bounds), "+Inf")
        counts = accumulate(map(float, self._counts))
        family.add_metric([label], list(zip(names, counts, strict=True)), self._total_s)


class SecondsByLabel(Collector):
    """A histogram with one label."""

    def __init__(self, name: str, text: str, label: str, bounds: Sequence[float]) -> None:
        self._name, self._text, self._label, self._bounds = name, text, label, bounds
        self._found: dict[str, Seconds] = {}

    def of(self, value: str) -> Seconds:
        """Return what is observed under this value of the label."""
        found = self._found.get(value)
        if found is None:
            found = self._found[value] = Seconds(self._bounds)
        return found

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Yield the metric without its values."""
        yield self._family()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the metric."""
        family = self._family()
        for value, seconds in self._found.items():
            seconds.add_to(family, value)
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._text, labels=[self._label])
