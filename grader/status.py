"""What can become of a sample: three separate questions, three enums.

How its process ended (``Termination``), what came back for one test (``Answer``), what we judge (``Status``).
"""

from enum import StrEnum


class Termination(StrEnum):
    """How a sample's process ended, from the kernel's word and our own kill record."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    CPU_LIMIT = "cpu_limit"
    IDLE_LIMIT = "idle_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    FORBIDDEN_SYSCALL = "forbidden_syscall"
    CANCELLED = "cancelled"


class Answer(StrEnum):
    """What came back for one test."""

    VALUE = "value"
    DIGEST = "digest"
    RAISED = "raised"
    MISSING = "missing"


class Status(StrEnum):
    """The judgement on a sample or on one of its test groups, in the judges' usual words."""

    PASSED = "passed"
    WRONG_ANSWER = "wrong_answer"
    RUNTIME_ERROR = "runtime_error"
    COMPILE_ERROR = "compile_error"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    SECURITY_VIOLATION = "security_violation"
    NO_CODE = "no_code"
    INFRASTRUCTURE_ERROR = "infrastructure_error"
