"""Grade model-written programs inside a sandbox that never sees the answers.

::

    import grader

    summary = grader.score("samples.jsonl", suite="humaneval+")
    for verdict in grader.grade(samples, suite="mbpp+"):
        ...
    grader.pass_at_k(n=10, c=3, k=1)

Importing this package imports next to nothing; each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from grader.version import __version__

if TYPE_CHECKING:
    from grader.api import grade, score
    from grader.errors import (
        CellLostError,
        GraderError,
        InfrastructureError,
        InputError,
        SampleError,
        SandboxError,
        SuiteError,
    )
    from grader.limits import Limits
    from grader.schema import Sample, Summary, Verdict
    from grader.scoring.estimators import pass_at_k, pass_hat_k
    from grader.status import Status

_HOMES = {
    "grader.api": ("grade", "score"),
    "grader.errors": (
        "CellLostError",
        "GraderError",
        "InfrastructureError",
        "InputError",
        "SampleError",
        "SandboxError",
        "SuiteError",
    ),
    "grader.limits": ("Limits",),
    "grader.schema": ("Sample", "Summary", "Verdict"),
    "grader.scoring.estimators": ("pass_at_k", "pass_hat_k"),
    "grader.status": ("Status",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CellLostError",
    "GraderError",
    "InfrastructureError",
    "InputError",
    "Limits",
    "Sample",
    "SampleError",
    "SandboxError",
    "Status",
    "SuiteError",
    "Summary",
    "Verdict",
    "__version__",
    "grade",
    "pass_at_k",
    "pass_hat_k",
    "score",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'grader' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
