"""An iterator can be read once: its encoding and its digest have to come from the same reading."""

from collections import deque

import pytest

from grader.sandbox.runner import wire
from grader.sandbox.runner.encoding import digest, encode
from grader.sandbox.runner.function import encode_bounded

ITEMS = 20_000


def generator(count=ITEMS):
    yield from range(count)


@pytest.mark.parametrize(
    "make",
    [
        generator,
        lambda: iter(list(range(ITEMS))),
        lambda: map(str, range(ITEMS)),
        lambda: [generator()],
        lambda: (1, zip(range(ITEMS), range(ITEMS), strict=True)),
        lambda: {"a": generator()},
        lambda: deque([generator()]),
        lambda: [generator(20) for _ in range(1500)],
    ],
    ids=["generator", "iter", "map", "list", "tuple", "dict", "deque", "long_list"],
)
def test_a_long_answer_with_an_iterator_is_told_in_full_length(make):
    encoded = encode(make())
    kind, body = encode_bounded(make(), wire.DIGEST_ABOVE)
    assert kind == wire.DIGEST
    assert wire.DIGEST_BODY.unpack(body)[0] == len(encoded) > wire.DIGEST_ABOVE
    assert encode_bounded(make(), wire.DIGEST_ABOVE) == (kind, body)
    assert encode_bounded(make(), 1 << 62) == (wire.VALUE, encoded)


@pytest.mark.parametrize("count", [1, 1000, 1001, 1999])
def test_a_long_answer_without_an_iterator_has_its_usual_digest(count):
    value = ["x" * 40_000] * count
    assert encode_bounded(value, wire.DIGEST_ABOVE) == (wire.DIGEST, wire.DIGEST_BODY.pack(*digest(value)))
