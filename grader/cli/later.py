"""Commands that keep their place for a later version."""

from __future__ import annotations

from typing import NoReturn, TypedDict

from grader.errors import InputError


class AnyArguments(TypedDict):
    """Command settings that accept whatever arguments are given."""

    context_settings: dict[str, bool]


ANY_ARGUMENTS: AnyArguments = {"context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}}


def not_available(what: str) -> NoReturn:
    """Refuse: ``what`` has its place, but is not there yet. Raises InputError."""
    raise InputError(f"{what} is not available in this version")
