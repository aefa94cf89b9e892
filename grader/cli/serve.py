"""``grader serve``: not available yet."""

from grader.cli.later import ANY_ARGUMENTS, not_available

SETTINGS = ANY_ARGUMENTS


def serve() -> None:
    """Answer over HTTP (not available in this version)."""
    not_available("grader serve")
