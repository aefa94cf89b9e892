"""Run a trivial program in the zygote, before any sample: what the interpreter remembers of it, samples inherit.

Which method a name means, which bytecode a loop is best run with, where small blocks of memory are free: each of these
is found out once here, and would else be found out in every sample, on pages that must be copied for it.
"""

from __future__ import annotations

import marshal
import os
import random
import sys

from . import function, wire
from .sample import open_streams

_TIMES = 20  # the interpreter adapts bytecode that has run eight times or more
_PROGRAM = """
def f(n):
    return n
"""


def rehearse() -> None:
    """Run the program, to no effect; needs descriptors 0 to 3. Opens the standard streams, and seeds ``random``."""
    reader, writer = os.pipe()  # what samples get, too, and what the streams' way of writing depends on
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    open_streams()
    arguments = [marshal.dumps(given) for given in ([1], ["text"], [[1.5, None]])]
    inputs = b"".join(wire.LENGTH.pack(len(given)) + given for given in arguments)
    payload = {
        "source": _PROGRAM, "entry_point": "f", "inputs": inputs, "test_s": 60.0, "tests_s": {}, "stop_at_error": True,
        "full": False, "timing": False,
    }  # fmt: skip
    for _ in range(_TIMES):
        function.run(marshal.loads(marshal.dumps(payload)))  # noqa: S302 - our own
        del sys.modules["solution"]
    os.close(reader)
    os.close(writer)
    random.seed(0)  # every sample begins with the same state: the verdict must not depend on it
