"""The bound on expected answers of inline tests."""

from __future__ import annotations

import asyncio
import mmap
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from grader.dispatch import plans
from grader.suites.inline import SUITE_SHA256, InlineTasks
from grader.worker.bundle import BundleStore, StdioAnswers
from grader.worker.eviction import evict, mark_used

NOW = 1_000_000.0


def fill(folder: Path, *ages: float, size: int = 100) -> list[Path]:
    files = []
    for number, age in enumerate(ages):
        file = folder / f"{number}.bundle"
        file.write_bytes(bytes(size))
        os.utime(file, (NOW - age, NOW - age))
        files.append(file)
    return files


def left(files: list[Path]) -> list[int]:
    return [number for number, file in enumerate(files) if file.exists()]


def test_the_longest_unused_go_first(tmp_path):
    files = fill(tmp_path, 1000, 5000, 3000, 2000, 4000)
    assert evict(tmp_path, max_bytes=400, now=NOW) == 200
    assert left(files) == [0, 2, 3]


def test_nothing_goes_within_the_bound(tmp_path):
    files = fill(tmp_path, 5000, 4000)
    assert evict(tmp_path, max_bytes=200, now=NOW) == 0
    assert left(files) == [0, 1]
    assert evict(tmp_path / "not-there", max_bytes=0, now=NOW) == 0


def test_what_was_used_lately_stays_whatever_the_bound(tmp_path):
    files = fill(tmp_path, 10, 599, 601)
    evict(tmp_path, max_bytes=1, now=NOW)
    assert left(files) == [0, 1]


def test_what_is_about_to_be_opened_stays(tmp_path):
    files = fill(tmp_path, 5000, 4000, 3000)
    evict(tmp_path, max_bytes=100, kept=[files[0]], now=NOW)
    assert left(files) == [0]


def test_a_use_is_noted(tmp_path):
    files = fill(tmp_path, 5000, 4000)
    mark_used([files[0], tmp_path / "gone"])
    evict(tmp_path, max_bytes=100, now=files[0].stat().st_mtime + 1)
    assert left(files) == [0]


def test_files_that_are_being_made_and_folders_are_left_alone(tmp_path):
    (tmp_path / ".making-x").write_bytes(bytes(1000))
    (tmp_path / "folder").mkdir()
    os.utime(tmp_path / ".making-x", (0, 0))
    evict(tmp_path, max_bytes=1, now=NOW)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".making-x", "folder"]


def test_a_mapped_file_can_be_read_on(tmp_path):
    (file,) = fill(tmp_path, 5000)
    file.write_bytes(b"expected answers")
    os.utime(file, (0, 0))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert evict(tmp_path, max_bytes=1, now=NOW) == len(b"expected answers")
        assert not file.exists()
        assert mapped[:] == b"expected answers"


@contextmanager
def as_ordinary_user():
    """Root may remove any file, so be another for the while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_is_not_ours_is_no_error():
    with TemporaryDirectory() as name:
        folder = Path(name)
        (file,) = fill(folder, 5000)
        folder.chmod(0o555)
        with as_ordinary_user():
            assert file.exists()
            assert evict(folder, max_bytes=1, now=NOW) == 0
        assert file.exists()
        folder.chmod(0o700)


@given(st.lists(st.tuples(st.floats(700, 9000), st.integers(1, 50)), max_size=8), st.integers(1, 200))
def test_the_bound_is_kept_and_the_newest_are(tmp_path_factory, files, bound):
    folder = tmp_path_factory.mktemp("bundles")
    made = []
    for number, (age, size) in enumerate(files):
        file = folder / str(number)
        file.write_bytes(bytes(size))
        os.utime(file, (NOW - age, NOW - age))
        made.append((age, file))
    evict(folder, max_bytes=bound, now=NOW)
    assert sum(file.stat().st_size for _, file in made if file.exists()) <= bound
    stayed = [age for age, file in made if file.exists()]
    gone = [age for age, file in made if not file.exists()]
    assert not stayed or not gone or max(stayed) <= min(gone)


def suite_of(*numbers: int):
    tasks = InlineTasks()
    for number in numbers:
        tasks.add({"kind": "stdio", "inputs": [str(number)], "outputs": ["x" * 100]}, f"tests[{number}]")
    return tasks.suite


def test_the_dispatcher_has_what_was_removed_made_again(tmp_path):
    suite, store = suite_of(1), BundleStore(tmp_path, SUITE_SHA256, "key")
    (task,) = suite.tasks.values()
    known = plans.Plans(tmp_path, "key")
    assert list(known.missing(suite, [task])) == [(task, None)]
    store.write_stdio(task, StdioAnswers({"base": ["x"]}, {"base": [0.0]}))
    (file,) = store.files(task)
    os.utime(file, (0, 0))
    assert list(known.missing(suite, [task])) == []
    assert file.stat().st_mtime > 0, "a use is noted"
    file.unlink()
    assert list(known.missing(suite, [task])) == [(task, None)]


def test_the_dispatcher_keeps_what_open_requests_need(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "_MAX_INLINE_BYTES", 1)
    monkeypatch.setattr(plans, "_TIDIED_AFTER", 3)
    suite, store = suite_of(0, 1, 2), BundleStore(tmp_path, SUITE_SHA256, "key")
    tasks = list(suite.tasks.values())
    used = suite_of(1)

    async def main():
        loop = asyncio.get_running_loop()
        known = plans.Plans(tmp_path, "key")
        for task in tasks:
            made = known.begin(suite, task, loop)
            store.write_stdio(task, StdioAnswers({"base": ["x"]}, {"base": [0.0]}))
            os.utime(store.files(task)[0], (0, 0))
            made.set_result(None)
        known.tidy(loop, [used])
        await asyncio.sleep(0)
        known.tidy(loop, [used])
        await loop.shutdown_default_executor()

    asyncio.run(main())
    assert [store.has(task) for task in tasks] == [False, True, False]
