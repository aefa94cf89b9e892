"""When cells are replaced by fresh ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Renewal:
    """When cells are replaced by fresh ones. Raises ValueError for numbers that make no sense.

    ``one_shot``: after every run of a program; a sample whose tests are whole programs has a run for each test, and
    each gets a cell of its own. ``max_age_s`` (wall-clock seconds) and ``max_runs`` limit all others. ``spares`` is how
    many cells are kept ready for each worker, from ``spares_after_s`` seconds after its first cell on: so a short run
    need not share its processors with the start of cells that it will not use. A cell is never taken from a sample
    that runs.
    """

    one_shot: bool = False
    max_age_s: float = 3600.0
    max_runs: int = 10_000
    spares: int = 1
    spares_after_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.max_age_s > 0 and self.max_runs > 0 and self.spares > 0):
            raise ValueError(f"max_age_s, max_runs and spares must be positive: {self}")
        if not self.spares_after_s >= 0:
            raise ValueError(f"spares_after_s is a number of seconds: {self}")

    @property
    def runs(self) -> int:
        """How many runs a cell serves at the most."""
        return 1 if self.one_shot else self.max_runs
