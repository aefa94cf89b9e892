"""The attack programs, by section of the catalogue; ``ALL`` has every one of them."""

from __future__ import annotations

from attack_programs import (
    asserted,
    escaping,
    evading,
    exhausting,
    forging,
    frames,
    insides,
    network,
    output,
    persisting,
    processes,
    reading,
)

SECTIONS = (
    forging,
    frames,
    insides,
    asserted,
    reading,
    exhausting,
    evading,
    processes,
    persisting,
    escaping,
    network,
    output,
)
ALL = [attack for section in SECTIONS for attack in section.ATTACKS]
