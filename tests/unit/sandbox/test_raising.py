"""What the driver of assertion tests raises for what a program raised."""

import builtins

import pytest

from grader.sandbox.runner.raising import ForgedError, builtin_classes, checked, raisable

BUILTIN = sorted(
    (
        value
        for value in vars(builtins).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    ),
    key=lambda kind: kind.__name__,
)
ENDS = (StopIteration, StopAsyncIteration, GeneratorExit)


def instance(kind, *more):
    return kind.__new__(kind, "x", [ValueError()] if issubclass(kind, ExceptionGroup) else [BaseException()])


def raised_for(error, name=None, *, named=True):
    _, message, _, classes = checked(("E", "said", 3, builtin_classes(error)))
    return raisable(type(error).__name__ if name is None else name, message, classes, lambda _: named)


@pytest.mark.parametrize("kind", BUILTIN)
def test_a_built_in_exception_is_raised_as_itself(kind):
    made = raised_for(instance(kind))
    assert isinstance(made, kind)
    assert (type(made).__name__, [one for one in BUILTIN if isinstance(made, one)]) == (
        kind.__name__,
        [one for one in BUILTIN if issubclass(kind, one)],
    )
    assert "said" in str(made)
    assert not hasattr(made, "_from_candidate")
    made._from_candidate = b""


@pytest.mark.parametrize("kind", BUILTIN)
def test_a_subclass_is_raised_as_one(kind):
    made = raised_for(instance(type("Mine", (kind,), {})))
    assert type(made) is not kind
    assert type(made).__name__ == "Mine"
    assert [one for one in BUILTIN if isinstance(made, one)] == [
        one for one in BUILTIN if issubclass(kind, one)
    ]
    assert str(made) == "said"


def test_a_name_makes_no_built_in_exception():
    made = raised_for(instance(type("ValueError", (Exception,), {})))
    assert type(made).__name__ == "ValueError"
    assert isinstance(made, Exception)
    assert not isinstance(made, ValueError)


def test_of_two_bases_both_count():
    made = raised_for(instance(type("Mine", (ValueError, KeyError), {})))
    assert isinstance(made, ValueError)
    assert isinstance(made, KeyError)


@pytest.mark.parametrize("kind", ENDS)
def test_what_ends_loops_is_hidden_where_no_test_names_it(kind):
    made = raised_for(instance(kind), named=False)
    assert type(made).__name__ == kind.__name__
    assert not isinstance(made, (*ENDS, RuntimeError))
    assert isinstance(made, Exception) == issubclass(kind, Exception)


@pytest.mark.parametrize("name", ["", "a b", "a\0b", "\ud800", "1"])
def test_a_class_may_have_any_name(name):
    assert type(raised_for(ValueError(), name)) is not ValueError
    assert isinstance(raised_for(ValueError(), name), ValueError)


def test_a_metaclass_is_not_asked():
    class Liar(type):
        def mro(cls):
            return super().mro()

        __mro__ = property(lambda _: (RuntimeError,))
        __name__ = property(lambda _: "RuntimeError")

    assert builtin_classes(Liar("Odd", (Exception,), {})()) == ("Exception", "BaseException")


@pytest.mark.parametrize(
    "said",
    [
        None,
        (),
        ("E", "", 1),
        ("E", "", 1, ()),
        ("E", "", 1, ["BaseException"]),
        ("E", "", True, ("BaseException",)),
        ("E", "", 1, ("exit", "BaseException")),
        ("E", "", 1, ("object", "BaseException")),
        ("E", "", 1, ("Exception",)),
        ("E", "", 1, (["Exception"], "BaseException")),
        ("E" * 101, "", 1, ("BaseException",)),
        ("E", "m" * 301, 1, ("BaseException",)),
        (b"E", "", 1, ("BaseException",)),
    ],
)
def test_what_no_process_says_is_refused(said):
    with pytest.raises(ForgedError):
        checked(said)


def test_classes_that_cannot_be_combined_are_refused():
    with pytest.raises(ForgedError):
        raisable("E", "", [OSError, SyntaxError, BaseException], lambda _: True)


def test_a_strange_line_is_none():
    assert checked(("E", "", -1, ("BaseException",)))[2] == 0
    assert checked(("E", "", 1 << 200, ("BaseException",)))[2] == 0
