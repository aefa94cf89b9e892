"""Which foreign APIs there are, and which of them a service has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module

from fastapi.routing import APIRoute

from grader.errors import InputError
from grader.server.service import Part

VARIABLE = "GRADER_COMPAT"
DEFAULT = ("sandbox-fusion",)
NONE = "none"

# By name: the module, and which of its functions makes the part.
APIS: Mapping[str, tuple[str, str]] = {
    "sandbox-fusion": ("sandbox_fusion", "make_part"),
    "piston": ("piston", "make_part"),
    "open-r1-e2b": ("open_r1", "make_e2b_part"),
    "open-r1-morph": ("open_r1", "make_morph_part"),
    "nemo-skills": ("nemo_skills", "make_part"),
    "open-instruct": ("open_instruct", "make_part"),
    "openrlhf": ("openrlhf", "make_part"),
    "slime": ("slime", "make_part"),
    "nemo-gym": ("nemo_gym", "make_part"),
}


def chosen_apis(given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the APIs to serve: those given, else those of ``GRADER_COMPAT``, else the default.

    The name ``none`` stands for no API at all. Raises InputError for an unknown name.
    """
    names: Sequence[str] = given or ()
    if not names and os.environ.get(VARIABLE):
        names = [name.strip() for name in os.environ[VARIABLE].split(",") if name.strip()]
    if not names:
        return DEFAULT
    if NONE in names:
        others = [name for name in names if name != NONE]
        if others:
            raise InputError(
                f"--compat {NONE} and --compat {others[0]} contradict each other; give one of them"
            )
        return ()
    for name in names:
        if name not in APIS:
            raise InputError(f"--compat {name}: there is no such API; there are {', '.join((*APIS, NONE))}")
    return tuple(dict.fromkeys(names))


def compat_parts(names: Sequence[str]) -> list[Part]:
    """Return the parts of the service that speak the APIs named.

    Raises InputError for an unknown name, and where two of them answer the same requests.
    """
    parts = []
    taken: dict[tuple[str, str], str] = {}
    for name in names:
        if name not in APIS:
            raise InputError(f"--compat {name}: there is no such API; there are {', '.join((*APIS, NONE))}")
        module, maker = APIS[name]
        part: Part = getattr(import_module(f"{__package__}.{module}"), maker)()
        for route in part.router.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods or ():
                other = taken.setdefault((method, route.path_format), name)
                if other != name:
                    raise InputError(
                        f"--compat {other} and --compat {name} both answer {method} {route.path_format}; "
                        "start a service for each of them, on ports of their own"
                    )
        parts.append(part)
    return parts
