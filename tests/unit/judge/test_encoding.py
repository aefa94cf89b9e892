import itertools
import marshal
import subprocess
import sys
from collections import Counter, OrderedDict, UserList, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from grader.sandbox.runner import encoding
from grader.sandbox.runner.decoding import Foreign, decode
from grader.sandbox.runner.encoding import digest, encode, encode_chunks
from grader.sandbox.runner.revive import revive

Point = namedtuple("Point", "x y")


def decoded(value):
    return decode(encode(value))


@pytest.mark.parametrize(
    "value",
    [
        [1, -1, 2**31 - 1, -(2**31), 2**31, -(2**31) - 1, 2**70, -(10**400)],
        ["", "süß\0\ud800", "s", "c", "S", b"s", b""],
        [None, True, False, ..., 1.5, -0.0, float("inf"), 2j],
        {"a": [(), ((),), {}], (1, "s"): {1, 2}, None: frozenset({"s", "c"})},
    ],
    ids=["ints", "texts", "scalars", "containers"],
)
def test_plain_values_are_what_marshal_writes(value):
    assert encode(value) == marshal.dumps(value, 2)
    assert decoded(value) == value


@pytest.mark.parametrize(
    ("value", "kind", "payload"),
    [
        (Counter("aab"), "Counter", {"a": 2, "b": 1}),
        (OrderedDict(a=1), "OrderedDict", {"a": 1}),
        (defaultdict(list, a=[1]), "defaultdict", {"a": [1]}),
        (Point(1, "s"), "namedtuple", (1, "s")),
        (deque([1, 2]), "deque", [1, 2]),
        ({1: 2}.keys(), "dict_keys", [1]),
        ({1: 2}.items(), "dict_items", [(1, 2)]),
        (OrderedDict(a=1).keys(), "dict_keys", ["a"]),
        ({1: 2}.values(), "iterator", [2]),
        (map(str, [1, 2]), "iterator", ["1", "2"]),
        ((n for n in range(3)), "iterator", [0, 1, 2]),
        (itertools.chain("ab"), "iterator", ["a", "b"]),
        (reversed([1, 2]), "iterator", [2, 1]),
        (Fraction(1, 3), "Fraction", (1, 3)),
        (Decimal("1.50"), "Decimal", "1.50"),
        (range(1, 9, 2), "range", (1, 9, 2)),
        (bytearray(b"s"), "bytearray", b"s"),
        (date(2024, 2, 29), "date", "2024-02-29"),
        (time(1, 2), "time", "01:02:00"),
        (datetime(2024, 2, 29, tzinfo=UTC), "datetime", "2024-02-29T00:00:00+00:00"),
        (timedelta(1, 2, 3), "timedelta", (1, 2, 3)),
        (itertools.count(), "opaque", "endless iterator"),
        (Fraction(1, 2**5000), "opaque", "Fraction"),
        (Decimal("1" * 5000), "opaque", "Decimal"),
        (object(), "opaque", "object"),
        (len, "opaque", "builtin_function_or_method"),
        (StopIteration, "opaque", "type"),
        (compile("0", "", "eval"), "opaque", "code"),
        (memoryview(b"s"), "opaque", "memoryview"),
        (UserList([1]), "opaque", "UserList"),
        (IntEnum("Colour", "RED")(1), "opaque", "Colour"),
    ],
    ids=lambda part: part if isinstance(part, str) else None,
)
def test_each_kind_has_a_payload(value, kind, payload):
    found = decoded(value)
    assert isinstance(found, Foreign)
    assert (found.kind, found.value) == (kind, payload)
    assert type(found.value) is type(payload)


@pytest.mark.parametrize(
    "value",
    [
        Counter("aab"),
        OrderedDict(a=1),
        {"k": Point(1, 2)},
        deque([1]),
        Fraction(1, 3),
        Decimal("1.5"),
        range(3),
        bytearray(b"s"),
        date(2024, 1, 1),
        time(1),
        datetime(2024, 1, 1),
        timedelta(1),
        [{1: 2}.items()],
        {Fraction(1, 2), 3},
        {Fraction(1, 2): {range(2): Point(1, 2)}},
    ],
)
def test_foreign_data_compares_again_as_it_did(value):
    assert revive(decoded(value)) == value


def subclass(base, *, name="Evil", **methods):
    return type(name, (base,), methods)


@pytest.mark.parametrize("base", [int, float, complex, str, bytes, tuple, list, dict, set, frozenset, deque])
def test_a_subclass_of_a_builtin_is_opaque_wherever_it_stands(base):
    value = subclass(base)()
    for wrap in (lambda x: x, lambda x: [x], lambda x: (1, "s", x), lambda x: {"k": [x]}):
        text = encode(wrap(value))
        assert b"Q\x06opaqueu\x04\x00\x00\x00Evil" in text


def test_no_method_of_the_program_is_called():
    def refuse(*_args, **_kwargs):
        raise AssertionError("a method of the program's class was called")

    names = (
        "__iter__",
        "__len__",
        "__eq__",
        "__hash__",
        "__bool__",
        "__getattribute__",
        "__repr__",
        "__str__",
        "__reduce_ex__",
        "__index__",
        "__float__",
        "__class__",
        "__getitem__",
    )
    methods = dict.fromkeys(names, refuse)
    for base in (object, int, str, list, tuple, dict):
        assert decoded([subclass(base, **methods)()])[0].kind == "opaque"


def test_a_class_with_a_hostile_name_is_still_inert():
    class Text(str):
        __slots__ = ()

        def __getitem__(self, _index):
            raise AssertionError

    class Meta(type):
        def __getattribute__(cls, _name):
            raise AssertionError

    assert decoded(type(Text("x" * 500), (), {})()).value == "x" * 100
    assert decoded(Meta("Plain", (), {})()).value == "Plain"


def test_a_fake_numpy_gives_inert_bytes(monkeypatch):
    class Fake:
        class generic:
            dtype = type("dtype", (), {"str": "<f8"})

            def item(self):
                raise KeyError("no")

        ndarray = type("ndarray", (), {})

    Fake.generic.__name__ = "generic"
    monkeypatch.setitem(sys.modules, "numpy", Fake)
    assert decoded(Fake.generic()).kind == "opaque"
    assert decoded([Fake.ndarray()]).kind == "opaque"


def test_a_namedtuple_that_overrides_what_equality_rests_on_is_opaque():
    assert decoded(type("P", (tuple,), {"_fields": (), "_make": None, "__iter__": None})()).kind == "opaque"
    assert decoded(subclass(Point)(1, 2)).kind == "opaque"


def test_an_iterator_that_raises_is_opaque_and_one_that_exits_ends_the_program():
    def broken(error):
        yield 1
        raise error

    assert decoded(broken(ValueError())).kind == "opaque"
    with pytest.raises(SystemExit):
        encode(broken(SystemExit(0)))
    with pytest.raises(MemoryError):
        encode(broken(MemoryError()))


def test_too_deep_and_recursive_structures_are_opaque_or_refused():
    recursive = []
    recursive.append(recursive)
    assert decoded(recursive).value == "too deep"
    deep = [object()]
    for _ in range(600):
        deep = [deep]
    assert decoded(deep).value == "too deep"


def test_sets_have_one_order_on_both_paths_and_under_every_hash_seed():
    values = {"s", "bc", 10**20, 2.5, (1, "x"), frozenset({1, 2})}
    slow = encode([values, object()])
    assert encode(values) in slow
    source = (
        "import sys; sys.path.insert(0, sys.argv[1]); import encoding;"
        "sys.stdout.write(encoding.encode([{'s', 'bc', 'def', 'x'}, {'q': object()}]).hex())"
    )
    folder = str(Path(encoding.__file__).parent)
    runs = {
        subprocess.run(
            [sys.executable, "-I", "-c", source, folder],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in "123"
    }
    assert len(runs) == 1


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2000, 2500])
@pytest.mark.parametrize("item", ["red", "cats", 7, object(), ("a", [1.5])])
@pytest.mark.parametrize("kind", [list, tuple])
def test_pieces_are_those_of_the_whole(count, item, kind):
    value = kind([item] * count)
    whole = encode(value)
    assert b"".join(encode_chunks(value)) == whole
    if type(item) is not object:
        assert whole == marshal.dumps(value, 2)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.just(...)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(codec=None))
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.floats(allow_nan=False))
    ),
    max_leaves=30,
)


@given(st.lists(plain, max_size=5), st.sampled_from([1, 700]), st.sampled_from([list, tuple]))
def test_the_digest_is_that_of_the_value_not_of_the_objects(items, times, kind):
    value = kind(items * times)
    assume(b"opaque" not in encode(value))  # text that says so has no digest
    same = kind(decode(encode(items)) * times)  # equal, and no object shared with it
    assert digest(value) == digest(same)
    assert digest(value) != digest(kind([*items, 1] * times))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (-1, -2),
        (1, True),
        (1, 1.0),
        ("a", b"a"),
        (("a", "bc"), ("ab", "c")),
        ([1], (1,)),
        (0.0, -0.0),
        (None, False),
    ],
)
@pytest.mark.parametrize("count", [1, 3000])
def test_digests_tell_values_and_types_apart(one, other, count):
    assert digest([one] * count) != digest([other] * count)
    assert digest([one] * count) != digest((one,) * count)


def test_the_digest_does_not_depend_on_the_order_in_which_a_set_was_filled():
    up, down = set(range(0, 80_000, 1000)), set(range(79_000, -1000, -1000))
    assert digest([up] * 3000) == digest([down] * 3000)


def test_the_digest_of_foreign_objects_is_that_of_what_they_mean():
    class Text(str):
        """Equal to a str, and not one."""

    assert digest([Text("a")] * 3000) != digest(["a"] * 3000)
    assert digest([object()] * 3000) is None
    assert digest([[], object()]) is None


def test_a_huge_list_is_never_encoded_whole():
    value = [("Red", "Green", "Blue")] * 20_000
    assert max(map(len, encode_chunks(value))) * 10 < len(encode(value))


def test_patching_builtins_and_marshal_does_not_stop_a_programs_own_answer():
    # In a process of its own, for no thread of this one could live without builtins.
    source = """
import builtins, collections, marshal, os, sys
sys.path.insert(0, sys.argv[1])
import encoding
value = [1, "s", collections.deque([2])] * 2000
write, leave = os.write, os._exit
space = vars(builtins)
for name in list(space):
    if name.islower():
        space[name] = None
marshal.dumps = None
write(1, encoding.encode(value))
leave(0)
"""
    folder = str(Path(encoding.__file__).parent)
    done = subprocess.run([sys.executable, "-I", "-c", source, folder], capture_output=True, check=False)
    assert done.stdout == encode([1, "s", deque([2])] * 2000)


def same(left, right):
    """Equal, and of the same types all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@given(plain)
def test_round_trip_keeps_values_and_types(value):
    data = encode(value)
    assert data == marshal.dumps(value, 2)
    assert same(decode(data), value)
    assert encode(decode(memoryview(data))) == data


def test_numpy_values_are_data():
    np = pytest.importorskip("numpy", reason="numpy is not among the test dependencies")
    assert decoded(np.float64(1.5)).value == ("<f8", 1.5)
    assert decoded([np.int64(3)])[0].value == ("<i8", 3)
    assert decoded(np.bool_(True)).value == ("|b1", True)
    assert decoded(np.array([[1, 2], [3, 4]])).value == ("<i8", (2, 2), [[1, 2], [3, 4]])
    assert decoded(np.longdouble(1)).kind == "opaque"
    assert decoded(subclass(np.ndarray)(2)).kind == "opaque"
    assert decoded(subclass(np.float64)(2)).kind == "opaque"
