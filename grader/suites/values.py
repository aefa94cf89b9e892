"""Python values in JSON: the escapes of custom suites for what JSON cannot say.

An object with a key that begins with ``$`` is an escape, and has that key alone: ``{"$tuple": [1, 2]}``,
``{"$set": [1, 2]}``, ``{"$frozenset": [1, 2]}``, ``{"$complex": [re, im]}``, ``{"$bytes": "<base64>"}``,
``{"$float": "nan" | "inf" | "-inf"}``, and ``{"$dict": [[key, value], ...]}`` for a dict whose keys are not
all strings, or begin with ``$``. Escapes nest; any other object is a dict.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from grader.suites.files import Place, describe

_FLOATS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def python_value(value: Any, place: Place) -> Any:
    """Turn a parsed JSON value into the Python value it stands for.

    Raises:
        SuiteError: an escape is unknown or malformed; the text says where it is.

    """
    if isinstance(value, list):
        return [python_value(item, place / index) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    escapes = [key for key in value if key.startswith("$")]
    if not escapes:
        return {key: python_value(item, place / key) for key, item in value.items()}
    name = escapes[0]
    if len(value) > 1:
        raise place.error(
            f"{name!r} must be the object's only key; a dict with such keys is written with $dict"
        )
    read = _ESCAPES.get(name)
    if read is None:
        raise place.error(f"unknown escape {name!r}; there are {', '.join(_ESCAPES)}")
    return read(value[name], place / name)


def _items(payload: Any, place: Place) -> list[Any]:
    if not isinstance(payload, list):
        raise place.error(f"an array is needed, this is {describe(payload)}")
    return [python_value(item, place / index) for index, item in enumerate(payload)]


def _set(payload: Any, place: Place) -> set[Any]:
    try:
        return set(_items(payload, place))
    except TypeError as error:
        raise place.error(f"an element cannot be in a set ({error}); use $tuple or $frozenset") from error


def _dict(payload: Any, place: Place) -> dict[Any, Any]:
    pairs = _items(payload, place)
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise (place / index).error("a pair [key, value] is needed")
    try:
        found = dict(pairs)
    except TypeError as error:
        raise place.error(f"a key cannot be in a dict ({error}); use $tuple or $frozenset") from error
    if len(found) != len(pairs):
        raise place.error("a key comes twice")
    return found


def _complex(payload: Any, place: Place) -> complex:
    parts = _items(payload, place)
    if len(parts) != 2 or not all(type(part) in (int, float) for part in parts):
        raise place.error("two numbers [real, imaginary] are needed")
    try:
        return complex(parts[0], parts[1])
    except OverflowError as error:
        raise place.error(f"a part is too large ({error})") from error


def _bytes(payload: Any, place: Place) -> bytes:
    if not isinstance(payload, str):
        raise place.error(f"base64 text is needed, this is {describe(payload)}")
    try:
        return base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise place.error(f"not base64: {error}") from error


def _float(payload: Any, place: Place) -> float:
    if not isinstance(payload, str) or payload not in _FLOATS:
        raise place.error(f"one of {', '.join(map(repr, _FLOATS))} is needed, this is {describe(payload)}")
    return _FLOATS[payload]


_ESCAPES: dict[str, Callable[[Any, Place], Any]] = {
    "$tuple": lambda payload, place: tuple(_items(payload, place)),
    "$set": _set,
    "$frozenset": lambda payload, place: frozenset(_set(payload, place)),
    "$dict": _dict,
    "$complex": _complex,
    "$bytes": _bytes,
    "$float": _float,
}
