"""The language that configuration and requests name rewards in; ``docs/rewards.md`` describes it with examples.

A reward is a name (``"binary"``), an object with the name and parameters (``{"name": "fraction", "min_tests": 10}``),
``{"sum": [reward, ...], "weights": [number, ...]}`` or ``{"product": [reward, ...]}``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from grader.errors import InputError
from grader.rewards.compose import MAX_PARTS, Composition, Product, Sum
from grader.rewards.form import Constraints, Penalties
from grader.rewards.model import Part, Reward
from grader.rewards.outcomes import Binary, Efficiency, Flags, Fraction, Tiered

FUNCTIONS: Mapping[str, type[Part]] = {
    str(function.model_fields["name"].default): function
    for function in (Binary, Fraction, Tiered, Efficiency, Penalties, Constraints, Flags)
}
_COMPOSITIONS: Mapping[str, type[Composition]] = {"sum": Sum, "product": Product}
_MAX_DEPTH = 4


def parse(spec: object, place: str = "reward") -> Reward:
    """Make the reward function that ``spec`` stands for; None stands for ``binary``.

    Parameters
    ----------
    spec: a string or a mapping, as parsed from JSON.
    place: what the caller calls it; errors begin with it.

    Raises
    ------
    InputError: anything in it is not as documented; the text begins with the place, e.g. ``reward.sum[1].weights``.

    """
    part = _part("binary" if spec is None else spec, place, 0)
    twice = [name for name, times in Counter(part.names).items() if times > 1]
    if twice:
        raise InputError(f"{place}: two components are called {twice[0]!r}; give one of the parts a label")
    leaves = list(_leaves(part))
    return Reward(
        part,
        needs_all_tests=any(leaf.needs_all_tests for leaf in leaves),
        needs_reference_time=any(leaf.needs_reference_time for leaf in leaves),
        needs_groups=tuple(leaf.needs_groups for leaf in leaves if leaf.needs_groups),
    )


def spec_of_text(text: str) -> Any:
    """Return what a text stands for where only a text can be given: a reward's name, or the JSON of its object.

    Raises InputError for what begins like JSON and is not.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"begins like JSON, and is not: {error}") from error


def _part(spec: object, place: str, depth: int) -> Part:
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping):
        raise InputError(f"{place}: a name or an object is needed, this is {type(spec).__name__}")
    if depth > _MAX_DEPTH:
        raise InputError(f"{place}: nested more than {_MAX_DEPTH} deep; sums of sums can be one sum")
    for name, composition in _COMPOSITIONS.items():
        if name in spec:
            return _composition(composition, name, spec, place, depth)
    if "name" not in spec:
        raise InputError(f"{place}: it needs one of name, {', '.join(_COMPOSITIONS)}")
    name = spec["name"]
    function = FUNCTIONS.get(name) if isinstance(name, str) else None
    if function is None:
        shown = ascii(name)[:80]
        raise InputError(f"{place}.name: no reward is called {shown}; there are {', '.join(FUNCTIONS)}")
    return _validated(function, spec, place)


def _composition(kind: type[Composition], name: str, spec: Mapping[str, Any], place: str, depth: int) -> Part:
    given = spec[name]
    if not isinstance(given, list | tuple) or not 1 <= len(given) <= MAX_PARTS:
        raise InputError(f"{place}.{name}: an array of 1 to {MAX_PARTS} rewards is needed")
    parts = tuple(_part(item, f"{place}.{name}[{number}]", depth + 1) for number, item in enumerate(given))
    rest = {key: value for key, value in spec.items() if key != name}
    for taken in ("name", "parts"):
        if taken in rest:
            raise InputError(f"{place}.{taken}: not beside {name}")
    if kind is Sum:
        rest.setdefault("weights", [1.0] * len(parts))
    made = _validated(kind, {**rest, "parts": parts}, place)
    if isinstance(made, Sum) and len(made.weights) != len(parts):
        raise InputError(
            f"{place}.weights: {len(made.weights)} weights for {len(parts)} rewards; give one each"
        )
    return made


def _validated(kind: type[Part], fields: Mapping[str, Any], place: str) -> Part:
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(f"{place}{_path(first['loc'])}: {first['msg']}") from None


def _path(location: tuple[int | str, ...]) -> str:
    steps = [step for step in location if step != "[key]"]
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _leaves(part: Part) -> Iterator[Part]:
    if isinstance(part, Composition):
        for inner in part.parts:
            yield from _leaves(inner)
    else:
        yield part
