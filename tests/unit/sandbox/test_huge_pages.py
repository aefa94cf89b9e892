"""A process that moves its own memory: all of it is where it was, with the rights that it had, and forks cost less."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.sandbox.runner import huge_pages

_HUGE = 2 << 20
_PROCESS = textwrap.dedent(
    """
    import json, os, resource, sys
    from grader.sandbox.runner import huge_pages, kernel

    REFUSED = sys.argv[1] == "refused"

    def mappings():
        found = []
        for line in open("/proc/self/maps"):
            place, rights, _, _, _, *name = line.split()
            start, end = (int(number, 16) for number in place.split("-"))
            if name and name[0].startswith("[v"):
                continue
            if found and found[-1][1:] == [start, rights]:
                found[-1][1] = end
            else:
                found.append([start, end, rights])
        return found

    def shape(of):  # what can be reached and how, whatever it is mapped from
        merged = []
        for start, end, rights in of:
            if merged and merged[-1][1] == start and merged[-1][2] == rights:
                merged[-1][1] = end
            else:
                merged.append([start, end, rights])
        return merged

    def faults_of_a_child():
        if (pid := os.fork()) == 0:
            sum(len(str(number)) for number in range(1000))
            os._exit(0)
        return os.wait4(pid, 0)[2].ru_minflt

    def refuse(*_):
        raise OSError(22, "no huge pages")

    data = {number: [str(number) * 10] for number in range(20_000)}
    text = json.dumps(data)
    proc = os.open("/proc", os.O_PATH)
    faults_of_a_child()
    faults = faults_of_a_child()
    if REFUSED:
        kernel.advise_memory = refuse
    code = [line for line in open("/proc/self/maps") if " r-xp " in line and "/" in line]
    before = shape(mappings())
    huge_pages.move_in(proc)
    after = shape(mappings())
    copied = len(code) - len([line for line in open("/proc/self/maps") if " r-xp " in line and "/" in line])
    same = json.dumps(data) == text
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        data.clear()
        os.write(writer, b"cleared")
        os._exit(0)
    os.waitpid(pid, 0)
    print(json.dumps({
        "before": before, "after": after, "code_copied": copied, "same": same,
        "own": os.read(reader, 7) == b"cleared" and json.dumps(data) == text,
        "faults": [faults, faults_of_a_child()],
    }))
    """
)


def moved(how: str) -> dict:
    made = subprocess.run(
        [sys.executable, "-c", _PROCESS, how], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(made.stdout)


@pytest.fixture(scope="module")
def found():
    return moved("granted")


def test_all_that_it_has_in_memory_is_the_same(found):
    assert found["same"]


def test_a_child_still_has_its_own(found):
    assert found["own"]


def test_the_code_is_copied_and_cannot_be_written_to(found):
    assert found["code_copied"] >= 1
    assert [rights for _, _, rights in found["after"] if "w" in rights and "x" in rights] == []


def test_every_address_keeps_its_rights(found):
    """But that constants lie beside code, in one mapping with it."""
    for start, end, rights in found["before"]:
        inside = [other for other in found["after"] if other[0] < end and other[1] > start]
        others = {rights, "r-xp"} if rights == "r--p" else {rights}
        assert {other[2] for other in inside} <= others, (hex(start), hex(end), rights)
        assert sum(min(other[1], end) - max(other[0], start) for other in inside) == end - start


def test_a_child_meets_fewer_page_faults(found):
    before, after = found["faults"]
    assert after < before


def test_without_huge_pages_nothing_is_moved_and_nothing_is_left():
    found = moved("refused")
    assert found["same"]
    assert found["code_copied"] == 0
    assert found["after"] == found["before"]


@given(
    st.lists(
        st.builds(
            lambda page, pages, code: huge_pages._Piece(
                4096 * page, 4096 * (page + pages), huge_pages._CODE if code else huge_pages._MEMORY
            ),
            st.integers(1, 1 << 30),
            st.integers(1, 4000),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_no_piece_is_laid_over_another_or_beyond_the_end(pieces):
    offsets, size = huge_pages._layout(pieces)
    assert size % _HUGE == 0
    end = 0
    for piece, offset in zip(pieces, offsets, strict=True):
        assert offset >= end
        end = offset + piece.size
        if piece.protection == huge_pages._CODE and piece.size >= 2 * _HUGE:
            assert (piece.start - offset) % _HUGE == 0
    assert end <= size
