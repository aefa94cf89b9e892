"""How many values a JSON text has is told without parsing it."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grader.errors import SuiteError
from grader.suites import json_values
from grader.suites.inline import inline_task
from grader.suites.json_values import MAX_VALUES, has_too_many_values
from grader.suites.labels import read_label

MANY = "[" + "[]," * (MAX_VALUES // 2) + "[]]"
JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet=st.sampled_from(list('a,:[{"\\\n\u00e9')), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def marks(value: Any) -> int:
    """Values and names below a value; an empty array or object counts as one more."""
    if isinstance(value, dict):
        return max(1, 2 * len(value)) + sum(map(marks, value.values()))
    return max(1, len(value)) + sum(map(marks, value)) if isinstance(value, list) else 0


@given(JSON, st.booleans(), st.sampled_from([1, 3, 1 << 20]))
@example(["\\", '\\"', ",", '",["'], True, 1)
def test_values_and_names_are_counted_and_what_is_in_texts_is_not(
    value: Any, is_ascii: bool, size: int
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "_SLICE_BYTES", size)
        patch.setattr(json_values, "MAX_VALUES", marks(value))
        assert not has_too_many_values(text)
        if marks(value):
            patch.setattr(json_values, "MAX_VALUES", marks(value) - 1)
            assert has_too_many_values(text)


@given(st.binary(max_size=200))
def test_what_is_no_json_is_counted_too(text: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "MAX_VALUES", 5)
        assert has_too_many_values(text) in (True, False)


def test_tests_given_as_text_are_bounded() -> None:
    with pytest.raises(SuiteError, match="more than 4000000 values"):
        inline_task(MANY, "tests[0]")
    with pytest.raises(SuiteError, match="more than 4000000 values"):
        read_label(MANY, "label")


def test_packed_tests_are_bounded() -> None:
    nemo_gym = pytest.importorskip("grader.server.compat.nemo_gym")
    packed = base64.b64encode(zlib.compress(f'{{"inputs": {MANY}}}'.encode())).decode()
    with pytest.raises(nemo_gym.Refused, match="4000000 values"):
        nemo_gym._unpacked(packed)
