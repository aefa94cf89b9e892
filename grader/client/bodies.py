"""Request bodies: samples are checked and encoded once, put together in parts, and compressed where that pays."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from grader.client.steps import Request
from grader.errors import InputError, SampleError
from grader.schema import Sample

Compression = Literal["auto", "zstd", "gzip", "none"]
GivenSamples = Iterable[Sample | Mapping[str, Any]]

# Below this, compressing costs more than the bytes that it saves: a sample is 1 to 2 kB.
COMPRESSED_FROM_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample as the JSON that the server gets, and the ids by which its verdict is known."""

    sample_id: str
    json: bytes


def encode_samples(samples: GivenSamples) -> list[EncodedSample]:
    """Check and encode samples; one without ``sample_id`` gets ``<task_id>:<n>``, as in sample files.

    Raises SampleError, naming the sample by its number from 1, for one that no server would take.
    """
    occurrences: Counter[str] = Counter()
    places: dict[str, int] = {}
    encoded = []
    for number, sample in enumerate(samples, 1):
        row = sample.model_dump(exclude_none=True) if isinstance(sample, Sample) else sample
        place = f"sample {number}"
        if not isinstance(row, Mapping) or not isinstance(row.get("task_id"), str):
            raise SampleError(f"{place}: a sample is an object with task_id and solution or completion")
        if (row.get("solution") is None) == (row.get("completion") is None):
            raise SampleError(f"{place}: give exactly one of solution and completion")
        task_id, sample_id = row["task_id"], row.get("sample_id")
        if sample_id is None:
            sample_id = f"{task_id}:{occurrences[task_id]}"
        occurrences[task_id] += 1
        if not isinstance(sample_id, str):
            raise SampleError(
                f"{place}: sample_id is a {type(sample_id).__name__}; give a string or leave it out"
            )
        if sample_id in places:
            raise SampleError(
                f"{place}: sample_id {sample_id!a} was used before, by sample {places[sample_id]}"
            )
        places[sample_id] = number
        encoded.append(EncodedSample(sample_id, encode_json({**row, "sample_id": sample_id}, place)))
    if not encoded:
        raise SampleError("there is no sample to grade; give at least one")
    return encoded


def encode_json(value: Any, what: str) -> bytes:
    """Encode a value. Raises InputError, naming ``what``, for one that JSON has no form for.

    The text is UTF-8, which has half as many bytes as escapes for most of the world's scripts. Halves of surrogate
    pairs, which UTF-8 has no form for, are written as Python writes them, which are JSON's escapes too.
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} cannot be written as JSON: {error}") from None


def with_samples(options: Mapping[str, Any], samples: Sequence[EncodedSample]) -> bytes:
    """Put samples and the request's other fields together in one JSON object."""
    head = encode_json({name: value for name, value in options.items() if value is not None}, "the request")
    joined = b",".join(sample.json for sample in samples)
    return head[:-1] + (b"," if len(head) > 2 else b"") + b'"samples":[' + joined + b"]}"


def compressor(wanted: Compression) -> tuple[str, Callable[[bytes], bytes]] | None:
    """Return the name and the function of a content coding, or None for none.

    ``auto`` is zstd where the package ``zstandard`` is installed, else gzip. Raises InputError where zstd is
    asked for and not installed.
    """
    if wanted in ("auto", "zstd"):
        try:
            import zstandard
        except ImportError:
            if wanted == "zstd":
                raise InputError(
                    "zstd needs the package zstandard: pip install zstandard, or use gzip"
                ) from None
        else:
            return "zstd", zstandard.compress
    if wanted == "none":
        return None
    if wanted not in ("auto", "gzip"):
        raise InputError(f"unknown compression {wanted!r}; give one of auto, zstd, gzip, none")
    return "gzip", lambda data: gzip.compress(data, compresslevel=3, mtime=0)


def post(
    path: str,
    body: bytes,
    *,
    key: str,
    compress: tuple[str, Callable[[bytes], bytes]] | None,
    accept: str = "application/json",
) -> Request:
    """Make a POST of JSON with an idempotency key; a large body is compressed."""
    headers = {"Accept": accept, "Content-Type": "application/json", "Idempotency-Key": key}
    if compress and len(body) >= COMPRESSED_FROM_BYTES:
        name, function = compress
        headers["Content-Encoding"], body = name, function(body)
    return Request("POST", path, headers, body)
