"""Every attack program gets the status it must get, and leaves nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attack_harness import Harness
from attack_programs import ALL
from attack_programs.model import Attack, suite

from grader.status import Status
from grader.suites.task import Task

CATALOGUE_ITEMS = range(1, 98)
ELSEWHERE = {
    28: "extraction: tests/unit/extraction/test_hostile.py",
    30: "vacuous tests: test_stubs.py",
    38: "test_non_interference.py",
    42: "test_non_interference.py: a call is the same whatever was expected of the one before",
}
"""Items of the catalogue that are not one program: where they are tested."""


@pytest.mark.parametrize("task", suite().tasks.values(), ids=lambda task: task.task_id.partition("/")[2])
def test_an_honest_program_passes_every_attacked_task(task: Task, harness: Harness) -> None:
    harness.must_be_clean(harness.grade(task.reference, task.task_id))


@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_attack_fails_and_leaves_nothing(attack: Attack, harness: Harness) -> None:
    harness.withstand(attack)


def test_every_item_of_the_catalogue_has_an_attack() -> None:
    tried = {item for attack in ALL for item in attack.items}
    assert sorted(set(CATALOGUE_ITEMS) - tried - set(ELSEWHERE)) == []
    assert len({attack.name for attack in ALL}) == len(ALL)


def test_the_document_says_how_many_there_are() -> None:
    text = (Path(__file__).parents[2] / "docs/attacks.md").read_text()
    assert set(re.findall(r"all ([0-9,]+) \|", text)) == {f"{len(ALL):,}"}


def test_no_attack_may_pass() -> None:
    assert not [attack.name for attack in ALL if Status.PASSED in attack.statuses or not attack.statuses]
