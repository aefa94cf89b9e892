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
    asserted,
    reading,
    exhausting,
    evading,
    persisting,
    escaping,
    network,
    output,
    insides,
    processes,
)
ALL = [attack for section in SECTIONS for attack in section.ATTACKS]
