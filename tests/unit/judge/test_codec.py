import contextlib
import itertools
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.sandbox.runner.decoding import DecodeError, Foreign, decode
from grader.sandbox.runner.encoding import encode

SEEDS = [
    encode(value)
    for value in (
        [1, 2**40, -(2**90), 1.5, 2j, "süß", b"s", None, True, False, ...],
        {"a": [1, (2, {3, 4})], 5: frozenset({"x"}), (): {}},
        [range(3), bytearray(b"s"), {1: 2}.items(), object(), (n for n in "ab")],
        list(range(20)),
        [0.5] * 20,
    )
]


def counted(tag, count, items=b""):
    return tag + struct.pack("<I", count) + items


def foreign(kind, payload):
    name = kind.encode()
    return b"Q" + bytes([len(name)]) + name + encode(payload)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_or_are_refused(data):
    with contextlib.suppress(DecodeError):
        decode(data)


@given(st.sampled_from(SEEDS), st.data())
def test_mutated_encodings_decode_or_are_refused(seed, data):
    changed = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(("set", "insert", "delete", "splice"))):
            case "set":
                changed[at] = data.draw(st.integers(0, 255) | st.sampled_from(b"NTFilgysu([{<>0Q."))
            case "insert":
                changed.insert(at, data.draw(st.integers(0, 255)))
            case "delete" if len(changed) > 1:
                del changed[at]
            case _:
                changed[at:at] = data.draw(st.sampled_from(SEEDS))
    with contextlib.suppress(DecodeError):
        decode(bytes(changed), max_values=10_000)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_truncation_and_every_trailing_byte_is_refused(seed):
    for end in range(len(seed)):
        with pytest.raises(DecodeError):
            decode(seed[:end])
    with pytest.raises(DecodeError, match="follow"):
        decode(seed + b"N")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too early"),
        (b"0", "unknown tag"),
        (b"S", "unknown tag"),
        (b"c", "unknown tag"),
        (b"R\0\0\0\0", "unknown tag"),
        (b"\xdb\0\0\0\0", "unknown tag"),
        (counted(b"[", 2**32 - 1), "more than there are bytes"),
        (counted(b"(", 2, b"N"), "more than there are bytes"),
        (counted(b"s", 2**32 - 1), "more than there are"),
        (counted(b"u", 1, b"\xff"), "not UTF-8"),
        (b"l" + struct.pack("<i", 0), "wrong digits"),
        (b"l" + struct.pack("<iHHH", 3, 1, 1, 0x8000), "wrong digits"),
        (b"l" + struct.pack("<iHHH", 3, 1, 1, 0), "wrong digits"),
        (b"l" + struct.pack("<iHHH", 3, 0xFFFF, 1, 1), "wrong digits"),
        (b"l" + struct.pack("<iH", 1, 5), "small int"),
        (b"l" + struct.pack("<i", -(2**31)), "bits"),
        (b"l" + struct.pack("<i", 60_000), "more than there are"),
        (b"{N0", "without a value"),
        (b"{NNNN0", "same key twice"),
        (b"{" + encode(1) + b"N" + encode(1.0) + b"N0", "same key twice"),
        (counted(b"<", 2, encode(True) + encode(1)), "same key twice"),
        (b"{" + encode([]) + b"N0", "unhashable"),
        (counted(b">", 1, encode({})), "unhashable"),
        (counted(b"<", 1, encode(float("nan"))), "NaN"),
        (b"{" + encode(complex("nan")) + b"N0", "NaN"),
        (b"Q\x05magicN", "unknown kind"),
        (b"Q\xffopaque", "too early"),
        (b"Q\x06opaqueN", "payload"),
        (foreign("Counter", [1]), "payload"),
        (b"Q\x06opaque0", "unknown tag"),
    ],
)
def test_malformed_bytes_are_refused_with_the_reason(data, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(data)


def test_depth_is_bounded_and_does_not_depend_on_the_callers_stack():
    inner = counted(b"[", 1) * 500 + b"N"
    with pytest.raises(DecodeError, match="nested"):
        decode(counted(b"[", 1) + inner)

    def decode_below(frames):
        return decode(inner) if frames == 0 else decode_below(frames - 1)

    found = []
    thread = threading.Thread(target=lambda: found.append(decode_below(900)))
    thread.start()
    thread.join()
    assert isinstance(found[0], list)


def test_the_number_of_values_is_bounded_in_bulk_and_one_by_one():
    assert decode(encode([1] * 99), max_values=100) == [1] * 99
    for value in ([1] * 100, [None] * 100, [0.5] * 100, [[]] * 100, {n: n for n in range(50)}):
        with pytest.raises(DecodeError, match="too many values"):
            decode(encode(value), max_values=100)


@pytest.mark.parametrize("bits", [31, 32, 45, 60, 61, 119, 120, 121, 4321, 999_999])
def test_large_ints_come_back_exactly(bits):
    for value in (2**bits, 2**bits - 1, -(2**bits) - 1, (2**bits) // 7):
        assert decode(encode(value)) == value


def test_an_int_beyond_the_bound_is_refused():
    with pytest.raises(DecodeError, match="bits"):
        decode(encode(1 << 1_000_100))


def test_foreign_is_equal_to_nothing_but_itself():
    one, other = decode(foreign("opaque", "x")), decode(foreign("opaque", "x"))
    assert isinstance(one, Foreign)
    assert one == one
    assert one != other
    assert one != "x"


def test_values_that_collide_by_nature_are_read():
    products = set(itertools.product((-1, -2), repeat=8))
    assert len({hash(value) for value in products}) == 1
    assert decode(encode(products)) == products


@pytest.mark.parametrize(
    "make",
    [
        set,
        frozenset,
        dict.fromkeys,
        lambda numbers: {(number, "s") for number in numbers},
    ],
)
def test_sets_and_dicts_of_colliding_keys_are_refused(make):
    count = 4000
    modulus = 2**61 - 1
    honest = encode(make(range(1, 1 + count)))
    hostile = bytearray()
    for number in range(1, 1 + count):
        hostile += encode(make([number * modulus]))[5 if honest[:1] != b"{" else 1 :]
        if honest[:1] == b"{":
            hostile.pop()
    data = b"{" + bytes(hostile) + b"0" if honest[:1] == b"{" else honest[:5] + bytes(hostile)
    with pytest.raises(DecodeError, match="same hash"):
        decode(data)
    assert decode(honest) == make(range(1, 1 + count))


def test_many_small_sets_of_colliding_keys_share_one_budget():
    hostile = encode({n * (2**61 - 1) for n in range(1, 700)})
    assert len(decode(hostile)) == 699
    with pytest.raises(DecodeError, match="same hash"):
        decode(counted(b"[", 100, hostile * 100))
