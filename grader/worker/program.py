"""What a worker is given to grade."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """One program to grade: the source assembled from a sample.

    ``source`` may hold anything that a Python string can, also characters that no encoding has: judging it
    is the worker's part. "" means that the completion held no code. ``how`` says how the program was found
    in the completion, or is None where the sample gave a whole program (``solution``).
    """

    task_id: str
    sample_id: str
    source: str
    how: str | None = None
