"""The suites that requests can name: those of the catalogue, and files that the operator has named."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import structlog

from grader.errors import InputError, SuiteError
from grader.server.problems import Refused
from grader.suites import registry
from grader.suites.task import Suite

_log = structlog.get_logger("grader.server")
_RETRY_AFTER_S = 5.0


class SuiteNotHereError(Refused):
    """A suite cannot be used on this server as it is now: its data is not here, or it was not started with the suite.

    That can be mended, so that a job which was accepted for the suite waits for it.
    """


class Suites:
    """Loads suites by name, once each, and never a file that a request names.

    ``wanted``: names of the catalogue's suites, and paths of the operator's own suite files, which are served under
    the name that each has in its header or its file's name. They are loaded at once, downloaded where that is needed;
    other suites of the catalogue when they are asked for, if their data is there. A request never starts a download.
    Raises SuiteError where one cannot be loaded, or has a name that is already taken.
    """

    def __init__(self, wanted: Sequence[str] = ()) -> None:
        self._lock = threading.Lock()
        self._catalogue = {
            name: info.name for info in registry.available() for name in (info.name, *info.aliases)
        }
        self._loaded: dict[str, Suite] = {}
        for one in wanted:
            suite = registry.load(one)
            if one.lower() not in self._catalogue and suite.name in (*self._loaded, *self._catalogue):
                raise SuiteError(
                    f"{one}: there is another suite named {suite.name!r}; give this one another name"
                )
            self._loaded[suite.name] = suite
        self._own = tuple(name for name in self._loaded if name not in self._catalogue)

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
        """Return the suite of that name; reads its file if that has not been read. To be called in a thread.

        Raises SuiteNotHereError with ``place`` and ``status`` for an unknown name, and where the suite is known but its
        file is not here, or not as it should be; with 503 where its file is there and cannot be read now. The log then
        says more than the answer, which would name the server's folders.
        """
        known = self._catalogue.get(name.lower(), name)
        with self._lock:
            if known in self._loaded:
                return self._loaded[known]
            if known not in self._catalogue.values():
                raise SuiteNotHereError(
                    f"there is no suite {name!r} here; there are {', '.join(self.names)}",
                    place=place,
                    status=status,
                )
            suite = self._read(known, place, status)
            self._loaded[known] = suite
            return suite

    def _read(self, name: str, place: str, status: int) -> Suite:
        try:
            if all(info.location is None for info in registry.available() if info.name == name):
                raise SuiteError(
                    f"the data of {name} is not on this machine; get it with: grader suites pull {name}, "
                    f"or start the service with --suite {name}"
                )
            return registry.load(name)
        except (InputError, OSError) as error:
            _log.error("suite_unavailable", suite=name, error=str(error))
            if _cannot_be_read_now(error):
                said = f"the data of suite {name} cannot be read now; send this again"
                raise SuiteNotHereError(said, status=503, retry_after_s=_RETRY_AFTER_S) from error
            raise SuiteNotHereError(
                f"the data of suite {name} is not on this server; "
                "whoever runs the server finds the reason in its log",
                place=place,
                status=status,
            ) from error


def _cannot_be_read_now(error: InputError | OSError) -> bool:
    """Whether the system kept a file from being read that is there, e.g. for want of file descriptors."""
    cause = error if isinstance(error, OSError) else error.__cause__
    is_missing = isinstance(cause, FileNotFoundError | NotADirectoryError)
    # Damaged gzip files are an OSError, too, without a number.
    return isinstance(cause, OSError) and cause.errno is not None and not is_missing
