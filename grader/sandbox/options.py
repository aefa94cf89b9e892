"""Which cells are wanted: what a user says of the sandbox, checked, and handed down as one."""

from __future__ import annotations

from dataclasses import dataclass

from grader.errors import InputError
from grader.sandbox.renewal import Renewal

BACKENDS = ("namespaces", "docker")
ISOLATIONS = ("namespaces", "uids")
DEFAULT_BACKEND = "namespaces"
# What may be missing where --allow-missing names it; nothing else can be done without.
OPTIONAL_LAYERS = {"namespaces": frozenset({"landlock"}), "docker": frozenset({"landlock", "mountns"})}


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOptions:
    """Which cells are wanted.

    ``sandbox`` is a backend or ``auto``, which means ``namespaces``: never something weaker because that is missing.
    ``allow_missing`` names layers that may be missing. The rest is for ``docker``: ``runtime`` is one registered with
    the daemon (None: its default), ``image`` another than the one that fits this grader, ``renewal`` when a container
    is replaced by a fresh one from a warm pool, and the ``isolation`` "uids" parts samples by user ids, for hosts
    that forbid user namespaces.

    Raises InputError for what does not exist or does not go together.
    """

    sandbox: str = "auto"
    runtime: str | None = None
    image: str | None = None
    allow_missing: tuple[str, ...] = ()
    isolation: str = "namespaces"
    renewal: Renewal | None = None

    def __post_init__(self) -> None:
        backend = self.backend
        if backend not in BACKENDS:
            raise InputError(
                f"there is no sandbox {self.sandbox!r}; give auto or one of {', '.join(BACKENDS)}"
            )
        if self.isolation not in ISOLATIONS:
            raise InputError(f"there is no isolation {self.isolation!r}; give one of {', '.join(ISOLATIONS)}")
        if backend != "docker":
            self._refuse_docker_options()
        if self.isolation != "namespaces" and self.runtime is not None:
            raise InputError(
                f"the isolation {self.isolation} is for the daemon's own runtime; leave --runtime {self.runtime} out"
            )
        unknown = sorted(set(self.allow_missing) - OPTIONAL_LAYERS[backend])
        if unknown:
            choices = ", ".join(sorted(OPTIONAL_LAYERS[backend]))
            raise InputError(
                f"the {backend} sandbox is never made without {', '.join(unknown)}; what may be missing: {choices}"
            )

    @property
    def backend(self) -> str:
        """The backend that ``sandbox`` means."""
        return DEFAULT_BACKEND if self.sandbox == "auto" else self.sandbox

    def _refuse_docker_options(self) -> None:
        given = {
            f"the runtime {self.runtime}": self.runtime is not None,
            f"the image {self.image}": self.image is not None,
            f"the isolation {self.isolation}": self.isolation != "namespaces",
            "a warm pool, and with it --one-shot,": self.renewal is not None,
        }
        for what, is_given in given.items():
            if is_given:
                raise InputError(f"{what} is for the docker sandbox; give --sandbox docker with it")
