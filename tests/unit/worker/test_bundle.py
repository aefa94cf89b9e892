"""Bundles: what is written is what is read, and what is damaged is our error, never a verdict."""

from __future__ import annotations

import marshal
from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.errors import InfrastructureError
from grader.judge.stream import AnswerStream
from grader.sandbox.runner import wire
from grader.suites.task import Comparison, FunctionTests, StdioTest, StdioTests, Task, TestGroup
from grader.worker.bundle import BundleStore, Header, StdioAnswers, encode_inputs, expected_stream

SIZES = {"base": 2, "plus": 3, "more": 1}
INPUTS = [[number, [number] * number] for number in range(6)]
FRAMES = [wire.frame(wire.VALUE, b"%d" % number * number) for number in range(6)]
TIMES = [0.5, 0.25, 0.0, 1.0, 2.0, 4.0]


def make_task(**changes):
    groups = tuple(TestGroup(name, FunctionTests(list)) for name in SIZES)
    return replace(Task("T/1", "", "f", "def f(a, b): ...", groups), **changes)


def store_in(folder, sha256="a" * 64, root_key="root"):
    return BundleStore(folder, sha256, root_key)


def write(store, task, sizes=SIZES, switches=(None, 1, None)):
    header = Header(task.task_id, list(sizes), list(sizes.values()), list(switches))
    store.write(
        task, header, encode_inputs(INPUTS), expected_stream(FRAMES), array("d", TIMES), {1: b"a long answer"}
    )
    return store.path(task)


@pytest.fixture
def store(tmp_path):
    return store_in(tmp_path)


@pytest.fixture
def bundle(store):
    task = make_task()
    write(store, task)
    opened = store.open(task)
    return opened


def arguments_in(data: bytes) -> list[object]:
    found, at = [], 0
    while at < len(data):
        size = wire.LENGTH.unpack_from(data, at)[0]
        found.append(marshal.loads(data[at + 4 : at + 4 + size]))
        at += 4 + size
    return found


def test_what_is_written_is_read(bundle):
    assert bundle.task_id == "T/1"
    assert bundle.group_names == list(SIZES)
    assert bundle.group_sizes == list(SIZES.values())
    assert list(bundle.times) == TIMES
    everything = list(range(6))
    assert arguments_in(bundle.inputs(everything)) == INPUTS
    expected = bundle.expected(everything)
    assert expected.tests == 6
    assert [expected.frame(test) for test in everything] == FRAMES
    assert [bundle.arguments(test) for test in everything] == INPUTS


@pytest.mark.parametrize(
    ("groups", "tests"),
    [(["base"], [0, 1]), (["plus"], [2, 3, 4]), (["more"], [5]), (["base", "more"], [0, 1, 5]),
     (["more", "base"], [0, 1, 5]), (list(SIZES), list(range(6))), ([], []), (["unknown"], [])],
)  # fmt: skip
def test_the_tests_of_groups_are_in_the_bundles_order(bundle, groups, tests):
    assert bundle.tests_of(groups) == tests


@given(tests=st.lists(st.integers(0, 5), unique=True).map(sorted))
def test_any_part_of_the_tests_can_be_had(tmp_path_factory, tests):
    store, task = store_in(tmp_path_factory.mktemp("part")), make_task()
    write(store, task)
    bundle = store.open(task)
    assert arguments_in(bundle.inputs(tests)) == [INPUTS[test] for test in tests]
    expected = bundle.expected(tests)
    assert [expected.frame(index) for index in range(expected.tests)] == [FRAMES[test] for test in tests]
    stream = AnswerStream(expected, lambda _test, _payload: False, True)
    stream.feed(wire.frame(wire.LOADED, b"") + b"".join(FRAMES[test] for test in tests))
    stream.feed(wire.frame(wire.FINISHED, b""))
    assert stream.answered == len(tests)
    assert stream.findings == {}
    assert stream.violation is None


def test_a_tolerance_is_in_force_from_its_test_on_within_its_group(bundle):
    assert [bundle.has_tolerance_switch(test) for test in range(6)] == [
        False,
        False,
        False,
        True,
        True,
        False,
    ]
    with pytest.raises(IndexError):
        bundle.has_tolerance_switch(6)


def test_a_store_has_what_was_written(store):
    task = make_task()
    assert not store.has(task)
    write(store, task)
    assert store.has(task)


def test_nothing_but_the_bundle_is_left_in_the_cache(store, tmp_path):
    path = write(store, make_task())
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


def test_a_bundle_that_cannot_be_written_leaves_nothing(store, tmp_path):
    with pytest.raises(TypeError):
        store._write(store.path(make_task()), [b"begun", "not bytes"])
    assert not [found for found in tmp_path.rglob("*") if found.is_file()]


@pytest.mark.parametrize(
    "change",
    [{"reference": "def f(a, b): pass"}, {"entry_point": "g"}, {"task_id": "T/2"},
     {"comparison": Comparison("close", 1e-3)}, {"reference": "# \ud800"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_what_decides_an_answer_decides_the_place(store, change):
    assert store.path(make_task()) != store.path(make_task(**change))


def test_another_suite_or_another_interpreter_has_its_own_answers(tmp_path):
    write(store_in(tmp_path), make_task())
    assert store_in(tmp_path).has(make_task())
    assert not store_in(tmp_path, sha256="b" * 64).has(make_task())
    assert not store_in(tmp_path, root_key="other").has(make_task())


def test_a_missing_bundle_is_our_error(store):
    with pytest.raises(InfrastructureError, match=r"T/1 at .* cannot be read .* delete the file"):
        store.open(make_task())


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"rubbish",
        lambda data: data[:10],
        lambda data: b"{}\n" + data,
        lambda data: b"[1]\n",
        lambda data: b"null\n",
        lambda data: b"\xff\xfe\n" + data,
        lambda data: data.replace(b'"inputs"', b'"outputs"', 1),
        lambda data: data[: data.index(b"\n") + 1],
        lambda data: data[:-1],
        lambda data: data[:-8],
        lambda data: data[:-48],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"more",
    ],
)
def test_a_damaged_bundle_is_our_error_and_names_its_file(store, damage):
    task = make_task()
    path = write(store, task)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InfrastructureError, match="delete the file") as caught:
        store.open(task)
    assert str(path) in str(caught.value)


class TestStdio:
    task = make_task(groups=(TestGroup("base", StdioTests((StdioTest("1", "2"),))),), entry_point="")
    answers = StdioAnswers({"base": ["2\n", "\udcff \x00"]}, {"base": [0.5, 0.0]})

    def test_what_is_written_is_read(self, store):
        assert not store.has(self.task)
        store.write_stdio(self.task, self.answers)
        assert store.has(self.task)
        assert store.open_stdio(self.task) == self.answers

    @pytest.mark.parametrize(
        "data", [b"", b"{", b"[]", b"{}", b'{"stdout": {}}', b'{"stdout": 1, "x": 2}', b"\xff"]
    )
    def test_damage_is_our_error(self, store, data):
        store.write_stdio(self.task, self.answers)
        store._stdio_path(self.task).write_bytes(data)
        with pytest.raises(InfrastructureError, match="delete the file"):
            store.open_stdio(self.task)

    def test_a_task_with_both_kinds_needs_both(self, store):
        task = replace(self.task, groups=(*self.task.groups, *make_task().groups))
        write(store, task)
        assert not store.has(task)
        store.write_stdio(task, self.answers)
        assert store.has(task)


def test_long_answers_that_the_suite_gives_are_kept(store):
    write(store, make_task())
    bundle = store.open(make_task())
    assert bundle.given_answer(1) == b"a long answer"
    assert bundle.given_answer(0) is None


@given(st.lists(st.lists(st.one_of(st.integers(), st.text(), st.floats(allow_nan=False), st.none()))))
def test_inputs_are_encoded_one_by_one(inputs):
    assert arguments_in(encode_inputs(inputs)) == inputs


def test_inputs_that_share_their_parts_stand_alone():
    shared = ["x" * 10]
    assert encode_inputs([[shared, shared]]) == encode_inputs([[["x" * 10], ["x" * 10]]])


@given(st.lists(st.builds(wire.frame, st.sampled_from([wire.VALUE, wire.DIGEST]), st.binary())))
def test_the_stream_of_some_frames_is_them_between_its_two_ends(frames):
    expected = expected_stream(frames)
    assert expected.tests == len(frames)
    assert [expected.frame(test) for test in range(expected.tests)] == frames
    whole = expected.data[0 : len(expected.data)]
    assert whole == wire.frame(wire.LOADED, b"") + b"".join(frames) + wire.frame(wire.FINISHED, b"")
