"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar, Unpack, cast

import httpx

from grader.client import config
from grader.client.bodies import Compression, GivenSamples
from grader.client.calls import Calls, GradeFields
from grader.client.grading import Bounds, Progress
from grader.client.models import GradeResult, Job, RewardsResult, SuiteInfo, TaskInfo
from grader.client.retries import RetryPolicy
from grader.client.steps import Emit, Head, Lost, Read, Send, Step, Steps, Wait
from grader.schema import Summary, Verdict

T = TypeVar("T")


class VerdictStream(Generic[T]):
    """An iterator of verdicts, each as soon as it is known. ``result`` is there when it is exhausted.

    Close it, or use it in a ``with`` statement, to stop before its end: the server then grades no more of it.
    """

    def __init__(self, http: httpx.Client, steps: Steps[T]) -> None:
        self._http = http
        self._steps = steps
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._reply: Head | Lost | bytes | None = None
        self.result: T | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Verdict:
        try:
            while True:
                step = self._steps.send(self._reply)
                if isinstance(step, Emit):
                    self._reply = None
                    return step.verdict
                self._reply = self._carry_out(step)
        except StopIteration as end:
            # A generator that has ended says so again, without its result.
            self.result = end.value if end.value is not None else self.result
            self.close()
            raise StopIteration from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection if an answer is still coming in."""
        self._steps.close()
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _carry_out(self, step: Step) -> Head | Lost | bytes | None:
        try:
            if isinstance(step, Send):
                self._drop()
                self._response = self._http.send(config.request_for(self._http, step), stream=True)
                self._pieces = self._response.iter_bytes()
                return config.head_of(self._response)
            if isinstance(step, Read):
                return next(self._pieces, b"")
        except httpx.RequestError as error:
            self._drop()
            return config.lost(error)
        if isinstance(step, Wait):
            self._drop()
            time.sleep(step.seconds)
        return None

    def _drop(self) -> None:
        if self._response is not None:
            with suppress(httpx.RequestError):
                self._response.close()
            self._response = None
            self._pieces = iter(())


class GraderClient:
    """Talks to a grader service, or to several that stand for each other.

    ``url``: the service's URL, or several, tried in an order that the request decides; default ``GRADER_URL``.
    ``api_key``: default ``GRADER_API_KEY``. ``retries`` says how often and how long a request is tried;
    ``timeouts`` bounds connecting, sending and silence; ``bounds`` is what one request may hold at most: a
    larger batch is sent in several. ``compression`` of large requests: ``auto``, ``zstd``, ``gzip`` or
    ``none``. ``transport``: an httpx transport of your own, e.g. with a company's certificates. May be used by
    several threads. Close it, or use it in a ``with`` statement.

    Raises InputError where these cannot be used. Every call may raise RequestRefused, ServerUnavailable and
    ServerFailed: see ``grader.client.errors``.
    """

    def __init__(
        self,
        url: config.Urls | None = None,
        *,
        api_key: str | None = None,
        retries: RetryPolicy | None = None,
        timeouts: config.Timeouts | None = None,
        bounds: Bounds | None = None,
        compression: Compression = "auto",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        made = config.make_config(url, api_key, timeouts)
        self._calls = Calls.of(made.urls, retries, bounds, compression)
        own = httpx.HTTPTransport(**config.transport_options()) if config.goes_direct() else None
        self._http = httpx.Client(**made.http_options(), transport=transport or own)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def grade(
        self,
        samples: GivenSamples,
        suite: str | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[GradeFields],
    ) -> GradeResult:
        """Grade samples; returns their verdicts in the order of the samples, and the summary.

        ``samples`` are ``schema.Sample`` objects or mappings with ``task_id``, ``solution`` or ``completion``, and
        optionally ``sample_id`` and ``tests``. ``options`` are the other fields of ``POST /v1/grade``: see
        ``GradeFields``. ``progress(done, total)`` is called at the beginning and with each verdict.

        Raises SampleError, before anything is sent, for samples that no server would take.
        """
        grading = self._calls.grading(samples, suite, options, progress)
        with VerdictStream(self._http, grading.steps()) as stream:
            by_id = {verdict.sample_id: verdict for verdict in stream}
        verdicts = tuple(by_id[sample.sample_id] for sample in grading.samples)
        return GradeResult(verdicts, cast(Summary, stream.result))

    def stream(
        self,
        samples: GivenSamples,
        suite: str | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[GradeFields],
    ) -> VerdictStream[Summary]:
        """Grade samples; yields each verdict once, as soon as it is known. The stream's ``result`` is the summary.

        Takes what ``grade`` takes.
        """
        return VerdictStream(self._http, self._calls.grading(samples, suite, options, progress).steps())

    def rewards(self, *, idempotency_key: str | None = None, **fields: Any) -> RewardsResult:
        """Send ``fields`` to ``POST /v1/rewards`` as they are; returns rewards in the order of the completions."""
        return self._run(self._calls.rewards(fields, idempotency_key))

    def submit_job(
        self,
        samples: GivenSamples,
        suite: str | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[GradeFields],
    ) -> Job:
        """Give the server a batch to grade in the background; once this returns, the job survives its restarts.

        Takes what ``grade`` takes. With an ``idempotency_key`` of your own, a program that was
        restarted gets the job that it made before. A job is not split: RequestTooLarge is raised for one that the
        server does not take.
        """
        return self._run(self._calls.submit_job(samples, suite, options, idempotency_key))

    def job(self, job_id: str) -> Job:
        """Return how a job is. Raises NotFound."""
        return self._run(self._calls.job(job_id))

    def job_verdicts(self, job_id: str, cursor: int = 0, *, follow: bool = False) -> VerdictStream[int]:
        """Yield the verdicts that a job has, from ``cursor`` on, in the order in which they were recorded.

        ``follow``: go on with those that come until the job has ended. After a lost connection it goes on where it was.
        The stream's ``result`` is the cursor to go on from later.
        """
        return VerdictStream(self._http, self._calls.job_verdicts(job_id, cursor, follow))

    def wait_job(self, job_id: str, progress: Progress | None = None) -> Job:
        """Return the job when it has ended, well or not: see its ``state``. ``progress(done, total)``."""
        return self._run(self._calls.wait_job(job_id, progress))

    def delete_job(self, job_id: str) -> None:
        """Delete a job and its verdicts; what is left of it is not graded. Raises NotFound."""
        self._run(self._calls.delete_job(job_id))

    def suites(self) -> list[SuiteInfo]:
        """Return the suites that requests can name."""
        return self._run(self._calls.suites())

    def tasks(self, suite: str) -> list[TaskInfo]:
        """Return the tasks of a suite, in its order. Raises NotFound."""
        return self._run(self._calls.tasks(suite))

    def _run(self, steps: Steps[T]) -> T:
        with VerdictStream(self._http, steps) as stream:
            for _ in stream:
                pass
        return cast(T, stream.result)
