"""Logs to standard error: one JSON object a line, or coloured lines where a person looks on.

Both structlog's loggers and the standard library's (uvicorn's, other packages') come out alike. A program under test,
a model's answer or a key is never in them: fields that hold such are left out by their names, keys are masked
wherever they are, tracebacks have no line of source, and every text has a bound.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from grader.errors import InputError

LEVELS = ("debug", "info", "warning", "error", "critical")
MAX_TEXT_CHARACTERS = 2000
_MAX_ITEMS = 50
_MAX_DEPTH = 4
_MAX_FRAMES = 30

# What these hold was written by a model or a user, or opens a door.
LEFT_OUT = frozenset({
    "solution", "completion", "completions", "program", "source", "code", "prompt", "prompts", "messages", "tests",
    "stdin", "stdout", "stdout_tail", "expected", "reference", "body", "response", "samples_text",
    "api_key", "authorization", "password", "secret", "token", "cookie", "idempotency_key",
})  # fmt: skip
_SECRETS = re.compile(
    r"(?i:\b(bearer|basic)\s+)[\w.~+/=-]+"  # an Authorization header
    r"|\bgrd_[\w-]{8,}"  # our own API keys
    r"|(?<=://)[^\s/@:]+:[^\s/@]+(?=@)"  # name and password in a URL
)
# pydantic's errors quote what they were given.
_QUOTED_INPUT = re.compile(r"input_value=.*?(?=, input_type=)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def configure(level: str = "info", *, stream: TextIO | None = None, json: bool | None = None) -> None:
    """Send all logs of this process to ``stream`` (default: standard error), from ``level`` up.

    ``json``: whether as JSON; by default unless the stream is a terminal. May be called again. Raises InputError for an
    unknown level.
    """
    if level.lower() not in LEVELS:
        raise InputError(f"unknown log level {level!r}; give one of {', '.join(LEVELS)}")
    target = sys.stderr if stream is None else stream
    as_json = not target.isatty() if json is None else json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _describe_exception,
        _leave_out_and_bound,
    ]
    render: list[Processor] = (
        [structlog.processors.JSONRenderer(default=str)]
        if as_json
        else [_printable, structlog.dev.ConsoleRenderer(colors=target.isatty(), timestamp_key="time")]
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    for former in root.handlers[:]:
        if isinstance(former.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, *render],
        logger_factory=lambda *names: _Lines(handler, *names),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class _Lines:
    """What our own loggers write finished lines with, between those of a handler.

    The standard library would make a record of each line and format that, which doubles what it costs.
    """

    def __init__(self, handler: logging.StreamHandler[TextIO], name: str = "") -> None:
        self._handler = handler
        self.name = name
        self.disabled = False
        self.getEffectiveLevel = logging.getLogger(name).getEffectiveLevel

    def _write(self, line: str) -> None:
        handler = self._handler
        handler.acquire()
        try:
            handler.stream.write(f"{line}\n")
            handler.stream.flush()
        except (OSError, ValueError):  # nobody reads, or it is closed: no reason to end what is being done
            pass
        finally:
            handler.release()

    debug = info = warning = error = critical = exception = _write


@contextmanager
def bound(
    *,
    request_id: str | None = None,
    job_id: str | None = None,
    sample_id: str | None = None,
    worker_id: str | None = None,
) -> Iterator[None]:
    """Put ids into every line that is logged in this context, and in tasks that are started in it."""
    ids = {"request_id": request_id, "job_id": job_id, "sample_id": sample_id, "worker_id": worker_id}
    given = {name: value for name, value in ids.items() if value is not None}
    with structlog.contextvars.bound_contextvars(**given):
        yield


def _describe_exception(logger: Any, method: str, event: EventDict) -> EventDict:
    """Turn ``exc_info`` into types, messages and places, without source: a SyntaxError has the program's."""
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else None
    if given is True:
        error = sys.exc_info()[1]
    elif isinstance(given, tuple) and len(given) == 3:
        error = given[1]
    if error is not None:
        event["exception"] = [_described(link) for link in _chain(error)]
    return event


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen and len(seen) < _MAX_DEPTH:
        yield link
        seen.add(id(link))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _described(error: BaseException) -> dict[str, Any]:
    frames = [
        f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return {
        "kind": type(error).__name__,
        "message": _QUOTED_INPUT.sub("input_value=<left out>", str(error)),
        "frames": frames[-_MAX_FRAMES:],
    }


def _leave_out_and_bound(logger: Any, method: str, event: EventDict) -> EventDict:
    return {name: _safe(name, value, 0) for name, value in event.items()}


def _safe(name: str, value: Any, depth: int) -> Any:
    if name.startswith("_"):  # structlog's own, which does not come out
        return value
    if name.lower() in LEFT_OUT and value is not None:
        size = f", {len(value)} characters" if isinstance(value, str) else ""
        return f"<left out{size}>"
    if isinstance(value, str):
        return _safe_text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= _MAX_DEPTH:
        return "<nested too deeply>"
    if isinstance(value, Mapping):
        pairs = list(value.items())[:_MAX_ITEMS]
        return {str(key): _safe(str(key), item, depth + 1) for key, item in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [_safe("", item, depth + 1) for item in list(value)[:_MAX_ITEMS]]
    return _safe_text(str(value))


def _safe_text(text: str) -> str:
    if len(text) > MAX_TEXT_CHARACTERS:
        text = f"{text[:MAX_TEXT_CHARACTERS]}... <{len(text) - MAX_TEXT_CHARACTERS} more>"
    # A lone half of a surrogate pair could not be written.
    text = text.encode("utf-8", "backslashreplace").decode()
    return _SECRETS.sub("<secret>", text)


def _printable(logger: Any, method: str, event: EventDict) -> EventDict:
    """Escape what would move a terminal's cursor or change its title."""
    return {
        name: _CONTROL.sub(lambda found: ascii(found[0])[1:-1], value) if isinstance(value, str) else value
        for name, value in event.items()
    }
