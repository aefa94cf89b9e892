"""The errors that a user of the grader can meet.

::

    GraderError
    ├── InputError            bad usage or bad input, refused before any work: exit code 2
    │   ├── SampleError       a sample file or a sample in it
    │   └── SuiteError        a suite's file is missing, malformed, or not the one that was pinned
    └── InfrastructureError   the grader could not do its work: exit code 3
        ├── OverloadedError   there is no room for more work now; try again later
        ├── SandboxError      an isolation mechanism is missing, or a cell could not be made
        └── CellLostError     a cell died or broke the protocol while it held samples

A program under test never causes one of these: whatever it does is a verdict.
"""


class GraderError(Exception):
    """Base of every error the grader raises on purpose; its text says what happened, where, and what to do."""


class InputError(GraderError):
    """Bad usage or bad input, refused before any program runs."""


class SampleError(InputError):
    """A sample file, or one sample in it, cannot be graded; the text names the file and the line."""


class SuiteError(InputError):
    """A suite is unknown, or its file is missing, truncated, malformed or not the pinned one."""


class InfrastructureError(GraderError):
    """The grader could not do its work; never a judgement on a program."""


class OverloadedError(InfrastructureError):
    """There is no room for more work now. ``retry_after_s``: wall-clock seconds after which there may be."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SandboxError(InfrastructureError):
    """An isolation mechanism is missing or a cell could not be made; the text names the remedy."""


class CellLostError(InfrastructureError):
    """A cell died or broke the protocol while it held samples; they are graded again in another cell.

    ``blamed``: what ran in it may have brought this about (it broke the protocol, its supervisor failed, or the kernel
    killed for want of memory). Otherwise it was ended or stopped from outside.
    """

    def __init__(self, message: str, *, blamed: bool = False) -> None:
        super().__init__(message)
        self.blamed = blamed
