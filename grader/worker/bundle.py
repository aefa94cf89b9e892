"""What a worker needs of a task, ready to use and on disk: inputs, expected answer stream, reference times.

A bundle is a file that is read in place: a line of JSON, then the inputs, the expected stream, the offsets of its
frames (uint64) and the reference's CPU seconds a test (float64). It is made once, by running the reference solution
in a cell like any program, and is safe to read: nothing in it is executed or unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import marshal
import mmap
import os
import sys
import tempfile
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from grader.errors import InfrastructureError
from grader.judge.stream import Expected
from grader.sandbox.runner import wire
from grader.suites.task import AssertionTests, FunctionTests, StdioTests, Task

# Part of every bundle's place on disk: raise it when encoding, bundle format or comparison data change.
_FORMAT = 7
_KEPT_MAPPED = 8  # bundles that a store keeps mapped: the next sample is often of the same task


@dataclass(frozen=True, slots=True)
class Header:
    """The facts of a bundle. ``switches`` has, a group, the first test from which on a tolerance is in force that
    the task does not give itself (None: no such test); ``given``, for long answers that the suite gives, where each
    is in its section ([begin, end] by the test's index); ``peak_memory_bytes`` what the reference needed at the most;
    ``sizes`` the bytes of each section."""

    task_id: str
    group_names: list[str]
    group_sizes: list[int]
    switches: list[int | None]
    peak_memory_bytes: int = 0
    given: dict[str, list[int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


class Bundle:
    """One task's data, mapped from its file for as long as anyone holds it."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        end = self._map.find(b"\n")
        header = Header(**json.loads(self._map[:end]))
        self.task_id = header.task_id
        self.group_names, self.group_sizes = header.group_names, header.group_sizes
        self.switches = header.switches
        self.peak_memory_bytes = header.peak_memory_bytes
        self._inputs = end + 1
        self._stream = self._inputs + header.sizes["inputs"]
        offsets = self._stream + header.sizes["stream"]
        times = offsets + header.sizes["offsets"]
        self._offsets = array("Q", self._map[offsets:times])
        self._full = times + header.sizes["times"]
        self.times = array("d", self._map[times : self._full])
        self._given = header.given
        whole = len(self._map) == self._full + header.sizes["given"]
        if not (whole and len(self.times) == len(self._offsets) - 1 == sum(self.group_sizes)):
            raise ValueError("it is damaged or not whole")

    def tests_of(self, groups: Sequence[str]) -> list[int]:
        """Return the indices, in the bundle, of the tests of some groups."""
        tests: list[int] = []
        begin = 0
        for name, size in zip(self.group_names, self.group_sizes, strict=True):
            if name in groups:
                tests += range(begin, begin + size)
            begin += size
        return tests

    def inputs(self, tests: Sequence[int]) -> bytes:
        """Return the marshalled inputs of some tests, one after the other."""
        if len(tests) == len(self.times):
            return self._map[self._inputs : self._stream]
        begins = self._input_offsets()
        return b"".join(self._map[begins[test] : begins[test + 1]] for test in tests)

    def arguments(self, test: int) -> list[object]:
        """Return the arguments of one test."""
        begins = self._input_offsets()
        data = self._map[begins[test] + wire.LENGTH.size : begins[test + 1]]
        arguments: list[object] = marshal.loads(data)  # noqa: S302 - written by us, from the suite
        return arguments

    def _input_offsets(self) -> list[int]:
        begins, position = [self._inputs], self._inputs
        while position < self._stream:
            position += wire.LENGTH.size + wire.LENGTH.unpack_from(self._map, position)[0]
            begins.append(position)
        return begins

    def expected(self, tests: Sequence[int]) -> Expected:
        """Return the expected stream of some tests."""
        if len(tests) == len(self.times):
            return Expected(
                _Window(self._map, self._stream, self._offsets[-1] + wire.HEADER.size), self._offsets
            )
        whole = Expected(
            _Window(self._map, self._stream, self._offsets[-1] + wire.HEADER.size), self._offsets
        )
        return expected_stream([whole.frame(test) for test in tests])

    def given_answer(self, test: int) -> bytes | None:
        """Return the encoding of a long answer that the suite gives; None if it is the reference's to give."""
        place = self._given.get(str(test))
        return None if place is None else self._map[self._full + place[0] : self._full + place[1]]

    def has_tolerance_switch(self, test: int) -> bool:
        """Whether a float was expected at this test or at an earlier one of its group."""
        begin = 0
        for size, switch in zip(self.group_sizes, self.switches, strict=True):
            if begin <= test < begin + size:
                return switch is not None and test - begin >= switch
            begin += size
        raise IndexError(test)


@dataclass(frozen=True, slots=True)
class _Window:
    """A part of a mapped file; slices are copies, so that two can be compared as memory."""

    map: mmap.mmap
    begin: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: slice) -> bytes:
        start, stop, _ = key.indices(self.length)
        return self.map[self.begin + start : self.begin + stop]


def expected_stream(frames: Sequence[bytes]) -> Expected:
    """Put frames together to the stream that a right program sends."""
    offsets = array("Q")
    position = wire.HEADER.size
    for frame in frames:
        offsets.append(position)
        position += len(frame)
    offsets.append(position)
    return Expected(wire.frame(wire.LOADED, b"") + b"".join(frames) + wire.frame(wire.FINISHED, b""), offsets)


def encode_inputs(inputs: Sequence[Sequence[object]]) -> bytes:
    """Marshal argument lists, each with its length before it."""
    # Version 2 has no references: each argument list stands alone.
    encoded = (marshal.dumps(list(arguments), 2) for arguments in inputs)
    return b"".join(wire.LENGTH.pack(len(data)) + data for data in encoded)


@dataclass(frozen=True, slots=True)
class StdioAnswers:
    """What each whole-program test of a task must print, a group, and the reference's CPU seconds for it."""

    stdout: dict[str, list[str]]
    times: dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class ReferenceTimes:
    """CPU seconds that the reference needs for a group of assertion tests as a whole, and for each at the most."""

    whole_s: float = 0.0
    tests_s: Sequence[float] = ()


class BundleStore:
    """The bundles of one suite in the cache folder."""

    def __init__(self, cache: Path, suite_sha256: str, root_key: str) -> None:
        version = f"{suite_sha256[:16]}-{root_key}-{sys.implementation.cache_tag}-{_FORMAT}"
        self._folder = cache / "expected" / version
        self._mapped: OrderedDict[Path, Bundle] = OrderedDict()

    @property
    def folder(self) -> Path:
        """Where the suite's files are, or will be."""
        return self._folder

    def path(self, task: Task) -> Path:
        """Where the task's bundle is or will be."""
        # The reference and the comparison are part of the name: two loaders may read one file differently.
        rest = repr((task.task_id, task.entry_point, task.reference, vars(task.comparison)))
        return (
            self._folder / f"{hashlib.sha256(rest.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.bundle"
        )

    def has(self, task: Task) -> bool:
        """Whether everything that the task's tests need has been made."""
        return all(path.is_file() for path in self.files(task))

    def files(self, task: Task) -> list[Path]:
        """Return the files with what the task's tests need; other folders can be filled with copies of them."""
        kinds = {type(group.tests) for group in task.groups}
        paths: list[Path] = []
        if FunctionTests in kinds:
            paths.append(self.path(task))
        if StdioTests in kinds:
            paths.append(self._stdio_path(task))
        if AssertionTests in kinds and task.reference:
            paths.append(self._times_path(task))
        return paths

    def _times_path(self, task: Task) -> Path:
        return self.path(task).with_suffix(".assertions.json")

    def open_assertion_times(self, task: Task) -> dict[str, ReferenceTimes]:
        """Read what the reference needs for the task's assertion tests, by group; {} without a reference."""
        if not task.reference:
            return {}
        try:
            groups = json.loads(self._times_path(task).read_text("utf-8"))
            return {name: ReferenceTimes(**times) for name, times in groups.items()}
        except (OSError, ValueError, TypeError) as error:
            raise self._unreadable(task, self._times_path(task), error) from error

    def write_assertion_times(self, task: Task, times: Mapping[str, ReferenceTimes]) -> None:
        """Write what the reference needs for the task's assertion tests, by group."""
        groups = {name: asdict(needed) for name, needed in times.items()}
        self._write(self._times_path(task), [json.dumps(groups).encode()])

    def _stdio_path(self, task: Task) -> Path:
        return self.path(task).with_suffix(".stdio.json")

    def open_stdio(self, task: Task) -> StdioAnswers:
        """Read what the task's whole-program tests must print."""
        try:
            return StdioAnswers(**json.loads(self._stdio_path(task).read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise self._unreadable(task, self._stdio_path(task), error) from error

    def write_stdio(self, task: Task, answers: StdioAnswers) -> None:
        """Write the answers of the task's whole-program tests."""
        self._write(self._stdio_path(task), [json.dumps(asdict(answers)).encode()])

    def open(self, task: Task) -> Bundle:
        """Map the task's bundle, unless it still is. Raises InfrastructureError if it is missing or damaged."""
        path = self.path(task)
        bundle = self._mapped.pop(path, None)
        try:
            bundle = bundle or Bundle(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(task, path, error) from error
        self._mapped[path] = bundle
        if len(self._mapped) > _KEPT_MAPPED:
            self._mapped.popitem(last=False)
        return bundle

    @staticmethod
    def _unreadable(task: Task, path: Path, error: Exception) -> InfrastructureError:
        return InfrastructureError(
            f"the expected answers of {task.task_id} at {path} cannot be read ({error}); "
            "delete the file and run again"
        )

    def write(
        self,
        task: Task,
        header: Header,
        inputs: bytes,
        expected: Expected,
        times: Sequence[float],
        given: Mapping[int, bytes],
    ) -> None:
        """Write a bundle; it appears whole or not at all. ``given`` has encoded long answers, by test."""
        offsets, seconds = array("Q", expected.offsets), array("d", times)
        stream = expected.data[0 : len(expected.data)]
        sections = {
            "inputs": inputs,
            "stream": stream,
            "offsets": offsets.tobytes(),
            "times": seconds.tobytes(),
            "given": b"".join(given.values()),
        }
        end = 0
        for test, answer in given.items():
            header.given[str(test)] = [end, end + len(answer)]
            end += len(answer)
        header.sizes.update({name: len(data) for name, data in sections.items()})
        self._write(self.path(task), [json.dumps(asdict(header)).encode() + b"\n", *sections.values()])

    def _write(self, path: Path, parts: Sequence[bytes]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".making-", dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                for data in parts:
                    file.write(data)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
            raise
