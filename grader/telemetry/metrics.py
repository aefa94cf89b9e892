"""Prometheus metrics of the service, in a registry of their own: two services in one process do not meet.

No label has a value that an outsider can make up: suites and tenants that are not configured are ``other``, routes are
templates, methods and reasons are from fixed lists. docs/metrics.md lists every metric.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from grader.status import Status
from grader.telemetry.seconds import Seconds, SecondsByLabel
from grader.version import __version__

# From what a trivial sample takes to the longest that a test group may run; about three a decade.
BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
OTHER = "other"
INLINE_SUITE = "inline"
RUN = "run"  # in the place of a suite, for programs that are run and not judged
ANONYMOUS = "anonymous"
PRIORITIES = ("interactive", "background")
STATES = ("starting", "ready", "busy", "lost")
WORKER_STATES = (*STATES, "refused")
ENDS = (
    "exited",
    "signalled",
    "time_limit",
    "memory_limit",
    "output_limit",
    "stopped",
    "not_started",
    "failed",
)
RETRY_REASONS = ("worker_lost", "cell_lost", "blamed", "put_back", "hedged")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
CLIENT_GONE = "gone"
_STATUSES = frozenset(map(str, Status))


class Pool(Protocol):
    """How workers and queue are: the fields of ``dispatch.contract.PoolState`` that are shown."""

    @property
    def workers(self) -> Mapping[str, int]:
        """Workers by state."""

    @property
    def cells(self) -> Mapping[str, int]:
        """Cells by state."""

    @property
    def queued(self) -> Mapping[Any, int]:
        """Waiting samples by (tenant, priority)."""

    @property
    def running(self) -> int:
        """Samples that are being graded."""

    @property
    def retries(self) -> Mapping[str, int]:
        """Samples that were given to another worker since the start, by reason."""

    @property
    def failure(self) -> str | None:
        """Why nothing can be graded, or None."""


class Metrics:
    """The service's metrics. ``suites`` and ``tenants`` are the names that may be labels.

    ``tenants`` can be set anew when the file of API keys is read again. Belongs to one thread.
    """

    def __init__(self, *, suites: Iterable[str] = (), tenants: Iterable[str] = ()) -> None:
        self.registry = _Registry(auto_describe=False)
        self._suites = frozenset({*suites, INLINE_SUITE})
        self._by_suite: dict[str, _OfSuite] = {}
        self._pool = _PoolCollector(tenants)
        self._make_of_samples()
        self._make_of_requests()
        self.registry.register(self._pool)
        ProcessCollector(registry=self.registry)
        build = Gauge(
            "grader_build_info", "The grader's version and its Python; always 1.", ["version", "python"],
            registry=self.registry,
        )  # fmt: skip
        build.labels(__version__, platform.python_version()).set(1)

    @property
    def tenants(self) -> frozenset[str]:
        """The tenants that are shown by their names."""
        return self._pool.tenants

    @tenants.setter
    def tenants(self, names: Iterable[str]) -> None:
        self._pool.tenants = frozenset({*names, ANONYMOUS})

    def verdicts(self, verdicts: Sequence[Mapping[str, Any]], *, suite: str, end_to_end_s: float) -> None:
        """Count verdicts (fields of ``schema.Verdict``) that came at the same time, and observe their times.

        ``end_to_end_s``: seconds from the request to the verdicts; a program had waited for those in which it was not
        graded. Of a cached verdict only the end to end is observed: its program's time was spent, and counted, once.
        One that could not be graded has waited, perhaps until its deadline, but has no times of grading.
        """
        of = self._of_suite(suite if suite in self._suites else OTHER)
        of.end_to_end.observe(end_to_end_s, len(verdicts))
        statuses: dict[str, int] = {}
        for verdict in verdicts:
            status = verdict["status"]
            statuses[status] = statuses.get(status, 0) + 1
            if verdict["cached"]:
                of.cache_hits.inc()
                continue
            of.queue_wait.observe(max(0.0, end_to_end_s - verdict["wall_s"]))
            if status != Status.INFRASTRUCTURE_ERROR:
                of.wall.observe(verdict["wall_s"])
                of.cpu.observe(verdict["cpu_s"])
        for status, count in statuses.items():
            of.verdicts[status if status in _STATUSES else OTHER].inc(count)

    def run(
        self, ended: str, end_to_end_s: float, *, wall_s: float | None = None, cpu_s: float | None = None
    ) -> None:
        """Count a program that was to be run and not judged; its times, if it was run, are those of the suite "run"."""
        self._runs.labels(ended if ended in ENDS else OTHER).inc()
        if wall_s is not None and cpu_s is not None:
            self._end_to_end.of(RUN).observe(end_to_end_s)
            self._queue_wait.of(RUN).observe(max(0.0, end_to_end_s - wall_s))
            self._wall.of(RUN).observe(wall_s)
            self._cpu.of(RUN).observe(cpu_s)

    def refused(self, route: str) -> None:
        """Count a request that was sent away because there is no room now. ``route`` is a template."""
        self._refusals.labels(route).inc()

    def bad_request(self, route: str) -> None:
        """Count a request that was refused for what is wrong with it. ``route`` is a template."""
        self._bad_requests.labels(route).inc()

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an HTTP request. ``route`` is a template; ``status`` is 0 where the client left before it had one."""
        group = CLIENT_GONE if status == 0 else STATUS_CLASSES[min(max(status // 100, 1), 5) - 1]
        known = method if method in METHODS else OTHER
        self._requests.labels(route, known, group).inc()
        self._request_seconds.labels(route, known).observe(seconds)

    def pool(self, state: Pool) -> None:
        """Take how workers and queue are now; shown until the next call. A scrape itself asks nobody."""
        self._pool.take(state)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics and their media type, in the format that an ``Accept`` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _of_suite(self, name: str) -> _OfSuite:
        # Looking a label up costs as much as counting; there are thousands of verdicts a second.
        found = self._by_suite.get(name)
        if found is None:
            found = self._by_suite[name] = _OfSuite(
                {status: self._verdicts.labels(name, status) for status in (*_STATUSES, OTHER)},
                self._cache_hits.labels(name),
                self._queue_wait.of(name),
                self._wall.of(name),
                self._cpu.of(name),
                self._end_to_end.of(name),
            )
        return found

    def _make_of_samples(self) -> None:
        def seconds(name: str, text: str) -> SecondsByLabel:
            found = SecondsByLabel(name, text, "suite", BUCKETS_S)
            self.registry.register(found)
            return found

        self._verdicts = Counter(
            "grader_verdicts_total", "Verdicts by status.", ["suite", "status"], registry=self.registry
        )
        self._runs = Counter(
            "grader_runs_total", "Programs that were to be run without being judged, by how they ended.", ["ended"],
            registry=self.registry,
        )  # fmt: skip
        self._cache_hits = Counter(
            "grader_cache_hits_total", "Verdicts that were taken from an identical program's.", ["suite"],
            registry=self.registry,
        )  # fmt: skip
        self._queue_wait = seconds("grader_queue_wait_seconds", "From a request to the start of its program.")
        self._wall = seconds("grader_grading_wall_seconds", "Wall-clock time of grading one sample.")
        self._cpu = seconds("grader_grading_cpu_seconds", "CPU time of one sample's program.")
        self._end_to_end = seconds("grader_end_to_end_seconds", "From a request to a sample's verdict.")

    def _make_of_requests(self) -> None:
        self._requests = Counter(
            "grader_http_requests_total", "HTTP requests by route, method and class of status.",
            ["route", "method", "status"], registry=self.registry,
        )  # fmt: skip
        self._request_seconds = Histogram(
            "grader_http_request_seconds", "From a request's head to the end of its answer.", ["route", "method"],
            buckets=BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._refusals = Counter(
            "grader_backpressure_refusals_total", "Requests that were sent away because the queue was full.",
            ["route"], registry=self.registry,
        )  # fmt: skip
        self._bad_requests = Counter(
            "grader_bad_requests_total", "Requests for rewards or of foreign APIs with a mistake in them.", ["route"],
            registry=self.registry,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _OfSuite:
    """The metrics of one suite."""

    verdicts: Mapping[str, Counter]
    cache_hits: Counter
    queue_wait: Seconds
    wall: Seconds
    cpu: Seconds
    end_to_end: Seconds


class _Registry(CollectorRegistry):
    """A registry without the times at which counters were made: one more series each, that nobody asks for."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            if metric.samples:
                yield metric


class _PoolCollector(Collector):
    """Shows the state that was taken last."""

    def __init__(self, tenants: Iterable[str]) -> None:
        self.tenants = frozenset({*tenants, ANONYMOUS})
        self._state: Pool | None = None
        self._taken_at = 0.0

    def take(self, state: Pool) -> None:
        self._state = state
        self._taken_at = time.time()

    def collect(self) -> Iterator[Metric]:
        state = self._state
        if state is None:
            return
        queued = GaugeMetricFamily(
            "grader_queue_depth_samples", "Samples that wait to be graded.", labels=["tenant", "priority"]
        )
        for (tenant, priority), count in sorted(self._queued(state).items()):
            queued.add_metric([tenant, priority], count)
        yield queued
        yield _by_label(
            "grader_workers", "Workers by state.", "state", _counted(state.workers, WORKER_STATES)
        )
        yield _by_label("grader_cells", "Cells by state.", "state", _counted(state.cells, STATES))
        yield GaugeMetricFamily("grader_running_samples", "Samples that are being graded.", state.running)
        failed = float(state.failure is not None)
        yield GaugeMetricFamily("grader_pool_failed", "1 where no worker can work, else 0.", failed)
        yield GaugeMetricFamily(
            "grader_pool_observed_timestamp_seconds", "When the state of the pool was taken.", self._taken_at
        )
        retries = CounterMetricFamily(
            "grader_retries", "Samples that were given to another worker, by reason.", labels=["reason"]
        )
        for reason, count in _counted(state.retries, RETRY_REASONS).items():
            retries.add_metric([reason], count)
        yield retries

    def _queued(self, state: Pool) -> dict[tuple[str, str], int]:
        # Every configured tenant is shown, also with an empty queue: a line that comes and goes cannot be alerted on.
        found = {(tenant, priority): 0 for tenant in self.tenants for priority in PRIORITIES}
        for (tenant, priority), count in state.queued.items():
            name = tenant if tenant in self.tenants else OTHER
            key = name, priority if priority in PRIORITIES else OTHER
            found[key] = found.get(key, 0) + count
        return found


def _counted(counts: Mapping[str, int], known: Iterable[str]) -> dict[str, int]:
    found = dict.fromkeys(known, 0)
    for name, count in counts.items():
        key = name if name in found else OTHER
        found[key] = found.get(key, 0) + count
    return found


def _by_label(name: str, text: str, label: str, counts: Mapping[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
