"""``grader report``: not available yet."""

from grader.cli.later import ANY_ARGUMENTS, not_available

SETTINGS = ANY_ARGUMENTS


def report() -> None:
    """Make an HTML report of verdicts (not available in this version)."""
    not_available("grader report")
