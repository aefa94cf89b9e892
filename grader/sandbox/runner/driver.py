"""The driver of assertion tests: runs the test source where the candidate cannot reach it.

The reference program provides every name that the tests use, but for the entry point, and those classes that the suite
says arguments are made of, where the candidate defines them too: stand-ins for these call the candidate's process. No
other class is the candidate's for having the name of one of the reference's, which may be what the tests judge by.
What comes back is decoded to plain data, so that no code of the candidate takes part in a comparison.
"""

from __future__ import annotations

import _thread
import builtins
import random
import sys
import types
from typing import Any, NoReturn

from . import wire
from .candidate import (
    BUILTIN_TYPE,
    GET_ATTRIBUTE,
    INSTANCE_FIELDS,
    INSTANCE_OF,
    OBJECT_NUMBER,
    SET_ATTRIBUTE,
    read_frame,
)
from .decoding import DecodeError, decode
from .encoding import encode
from .program import describe, send
from .raising import ForgedError, checked, raisable
from .revive import revive

TESTS_BROKEN = ord(
    "B"
)  # a frame that only a driver sends: its setup failed before it had called the candidate

_LONGEST_ERROR = 4096  # bytes of what is said of an exception
_DATA = (bool, int, float, complex, str, bytes, type(None))


_calls: list[object] = []  # what was called of the candidate; only whether there is anything counts
_gone: list[object] = []  # likewise, whether the candidate is
_sources: list[str] = []  # of the tests
# The candidate answers one call at a time; tests may call from several threads.
_calling = _thread.allocate_lock()


class _Gone(BaseException):
    """The candidate's process has ended or broken the protocol; the supervisor knows why."""

    def __init__(self) -> None:
        super().__init__()
        _gone.append(self)


class RemoteObject:
    """Stands for an object in the candidate's process; equal to nothing but itself."""

    def __init__(self, target: str | int) -> None:
        object.__setattr__(self, "_target", target)

    def __call__(self, *arguments: object, **keywords: object) -> object:
        """Call it there."""
        return _call(_target_of(self), arguments, keywords)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _call(GET_ATTRIBUTE, (self, name), {})

    def __setattr__(self, name: str, value: object) -> None:
        _call(SET_ATTRIBUTE, (self, name, value), {})


def _target_of(remote: RemoteObject) -> str | int:
    target: str | int = object.__getattribute__(remote, "_target")
    return target


def run(payload: dict[str, Any]) -> int:
    """Run the tests; each is answered True, False, or with what the candidate raised."""
    _sources.extend((payload["setup"], *payload["tests"]))
    _seed(payload["reference"], *_sources)
    try:
        candidate_classes = _wait_until_loaded()
        try:
            namespace = _namespace(payload, candidate_classes & {*payload["argument_classes"]})
        except Exception as error:
            if _calls:
                raise  # what the candidate answered may have brought it about
            send(wire.ANSWER_FD, TESTS_BROKEN, describe(error)[:_LONGEST_ERROR])
            return 3
        send(wire.ANSWER_FD, wire.LOADED, b"")
        _run_tests(payload, namespace)
    except _Gone:
        return 3
    send(wire.ANSWER_FD, wire.FINISHED, b"")
    return 0


def _seed(*sources: str) -> None:
    """Have the tests draw other random numbers than the candidate, which could else foresee what they expect. They are
    the same in each run: what they hang on is what no candidate is shown."""
    known = "\0".join(sources).encode("utf-8", "surrogatepass")
    random.seed(known)
    numbers = sys.modules.get("numpy.random")
    if numbers is not None:
        own = random.Random(known)  # noqa: S311 - the same numbers in each run, and the tests' own state as it was
        numbers.seed([own.getrandbits(32) for _ in range(8)])


def _wait_until_loaded() -> set[str]:
    if read_frame(wire.FROM_PEER_FD) != (wire.STARTED, b""):
        raise _Gone
    send(wire.ANSWER_FD, wire.STARTED, b"")  # from here on it is the program's doing, or the tests'
    frame = read_frame(wire.FROM_PEER_FD)
    if frame is None:
        raise _Gone
    kind, payload = frame
    if kind != wire.LOADED:
        # The candidate cannot say of the tests that they are broken: that is a frame out of place.
        send(wire.ANSWER_FD, wire.FINISHED if kind == TESTS_BROKEN else kind, payload[:_LONGEST_ERROR])
        raise _Gone
    try:
        names = decode(payload, max_values=100_000)
    except DecodeError:
        names = []
    return {name for name in names if type(name) is str} if type(names) is list else set()


def _namespace(payload: dict[str, Any], candidate_classes: set[str]) -> dict[str, Any]:
    """What the tests see. Where it cannot be made with stand-ins for the candidate's classes (the tests inherit from
    one, say), it is made without: no program can break its tests by naming a class."""
    try:
        return _namespace_with(payload, candidate_classes)
    except Exception:
        if _calls or not candidate_classes:
            raise
        return _namespace_with(payload, set())


def _namespace_with(payload: dict[str, Any], candidate_classes: set[str]) -> dict[str, Any]:
    module = types.ModuleType("tests")
    namespace = module.__dict__
    exec(compile(payload["reference"], "<reference>", "exec", dont_inherit=True), namespace)  # noqa: S102
    for name, value in list(namespace.items()):
        if isinstance(value, type) and value.__module__ == "tests" and name in candidate_classes:
            namespace[name] = RemoteObject(name)
    namespace[payload["entry_point"]] = RemoteObject(payload["entry_point"])
    exec(compile(payload["setup"], "<setup>", "exec", dont_inherit=True), namespace)  # noqa: S102
    namespace[payload["entry_point"]] = RemoteObject(payload["entry_point"])
    return namespace


def _run_tests(payload: dict[str, Any], namespace: dict[str, Any]) -> None:
    for source in payload["tests"]:
        passed = True
        try:
            exec(compile(source, "<test>", "exec", dont_inherit=True), namespace)  # noqa: S102
            if _gone:  # and the test has swallowed that
                raise _Gone
        except _Gone:
            raise
        except BaseException as error:
            passed = False
            raised = getattr(error, "_from_candidate", None)
            if raised is not None:
                send(wire.ANSWER_FD, wire.RAISED, raised)
            else:
                send(wire.ANSWER_FD, wire.VALUE, encode(False))
        else:
            send(wire.ANSWER_FD, wire.VALUE, encode(True))
        if not passed and payload["stop_at_error"]:
            return


def _call(target: str | int, arguments: tuple[object, ...], keywords: dict[str, object]) -> object:
    if not _calls:
        _calls.append(target)
    request = encode((target, _as_data(arguments), _as_data(keywords)))
    with _calling:
        try:
            send(wire.TO_PEER_FD, wire.VALUE, request)
        except BrokenPipeError:
            raise _Gone from None
        frame = read_frame(wire.FROM_PEER_FD)
    if frame is None:
        raise _Gone
    kind, payload = frame
    if kind == wire.RAISED:
        _raise_as_candidate_did(payload)
    if kind != wire.VALUE:
        raise _Gone
    try:
        value = revive(decode(payload), for_tests=True)
    except (DecodeError, RecursionError):
        return object()  # equal to nothing
    if type(value) is dict and type(value.get(OBJECT_NUMBER)) is int:
        return RemoteObject(value[OBJECT_NUMBER])
    return value


def _raise_as_candidate_did(payload: bytes) -> NoReturn:
    """Raise what tests can expect as the built-in exceptions that the candidate's is an instance of."""
    try:
        if len(payload) > _LONGEST_ERROR:
            raise _Gone
        name, message, line, classes = checked(decode(payload, max_values=len(payload)))
        error: Any = raisable(name, message, classes, _is_named_in_tests)
    except (DecodeError, ForgedError):
        raise _Gone from None
    error._from_candidate = encode((name, message, line))
    raise error


def _is_named_in_tests(name: str) -> bool:
    return any(name in source for source in _sources)


def _as_data(value: Any) -> Any:
    """Turn stand-ins and instances of the tests' classes into what ``candidate`` turns back."""
    kind: Any = type(value)
    if kind in _DATA:
        return value
    if kind in (list, tuple):
        return kind(map(_as_data, value))
    if kind is dict:
        return {key: _as_data(item) for key, item in value.items()}
    if kind is RemoteObject:
        return {OBJECT_NUMBER: _target_of(value)}
    if isinstance(value, type):
        name = value.__name__
        return {BUILTIN_TYPE: name} if vars(builtins).get(name) is value else value
    if kind.__module__ == "tests" and hasattr(value, "__dict__"):
        return {INSTANCE_OF: kind.__name__, INSTANCE_FIELDS: _as_data(dict(value.__dict__))}
    return value
