"""Request bodies: streamed, capped, decompressed within bounds, and parsed from bytes."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import zstandard
from fastapi import Request
from pydantic import BaseModel, ValidationError

from grader.limits import MIB
from grader.server.problems import FieldError, Refused
from grader.server.service import service_of
from grader.suites.json_values import MAX_VALUES, has_too_many_values

Model = TypeVar("Model", bound=BaseModel)
Made = TypeVar("Made")

_ENCODINGS = ("gzip", "zstd")
_MAX_ERRORS = 20
# All of them have to be made to see the first; that of so many takes a tenth of a second.
_MAX_BUILT_ERRORS = 10_000
_MAX_PLACE = 200
# RFC 9659: what an HTTP receiver has to support, and need not exceed.
_ZSTD_WINDOW_BYTES = 8 * MIB
# A zstd block of 4 bytes can stand for 128 KiB; so much of one input slice is at most 32 MiB.
_ZSTD_SLICE_BYTES = 1024
_GZIP_SLICE_BYTES = 16 * 1024
# Of gzip's members or zstd's frames. Each takes time, however little it has in it, and senders need one or a few.
_MAX_MEMBERS = 1000
_GZIP = 16 + zlib.MAX_WBITS
_IN_A_THREAD_BYTES = 64 * 1024
_LINGER_S = 5.0
# One: it is work for the interpreter's lock, and what two of the largest bodies become is not in memory at once.
_parsing = ThreadPoolExecutor(1, thread_name_prefix="parsing-bodies")


async def read_model(request: Request, model: type[Model]) -> Model:
    """Read a request's body as JSON into a model.

    Raises Refused: 415 for a content type or an encoding that is not supported, 408 where the body does not come, 413
    where it is too large or has too many values, 400 where it cannot be decoded or is no JSON, 422 with places where it
    is not what is asked.
    """
    return await parsed_aside(await read_body(request), model)


async def read_made(
    request: Request, model: type[Model], make: Callable[[Model], Made]
) -> tuple[Model, Made]:
    """Do as :func:`read_model` does, and return what ``make`` makes of it as well, in a thread unless it is small."""
    body = await read_body(request)

    def both() -> tuple[Model, Made]:
        read = parsed(body, model)
        return read, make(read)

    return await _aside(len(body), both)


async def read_body(request: Request) -> bytes:
    """Read a JSON request's body, decompressed. Raises Refused as :func:`read_model` does."""
    _check_content_type(request.headers.get("content-type", ""))
    encoding = _encoding(request.headers.get("content-encoding", ""))
    body = await _received(request)
    if encoding is None:
        return body
    cap = service_of(request).settings.max_body_bytes
    if len(body) < _IN_A_THREAD_BYTES:
        return decompressed(body, encoding, cap)
    return await asyncio.to_thread(decompressed, body, encoding, cap)


async def parsed_aside(body: bytes, model: type[Model]) -> Model:
    """Do as :func:`parsed` does, in a thread unless the body is small."""
    return await _aside(len(body), partial(parsed, body, model))


async def _aside(size: int, work: Callable[[], Made]) -> Made:
    if size < _IN_A_THREAD_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_parsing, work)


def parsed(body: bytes, model: type[Model]) -> Model:
    """Parse a body into a model. Raises Refused with 413 for too many values, 400 or 422."""
    if has_too_many_values(body):
        said = (
            f"the body has more than {MAX_VALUES} values and names of fields, the most that this server takes"
        )
        raise Refused(f"{said}; send fewer samples at once", status=413)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MAX_BUILT_ERRORS:
            said = f"{error.error_count()} mistakes, too many to list; send a few of the samples to be told which"
            raise Refused(said, place="") from error
        found = error.errors(include_url=False, include_context=False, include_input=False)
        if found[0]["type"] == "json_invalid":
            raise Refused(found[0]["msg"], status=400, place="", title="Malformed JSON") from error
        errors = [FieldError(place_of(one["loc"]), one["msg"]) for one in found[:_MAX_ERRORS]]
        raise Refused(errors=errors) from error


def place_of(location: tuple[int | str, ...]) -> str:
    """Write pydantic's location as a path: ``("samples", 3, "task_id")`` is ``samples[3].task_id``."""
    place = ""
    for part in location:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place[:_MAX_PLACE]


def decompressed(body: bytes, encoding: str, cap: int) -> bytes:
    """Decompress a body, making never much more than ``cap`` bytes. Raises Refused: 413 beyond that, 400 if damaged."""
    try:
        found = _gunzipped(body, cap) if encoding == "gzip" else _unzstd(body, cap)
    except (zlib.error, zstandard.ZstdError) as error:
        raise Refused(f"the body is not the {encoding} that Content-Encoding says", status=400) from error
    if found is None:
        raise Refused(f"the {encoding} body is truncated", status=400)
    return found


def _gunzipped(body: bytes, cap: int) -> bytes | None:
    pieces, size, at, members = [], 0, 0, 1
    member = zlib.decompressobj(_GZIP)
    while at < len(body):
        if member.eof:
            members = _one_more(members)
            member = zlib.decompressobj(_GZIP)
        # In slices, because what is left of the input after a member is copied.
        piece = member.decompress(body[at : at + _GZIP_SLICE_BYTES], cap + 1 - size)
        at = min(at + _GZIP_SLICE_BYTES, len(body)) - len(member.unused_data)
        size += len(piece)
        if size > cap:
            raise _too_large(cap, "decompressed ")
        pieces.append(piece)
    return b"".join(pieces) if member.eof else None


def _unzstd(body: bytes, cap: int) -> bytes | None:
    maker = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    pieces, size, at, frames = [], 0, 0, 1
    frame = maker.decompressobj()
    while at < len(body):
        if frame.eof:
            frames = _one_more(frames)
            frame = maker.decompressobj()
        piece = frame.decompress(body[at : at + _ZSTD_SLICE_BYTES])
        at = min(at + _ZSTD_SLICE_BYTES, len(body)) - len(frame.unused_data)
        size += len(piece)
        if size > cap:
            raise _too_large(cap, "decompressed ")
        pieces.append(piece)
    return b"".join(pieces) if frame.eof else None


def _one_more(members: int) -> int:
    if members == _MAX_MEMBERS:
        raise Refused(f"the body has more than {_MAX_MEMBERS} gzip members or zstd frames", status=400)
    return members + 1


def _check_content_type(given: str) -> None:
    kind, _, parameters = given.partition(";")
    charset = parameters.replace(" ", "").lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        said = f"the Content-Type is {given[:80]!r}" if given else "there is no Content-Type"
        raise Refused(
            f"{said}; send application/json in UTF-8", status=415, headers={"accept": "application/json"}
        )


def _encoding(given: str) -> str | None:
    name = given.strip().lower()
    name = "gzip" if name == "x-gzip" else name
    if name in ("", "identity"):
        return None
    if name not in _ENCODINGS:
        raise Refused(
            f"the Content-Encoding {given[:80]!r} is not supported; use gzip, zstd or none",
            status=415,
            headers={"accept-encoding": ", ".join(_ENCODINGS)},
        )
    return name


async def _received(request: Request) -> bytes:
    settings = service_of(request).settings
    cap = settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > 2 * cap:
        raise _too_large(cap)
    pieces: list[bytes] = []
    size = 0
    now = asyncio.get_running_loop().time
    deadline = now() + settings.body_s
    stream = request.stream()
    try:
        async with asyncio.timeout_at(min(now() + settings.body_idle_s, deadline)) as limit:
            async for piece in stream:
                size += len(piece)
                if size > cap:
                    break
                pieces.append(piece)
                limit.reschedule(min(now() + settings.body_idle_s, deadline))
            else:
                return b"".join(pieces)
    except TimeoutError as error:
        raise Refused("the body did not come in time", status=408, headers={"connection": "close"}) from error
    pieces.clear()
    await _linger(stream, cap)
    raise _too_large(cap)


async def _linger(stream: AsyncIterator[bytes], cap: int) -> None:
    """Read on for a while: a client that is still sending when the connection is closed never sees the answer."""
    try:
        async with asyncio.timeout(_LINGER_S):
            left = cap
            async for piece in stream:
                left -= len(piece)
                if left < 0:
                    return
    except TimeoutError:
        return


def _too_large(cap: int, what: str = "") -> Refused:
    return Refused(
        f"the {what}body is larger than {cap} bytes, the most that this server takes; send fewer samples at once",
        status=413,
        headers={"connection": "close"},
    )
