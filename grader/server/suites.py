"""The suites that requests can name: those of the catalogue, and files that the operator has named."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import structlog

from grader.errors import InputError, SuiteError
from grader.server.problems import Refused
from grader.suites import registry
from grader.suites.task import Suite

_log = structlog.get_logger("grader.server")


class Suites:
    """Loads suites by name, once each, and never a file that a request names.

    ``files``: suite files that the operator serves, under the name that each has in its header or its file's name.
    They are loaded at once. Raises SuiteError where one cannot be, or has a name that is already taken.
    """

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self._lock = threading.Lock()
        self._catalogue = {
            name: info.name for info in registry.available() for name in (info.name, *info.aliases)
        }
        self._loaded: dict[str, Suite] = {}
        for file in files:
            suite = registry.load(str(file.absolute()))
            if suite.name in self._loaded or suite.name in self._catalogue:
                raise SuiteError(
                    f"{file}: there is another suite named {suite.name!r}; give this one another name"
                )
            self._loaded[suite.name] = suite
        self._own = tuple(self._loaded)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that requests can give, aliases left out."""
        return (*dict.fromkeys(self._catalogue.values()), *self._own)

    @property
    def own(self) -> tuple[Suite, ...]:
        """The operator's own suites."""
        return tuple(self._loaded[name] for name in self._own)

    def loaded(self, name: str) -> Suite | None:
        """Return the suite if that costs nothing: it has been loaded before."""
        return self._loaded.get(self._catalogue.get(name.lower(), name))

    def load(self, name: str, *, place: str = "suite", status: int = 422) -> Suite:
        """Return the suite of that name; reads, and may download, its file. To be called in a thread.

        Raises Refused with ``status`` and ``place`` for an unknown name, and with 503 where the suite is known but its
        file cannot be had here; the log says why, the answer does not, since that names the server's folders.
        """
        known = self._catalogue.get(name.lower(), name)
        with self._lock:
            if known in self._loaded:
                return self._loaded[known]
            if known not in self._catalogue.values():
                raise Refused(
                    f"there is no suite {name!r} here; there are {', '.join(self.names)}",
                    place=place,
                    status=status,
                )
            try:
                suite = registry.load(known)
            except (InputError, OSError) as error:
                _log.error("suite_unavailable", suite=known, error=str(error))
                raise Refused(
                    f"the data of suite {known} is not on this server, and could not be got; "
                    "whoever runs the server finds the reason in its log",
                    place=place,
                    status=503,
                ) from error
            self._loaded[known] = suite
            return suite
