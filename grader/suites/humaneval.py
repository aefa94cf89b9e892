"""OpenAI's HumanEval, and other suites whose rows carry a ``check(candidate)`` function.

A row has ``task_id``, ``prompt``, ``entry_point``, ``canonical_solution`` and ``test``; ``test`` is source
that defines ``check``, which raises where the candidate is wrong (https://github.com/openai/human-eval, MIT).
"""

from __future__ import annotations

from grader.suites.files import Place, SuiteFile, TaskIds, identifier_field, parse_row, text_field
from grader.suites.task import AssertionTests, Task, TestGroup


def load_tasks(file: SuiteFile) -> dict[str, Task]:
    """Read the tasks of a file in HumanEval's schema: one group ``base`` of one test that runs ``check``.

    Raises:
        SuiteError: a row is not JSON, a field is missing or of the wrong type, or a task id comes twice.

    """
    seen = TaskIds(file)
    tasks: dict[str, Task] = {}
    for line, text in file.rows():
        row, place = parse_row(file, line, text), Place(file, line)
        task_id = seen.add(text_field(row, "task_id", place), line)
        prompt = text_field(row, "prompt", place)
        entry_point = identifier_field(row, "entry_point", place)
        test = text_field(row, "test", place)
        if "def check(" not in test:
            raise (place / "test").error("does not define check(candidate)")
        tasks[task_id] = Task(
            task_id=task_id,
            prompt=prompt,
            entry_point=entry_point,
            reference=prompt + text_field(row, "canonical_solution", place),
            groups=(TestGroup("base", AssertionTests((f"check({entry_point})",), setup=test)),),
        )
    if not tasks:
        raise file.error(None, "has no tasks")
    return tasks
