"""placeholder"""

from typing import Any


def run(payload: dict[str, Any]) -> int:
    """Placeholder until the decoder is here."""
    return 1
