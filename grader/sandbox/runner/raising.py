"""What a program raised, on its way to the tests: which built-in exceptions it is, and what the driver raises for it.

A name says nothing: a class of the program may be called ValueError without being one, and one that is need not be
called so. So the candidate's side says which built-in classes the raised one descends from, and the driver raises one
that descends from the same.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any

_KINDS: dict[str, type[BaseException]] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__name__ == name
}
_NAMES = {id(kind): name for name, kind in _KINDS.items()}
_classes_of = type.__dict__["__mro__"].__get__
_LONGEST_NAME, _LONGEST_MESSAGE, _LAST_LINE = 100, 300, 10_000_000

# In ``map`` or ``zip`` they would end a loop over the tests' cases, or in a generator's ``close`` be taken for its end,
# and nobody would look at the rest. So they are raised only where the tests name them.
_ENDS_OF_LOOPS = (StopIteration, StopAsyncIteration, GeneratorExit)


class ForgedError(ValueError):
    """No honest process says this of an exception."""


def builtin_classes(error: BaseException) -> tuple[str, ...]:
    """Return the names of the built-in classes that an exception is an instance of, in the order of its class's MRO.

    Which are built in was noted before the program ran, and neither its names nor its metaclasses are asked.
    """
    return tuple([_NAMES[id(kind)] for kind in _classes_of(type(error)) if id(kind) in _NAMES])


def checked(value: object) -> tuple[str, str, int, list[type[BaseException]]]:
    """Return type, message, line and built-in classes of what a process said of an exception.

    Raises ForgedError.
    """
    kinds = [str, str, int, tuple]
    if type(value) is not tuple or [type(item) for item in value] != kinds:
        raise ForgedError("not what is said of an exception")
    name, message, line, classes = value
    if len(name) > _LONGEST_NAME or len(message) > _LONGEST_MESSAGE:
        raise ForgedError("longer than what is said of an exception")
    if not all(type(one) is str and one in _KINDS for one in classes) or "BaseException" not in classes:
        raise ForgedError("not the classes of an exception")
    return name, message, line if 0 < line < _LAST_LINE else 0, [_KINDS[one] for one in classes]


def raisable(
    name: str, message: str, classes: Sequence[type[BaseException]], is_named: Callable[[str], bool]
) -> BaseException:
    """Make an exception of that name and message that tests can expect as these built-in classes alone.

    ``is_named``: whether the tests name a class. Raises ForgedError where no class can descend from these.
    """
    bases: list[Any] = []
    for kind in classes:
        hidden = kind in _ENDS_OF_LOOPS and not is_named(kind.__name__)
        if not hidden and not any(issubclass(base, kind) for base in bases):
            bases.append(kind)
    try:
        if [base.__name__ for base in bases] == [name]:
            built_in: BaseException = bases[0](message)
            return built_in
    except TypeError:
        pass  # it wants more than a message, which a class of ours does not
    return _of_a_class_between(name if name.isidentifier() else bases[0].__name__, message, tuple(bases))


def _of_a_class_between(name: str, message: str, bases: tuple[Any, ...]) -> BaseException:
    own = {"__init__": lambda _self, *_: None, "__str__": lambda _self: message, "__module__": "solution"}
    try:
        kind: Any = type(name, bases, own)
        if issubclass(kind, BaseExceptionGroup):  # it cannot be empty; what was inside is not told
            made = kind(message, [Exception() if issubclass(kind, Exception) else BaseException()])
        else:
            made = kind(message)
    except (TypeError, ValueError):
        raise ForgedError("classes that cannot be combined") from None
    error: BaseException = made
    return error
