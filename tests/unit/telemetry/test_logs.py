"""What is logged, and above all what is not."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from grader.errors import InputError
from grader.telemetry import logs

SECRET = "def marker_of_a_program(): ..."


class Output(io.StringIO):
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


class Terminal(Output):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def former_logging() -> Iterator[None]:
    """What logging was before the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def output() -> Output:
    made = Output()
    logs.configure(stream=made)
    return made


def test_a_line_is_a_json_object_with_ids(output: Output) -> None:
    async def work() -> None:
        structlog.get_logger("grader.server").info("graded", samples=3)

    async def request() -> None:
        with logs.bound(request_id="r1", job_id="j1"), logs.bound(sample_id="s1", worker_id="w1"):
            await asyncio.create_task(work())
        structlog.get_logger("grader.server").info("after")

    asyncio.run(request())
    graded, after = output.lines()
    assert graded.pop("time").endswith("Z")
    assert graded == {
        "event": "graded", "level": "info", "logger": "grader.server", "samples": 3,
        "request_id": "r1", "job_id": "j1", "sample_id": "s1", "worker_id": "w1",
    }  # fmt: skip
    assert "request_id" not in after


def test_the_standard_librarys_logs_come_out_alike(output: Output) -> None:
    with logs.bound(request_id="r2"):
        logging.getLogger("uvicorn.error").warning("listening on %s", "here")
    assert output.lines()[0] | {"time": ""} == {
        "event": "listening on here", "level": "warning", "logger": "uvicorn.error", "request_id": "r2", "time": "",
    }  # fmt: skip


def test_levels() -> None:
    output = Output()
    logs.configure("WARNING", stream=output)
    structlog.get_logger("a").info("not shown")
    logging.getLogger("b").info("not shown")
    structlog.get_logger("a").warning("shown")
    logs.configure("info", stream=output)
    structlog.get_logger("a").info("shown once")
    assert [line["event"] for line in output.lines()] == ["shown", "shown once"]
    with pytest.raises(InputError, match="unknown log level 'loud'; give one of debug"):
        logs.configure("loud")


def test_a_terminal_gets_lines_for_people() -> None:
    terminal = Terminal()
    logs.configure(stream=terminal)
    structlog.get_logger("a").info("for \x1b]0;people\x07", path="/\x1b[2J")
    shown = terminal.getvalue()
    assert "\\x1b]0;people\\x07" in shown
    assert "\x1b[2J" not in shown
    with pytest.raises(json.JSONDecodeError):
        json.loads(shown)


def test_programs_and_keys_are_left_out(output: Output) -> None:
    sample = {"task_id": "T/0", "solution": SECRET, "nested": [{"completion": SECRET}]}
    structlog.get_logger("a").error("refused", sample=sample, prompt=SECRET, api_key="grd_" + "x" * 40)
    structlog.get_logger("a").error(
        "header was Bearer abc.def-ghi, key grd_" + "y" * 43, url="postgresql://me:hunter2@db/grader"
    )
    logging.getLogger("b").error("authorization: %s", "bearer abc.def-ghi")
    text = output.getvalue()
    for secret in (SECRET, "abc.def-ghi", "grd_x", "grd_y", "hunter2"):
        assert secret not in text
    assert output.lines()[0]["sample"]["task_id"] == "T/0"
    assert f"{len(SECRET)} characters" in text


def test_an_exception_has_places_but_no_source(output: Output) -> None:
    class Request(BaseModel):
        samples: int

    for provoke in (lambda: ast.parse(SECRET + ")"), lambda: Request.model_validate({"samples": SECRET})):
        try:
            provoke()
        except (SyntaxError, ValidationError) as cause:
            try:
                raise RuntimeError("could not be done") from cause
            except RuntimeError:
                structlog.get_logger("a").exception("failed")
                logging.getLogger("b").exception("failed")
    text = output.getvalue()
    assert "marker_of_a_program" not in text
    for line in output.lines():
        assert line["exception"][0]["kind"] == "RuntimeError"
        assert line["exception"][1]["kind"] in ("SyntaxError", "ValidationError")
        assert "test_logs.py:" in line["exception"][0]["frames"][0]


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none()
            | st.booleans()
            | st.floats()
            | st.text(st.characters(), max_size=20)
            | st.binary(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
            ),
        ),
        max_size=5,
    )
)
def test_whatever_is_logged_is_one_line(fields: dict[str, Any]) -> None:
    output = Output()
    logs.configure(stream=output)
    given_fields = {
        name: value for name, value in fields.items() if name not in ("event", "exc_info", "stack_info")
    }
    structlog.get_logger("a").info(
        "x\nlong" * 2000, **{f"f{name}": value for name, value in given_fields.items()}
    )
    (line,) = output.getvalue().splitlines()
    json.loads(line)
    assert len(line) < 200_000


def test_a_stream_that_nobody_reads_ends_nothing(output: Output) -> None:
    output.close()
    structlog.get_logger("grader.server").info("said to nobody")


def test_a_level_is_of_the_standard_librarys_logger(output: Output) -> None:
    logging.getLogger("grader.quiet").setLevel(logging.ERROR)
    structlog.get_logger("grader.quiet").warning("unsaid")
    structlog.get_logger("grader.quiet").error("said")
    logging.getLogger("grader.quiet").setLevel(logging.NOTSET)
    assert [line["event"] for line in output.lines()] == ["said"]
